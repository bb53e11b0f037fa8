"""Without its SDK a shipped backend is refused, with the line that installs it."""

import importlib
import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

from atlasd.pluginhost.candidates import Candidate
from atlasd.pluginhost.roll import Roll

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def candidate(name: str) -> Candidate:
    """What the entry point of that name leads to."""
    points = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["atlasd.plugins"]
    return Candidate(
        name=name,
        origin="atlasd",
        load=lambda: importlib.import_module(points[name]),
        drop_in=False,
    )


@pytest.mark.parametrize(("name", "module"), [("aws", "boto3")])
def test_the_line_that_installs_it(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without(wanted: str, package: str | None = None) -> Any:
        return None if wanted.split(".", maxsplit=1)[0] == module else find_spec(wanted, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    roll = Roll()
    roll.take(candidate(name))
    (refused,) = roll.refused
    assert refused.reason == (
        f"its secret backend {name!r} cannot work: it needs the module {module!r}, which is not "
        f"installed: pip install 'atlasd[{name}]'"
    )


@pytest.mark.parametrize("name", ["aws"])
def test_with_its_sdk_it_is_admitted(name: str) -> None:
    roll = Roll()
    roll.take(candidate(name))
    assert list(roll.refused) == []
