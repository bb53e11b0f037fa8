"""Without its SDK a shipped backend is refused, with the line that installs it."""

import importlib
import importlib.util
import tomllib
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

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


@pytest.mark.parametrize(
    ("name", "module"),
    [("aws", "boto3"), ("azure", "azure.identity"), ("azure", "azure.keyvault.secrets")],
)
def test_the_line_that_installs_it(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, last = importlib.util.find_spec, module.rpartition(".")[2]

    class Finder(PathFinder):
        @staticmethod
        def find_spec(name: str, path: list[str]) -> ModuleSpec | None:  # type: ignore[override]
            return None if name == last else PathFinder.find_spec(name, path)

    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else whole(name)
    )
    monkeypatch.setattr("atlasd.pluginhost.admission.PathFinder", Finder)
    roll = Roll()
    roll.take(candidate(name))
    (refused,) = roll.refused
    assert refused.reason == (
        f"its secret backend {name!r} cannot work: it needs the module {module!r}, which is not "
        f"installed: pip install 'atlasd[{name}]'"
    )


@pytest.mark.parametrize("name", ["aws", "azure"])
def test_with_its_sdk_it_is_admitted(name: str) -> None:
    roll = Roll()
    roll.take(candidate(name))
    assert list(roll.refused) == []
