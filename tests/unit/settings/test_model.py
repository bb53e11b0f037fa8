"""A pydantic model of the application, asked in a process of its own."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.config import Layer
from atlasd.errors import AtlasError
from atlasd.settings.model import Judged, Model
from atlasd.settings.tree import dotted, undotted
from atlasd.settings.words import Speaker

SHOP = '''
"""The application prints while it is imported, as applications do."""
import os
import sys

from pydantic import BaseModel, Field, SecretStr, field_validator

print("loading the shop", flush=True)
assert "SHOP_SECRET" not in os.environ


class Db(BaseModel, extra="forbid"):
    host: str
    port: int = 5432
    password: SecretStr = SecretStr("none")


class Settings(BaseModel, extra="forbid"):
    name: str
    workers: int = Field(default=2, gt=0)
    db: Db
    replicas: list[Db] = []
    log_level: str = Field(default="info", alias="logLevel")

    @field_validator("name")
    @classmethod
    def known(cls, name):
        if name == "bad":
            raise ValueError(f"the name {name} is taken")
        return name


class Slow(BaseModel):
    @field_validator("*", mode="before")
    @classmethod
    def wait(cls, value):
        import time
        time.sleep(60)
        return value
    a: int


class Fails(BaseModel):
    a: int
    @field_validator("a")
    @classmethod
    def fail(cls, value):
        sys.exit(f"no {value}")
'''


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop_settings.py").write_text(SHOP)
    monkeypatch.setenv("SHOP_SECRET", "of the daemon")
    return tmp_path


def judge(
    folder: Path,
    data: dict[str, Any],
    name: str = "Settings",
    secrets: Mapping[str, Mapping[str, str]] | None = None,
    **options: Any,
) -> Judged:
    held = {undotted(key): value for key, value in (secrets or {}).items()}
    speaker = Speaker(layer=Layer(origin="shop.toml", data=data), secrets=held)
    with Model(f"shop_settings:{name}", python="", folder=str(folder), **options) as model:
        return model.judge(data, speaker)


def test_what_fits_is_taken_with_the_defaults_that_nobody_has_set(shop: Path) -> None:
    judged = judge(shop, {"name": "shop", "db": {"host": "a"}, "replicas": [{"host": "b"}]})
    assert judged.complaints == ()
    # A default that is a secret would come out as asterisks: it is left to the application.
    assert {dotted(path): value for path, value in judged.defaults} == {
        "workers": 2,
        "db.port": 5432,
        "replicas[0].port": 5432,
        "logLevel": "info",
    }


def test_everything_that_is_wrong_is_told_at_once(shop: Path) -> None:
    judged = judge(
        shop, {"name": "bad", "workers": 0, "db": {"prot": 1}, "replicas": [{"host": 1}]}
    )
    assert sorted(f"{c.key}: {c.expected} | {c.got} | {c.hint}" for c in judged.complaints) == [
        "db.host: a string | nothing | ",
        "db.prot:  | unknown key | did you mean 'port'?",
        "name:  | the name bad is taken | ",
        "replicas[0].host: a string | 1 | ",
        "workers: greater than 0 | 0 | ",
    ]


def test_the_words_of_the_application_show_no_secret(shop: Path) -> None:
    judged = judge(
        shop, {"name": "bad", "db": {"host": "a", "password": 5}}, secrets={"name": {"n": "bad"}}
    )
    said = " ".join(f"{c.expected} {c.got}" for c in judged.complaints)
    assert "bad" not in said
    assert "password" in {dotted(undotted(c.key)[-1:]) for c in judged.complaints}
    assert " 5" not in said


def test_the_schema_of_the_model_is_known_beforehand(shop: Path) -> None:
    with Model("shop_settings:Settings", python=sys.executable, folder=str(shop)) as model:
        assert model.schema.kinds(("db", "port")) == {"integer"}
        assert ("db", "host") in model.schema.paths()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop_setting:Settings", "shop_setting cannot be imported: ModuleNotFoundError"),
        ("shop_settings:Setings", "there is no Setings in shop_settings"),
        ("shop_settings:os", "no pydantic model"),
        ("broken:Settings", r"RuntimeError: no network .*broken\.py:2"),
        ("leaves:Settings", "cannot be imported: SystemExit: 3"),
        ("kills:Settings", "it ended without an answer"),
    ],
)
def test_what_cannot_be_asked_says_why(shop: Path, name: str, said: str) -> None:
    (shop / "broken.py").write_text("def f():\n    raise RuntimeError('no network')\nf()\n")
    (shop / "leaves.py").write_text("raise SystemExit(3)\n")
    (shop / "kills.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(AtlasError, match=said) as caught:
        Model(name, python="", folder=str(shop))
    assert caught.value.code == "settings.invalid"
    assert "python" in caught.value.hint


def test_a_model_that_takes_too_long_is_ended(shop: Path) -> None:
    with pytest.raises(AtlasError, match=r"took longer than 1\.5 s and was ended"):
        judge(shop, {"a": 1}, name="Slow", seconds=1.5)


def test_a_model_that_ends_its_process_shows_no_secret(shop: Path) -> None:
    with pytest.raises(AtlasError) as caught:
        judge(shop, {"a": 123456}, name="Fails", secrets={"a": {"a": "123456"}})
    assert "123456" not in caught.value.message


def test_an_interpreter_that_is_not_there_is_named(shop: Path) -> None:
    with pytest.raises(AtlasError, match="/nowhere/python cannot be run: No such file"):
        Model("shop_settings:Settings", python="/nowhere/python", folder=str(shop))
