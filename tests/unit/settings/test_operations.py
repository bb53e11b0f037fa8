"""Questions about settings of applications, as core answers them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from atlasd.control import models
from atlasd.errors import AtlasError
from atlasd.settings.applied import Applied
from atlasd.settings.operations import SettingsOperations
from tests.unit.settings.shop import WEB, Shop

TEXT = (
    '[settings.shop]\nfiles = ["base.toml", "-{environment}.toml", "-shop.env"]\n'
    'schema = "schema.json"\nenv_prefix = "SHOP_"\n' + WEB
)  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    desk = Shop.at(tmp_path)
    desk.write(
        "base.toml",
        'workers = 2\ndsn = "pg://u:pw1234@db"\n[db]\nhost = "db"\npassword = "secret://db"\n'
        'old_password = "plain-and-long"\n',
    )
    desk.write("production.toml", "workers = 8\n")
    desk.write("staging.toml", '[db]\nhost = "db2"\nold_password = "another-one"\n')
    desk.write("schema.json", {"properties": {"workers": {"type": "integer"}}})
    desk.write("shop.env", "DEBUG=yes\nOLD_TOKEN=plain-token\n")
    desk.secrets = {"db": "hunter22"}
    return desk


class Asked:
    """The operations, over what a test has written."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.audited: list[tuple[str, Sequence[str], str]] = []
        self.operations = SettingsOperations(
            current=lambda: shop.applied(TEXT), of_environment=self._look, audit=self._audit
        )

    async def _look(self, env: str) -> Applied:
        desk = Shop(paths=self.shop.paths, resolving=False, env=env)
        return desk.applied(TEXT)

    async def _audit(self, service: str, names: Sequence[str], actor: str) -> None:
        self.audited.append((service, names, actor))

    def __call__(self, operation: str, **fields: Any) -> Any:
        return asyncio.run(getattr(self.operations, operation)(actor="uid:0", **fields))


@pytest.fixture
def ask(shop: Shop) -> Asked:
    return Asked(shop)


def test_a_set_is_shown_with_the_place_of_each_setting_and_no_secret(ask: Asked) -> None:
    body = models.SettingsBody.model_validate(ask("show", name="shop"), strict=False)
    rows = {one.key: (one.value, Path(one.where).name, one.secret) for one in body.settings}
    assert rows == {
        "workers": (8, "production.toml:1:11", False),
        "dsn": ("[not shown]", "base.toml:2:7", False),
        "db.host": ("db", "base.toml:4:8", False),
        "db.password": ("secret://db", "base.toml:5:12", True),
        "db.old_password": ("[not shown]", "base.toml:6:16", True),
        "DEBUG": ("yes", "shop.env:1:1", False),
        "OLD_TOKEN": ("[not shown]", "shop.env:2:1", True),
    }
    assert (body.environment, body.services) == ("production", ("web",))


def test_a_setting_is_explained(ask: Asked) -> None:
    body = models.SettingExplained.model_validate(
        ask("explain", name="shop", key="workers"), strict=False
    )
    assert body.value == 8
    assert [Path(place).name for place in body.shadows] == ["base.toml:1:11"]
    assert body.expected == "a whole number"
    assert body.variables == ("SHOP_WORKERS",)
    secret = ask("explain", name="shop", key="db.password")
    assert (secret["value"], secret["reference"]) == ("secret://db", "secret://db")
    assert ask("explain", name="shop", key="SHOP_DB_HOST")["key"] == "db.host"
    token = ask("explain", name="shop", key="OLD_TOKEN")
    assert token["variables"] == ["SHOP_OLD_TOKEN", "OLD_TOKEN"]


def test_two_environments_differ_even_in_what_is_not_shown(ask: Asked) -> None:
    body = models.SettingsDiff.model_validate(
        ask("diff", name="shop", left="production", right="staging"), strict=False
    )
    assert {c.key: (c.left, c.right) for c in body.changes} == {
        "workers": (8, 2),
        "db.host": ("db", "db2"),
        "db.old_password": ("[not shown]", "[not shown]"),
    }


def test_what_a_service_is_given_is_masked_unless_it_is_revealed_and_audited(ask: Asked) -> None:
    body = models.SettingsRendered.model_validate(
        ask("render", service="web", file=None), strict=False
    )
    assert body.variables["SHOP_DB_PASSWORD"] == "secret://db"
    assert body.variables["OLD_TOKEN"] == "[not shown]"
    assert body.variables["DEBUG"] == "yes"
    said = str(body)
    assert not any(s in said for s in ("hunter22", "plain-and-long", "plain-token", "pw1234"))
    assert ask.audited == []
    revealed = ask("reveal", service="web", file=None)
    assert revealed["variables"]["SHOP_DB_PASSWORD"] == "hunter22"
    assert revealed["variables"]["OLD_TOKEN"] == "plain-token"
    assert ask.audited == [("web", ["OLD_TOKEN", "db", "db.old_password"], "uid:0")]


@pytest.mark.parametrize(
    ("operation", "fields", "said"),
    [
        ("show", {"name": "shpo"}, "no set of settings is called 'shpo'"),
        ("explain", {"name": "shop", "key": "db.hots"}, "settings.shop has no 'db.hots'"),
        ("render", {"service": "wbe", "file": None}, "no service 'wbe' is given settings"),
        ("render", {"service": "web", "file": "a.json"}, "service web has no file 'a.json'"),
    ],
)
def test_what_is_not_there_is_an_error_with_a_hint(
    ask: Asked, operation: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(AtlasError) as caught:
        ask(operation, **fields)
    assert caught.value.code == "settings.unknown"
    assert caught.value.message.replace("'web'", "web") == said
    assert caught.value.hint
