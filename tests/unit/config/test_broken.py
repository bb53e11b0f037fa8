"""What a user reads about each kind of broken configuration, word for word.

`broken/*.toml` are the files, `broken/*.txt` what `atlasd check` says about them. After a change
that is meant, write the texts anew with `ATLASD_WRITE_EXPECTED=1 pytest tests/unit/config` and read
the difference: it is what users will read.
"""

import dataclasses
import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from atlasd.config.load import Offers
from atlasd.contracts.checks import Check, CheckType
from atlasd.contracts.secrets import SecretBackend
from atlasd.contracts.settings import Settings
from atlasd.errors import EXIT_CONFIG, AtlasError
from tests.unit.config.desk import Desk

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.toml"))


class HttpSettings(Settings):
    url: str = Field(description="What is asked.")


class ShopSettings(Settings):
    depth: int = Field(description="How deep.")


def never(settings: Any, context: Any) -> AbstractAsyncContextManager[Check]:
    raise AssertionError("validation opens nothing")


def unopened(settings: object, context: object) -> Any:
    """What nothing in these tests opens."""
    raise NotImplementedError


OFFERS = Offers(
    check_types={
        "http": CheckType(name="http", summary="asks", settings=HttpSettings, open=never),
    },
    plugin_settings={"shop": ShopSettings},
    secret_backends={"fernet": SecretBackend(name="fernet", summary="keeps", open=unopened)},
    refused=("plugin extra was refused: it needs the module redis",),
)


def test_there_are_enough_of_them() -> None:
    assert len(BROKEN) >= 25


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_file_is_explained(desk: Desk, path: Path) -> None:
    desk = dataclasses.replace(
        desk, paths=dataclasses.replace(desk.paths, config=str(path)), offers=OFFERS
    )
    problems = desk.check()
    said = "".join(f"{problem}\n" for problem in problems).replace(f"{path.parent}/", "")
    expected = path.with_suffix(".txt")
    if os.environ.get("ATLASD_WRITE_EXPECTED"):
        expected.write_text(said)
    assert said == expected.read_text()
    assert "hunter2" not in said


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_file_is_refused_whole(desk: Desk, path: Path) -> None:
    desk = dataclasses.replace(
        desk, paths=dataclasses.replace(desk.paths, config=str(path)), offers=OFFERS
    )
    errors = [problem for problem in desk.check() if not problem.warning]
    with pytest.raises(AtlasError) as caught:
        desk.load()
    assert caught.value.code == "config.invalid"
    assert caught.value.kind.exit == EXIT_CONFIG
    assert caught.value.message.splitlines() == [str(problem) for problem in errors]
    assert caught.value.details == {"problems": [problem.to_wire() for problem in errors]}
    assert "atlasd check" in caught.value.hint
