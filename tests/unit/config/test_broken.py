"""What a user reads about each kind of broken configuration, word for word.

`broken/*.toml` are the files, `broken/*.txt` what `atlasd check` says about them. What takes
several layers has a folder below `broken_layers`: the files as they lie in etc, `variables` of the
process, a `--set` for each line of `command-line`, and what is said in `said.txt`. After a change
that is meant, write the texts anew with `ATLASD_WRITE_EXPECTED=1 pytest tests/unit/config` and read
the difference: it is what users will read.
"""

import dataclasses
import os
import shutil
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

LAYERED = sorted(path for path in (Path(__file__).parent / "broken_layers").iterdir())
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
    assert len(BROKEN) + len(LAYERED) >= 60


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


def laid(desk: Desk, folder: Path) -> Desk:
    """The desk with the files of a folder in its etc."""
    shutil.copytree(folder, desk.etc)
    main = next(
        path for path in desk.etc.iterdir() if path.stem == "atlasd" and path.suffix != ".env"
    )
    variables, words = desk.etc / "variables", desk.etc / "command-line"
    environ = dict(desk.environ)
    if variables.exists():
        for line in variables.read_text().splitlines():
            name, _, value = line.partition("=")
            environ[name] = value
    return dataclasses.replace(
        desk,
        paths=dataclasses.replace(desk.paths, config=str(main)),
        environ=environ,
        overrides=tuple(words.read_text().splitlines()) if words.exists() else (),
        offers=OFFERS,
    )


@pytest.mark.parametrize("folder", LAYERED, ids=lambda path: path.name)
def test_broken_layers_are_explained(desk: Desk, folder: Path) -> None:
    desk = laid(desk, folder)
    said = "".join(f"{line}\n" for line in desk.says())
    expected = folder / "said.txt"
    if os.environ.get("ATLASD_WRITE_EXPECTED"):
        expected.write_text(said)
    assert said == expected.read_text()
    assert "hunter2" not in said
    with pytest.raises(AtlasError) as caught:
        desk.load()
    assert caught.value.code == "config.invalid"
