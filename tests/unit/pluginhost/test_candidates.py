"""Entry points: whose come first, and where their text is found without importing it."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from atlasd.pluginhost.candidates import find_entry_points


def install(folder: Path, name: str, *points: str) -> None:
    """A distribution with entry points, as pip would leave it."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[atlasd.plugins]\n" + "\n".join(points) + "\n")


def test_those_that_ship_come_first_then_by_distribution_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "zoo-plugins", "ant = zoo_ant")
    install(tmp_path, "aaa-plugins", "zebra = aaa_zebra", "bee = aaa_bee")
    install(tmp_path, "Atlasd", "http = own_http")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = [(c.origin, c.name, c.version) for c in find_entry_points()]
    assert found == [
        ("Atlasd", "http", "1.0"),
        ("aaa-plugins", "bee", "1.0"),
        ("aaa-plugins", "zebra", "1.0"),
        ("zoo-plugins", "ant", "1.0"),
    ]


def test_the_source_is_found_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shop_plugins_unloaded"
    (package / "deep").mkdir(parents=True)
    for file in ("__init__.py", "disk.py", "deep/__init__.py"):
        (package / file).write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint(name=name, value=value, group="atlasd.plugins")
        for name, value in (
            ("a", "shop_plugins_unloaded"),
            ("b", "shop_plugins_unloaded.disk"),
            ("c", "shop_plugins_unloaded.deep:plugin"),
            ("d", "shop_plugins_unloaded.missing"),
            ("e", "not_there_at_all.disk"),
        )
    ]
    found = {c.name: c.sources for c in find_entry_points(points)}
    assert found == {
        "a": (package / "__init__.py",),
        "b": (package / "disk.py",),
        "c": (package / "deep" / "__init__.py",),
        "d": (),
        "e": (),
    }
    assert "shop_plugins_unloaded" not in sys.modules
