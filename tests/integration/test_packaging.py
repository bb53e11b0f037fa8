"""What is built, pinned and shipped: the wheel, the pins, and the entry points."""

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import atlasd

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Written in two parts, so that this file does not hold what it looks for.
HOSTS = tuple(a + b for a, b in (("py", "pi.org"), ("files.python", "hosted.org")))


def pins() -> dict[str, str]:
    """Each requirement of dev.txt, with all its lines."""
    text = (ROOT / "requirements" / "dev.txt").read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE | re.IGNORECASE)[1:]
    return {entry.split("==")[0].strip(): entry for entry in entries}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_ships_what_a_host_needs(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    data = f"atlasd-{atlasd.__version__}.data/data/share/atlasd"
    for name in (
        "atlasd/py.typed",
        "atlasd_plugins/py.typed",
        "atlasd/__main__.py",
        f"{data}/etc/atlasd.toml",
        f"{data}/etc/demo/atlasd.toml",
        f"{data}/systemd/atlas-services.service",
        f"{data}/systemd/atlas.target",
        f"atlasd-{atlasd.__version__}.dist-info/licenses/LICENSE",
    ):
        assert name in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.startswith("atlasd-")} == {"atlasd", "atlasd_plugins"}


def test_what_a_test_run_leaves_behind_is_not_shipped(wheel: zipfile.ZipFile) -> None:
    strays = [n for n in wheel.namelist() if n.endswith((".pyc", ".sqlite", ".log", ".sock"))]
    assert strays == []


def test_every_entry_point_leads_somewhere() -> None:
    targets = [*PROJECT["scripts"].values(), *PROJECT["entry-points"]["atlasd.plugins"].values()]
    assert len(targets) > 4
    for target in targets:
        module, _, attribute = target.partition(":")
        assert importlib.util.find_spec(module), module
        if attribute:
            assert hasattr(importlib.import_module(module), attribute), target


def test_every_requirement_is_pinned_with_hashes() -> None:
    entries = pins()
    assert len(entries) > 40
    without = [name for name, entry in entries.items() if "--hash=sha256:" not in entry]
    assert without == []


def test_every_dependency_and_tool_is_pinned() -> None:
    wanted = {re.split(r"[<>=\[;]", line)[0].strip() for line in PROJECT["dependencies"]}
    for line in (ROOT / "requirements" / "dev.in").read_text().splitlines():
        name = re.split(r"[<>=\[;#]", line)[0].strip()
        if name:
            wanted.add(name)
    assert wanted - set(pins()) == set()


def test_a_range_admits_what_is_pinned() -> None:
    entries = pins()
    for line in PROJECT["dependencies"]:
        name, allowed = re.fullmatch(r"([A-Za-z0-9-]+)(.*)", line).groups()  # type: ignore[union-attr]
        version = re.match(r"[^ ]+==([^ ;]+)", entries[name])
        assert version is not None
        assert SpecifierSet(allowed).contains(version[1]), line


def test_no_pin_says_where_it_was_found() -> None:
    for path in (ROOT / "requirements").iterdir():
        text = path.read_text()
        found = [mark for mark in (*HOSTS, "index-url", "find-links", "://") if mark in text]
        assert found == [], path.name


def test_the_version_is_in_the_changelog_or_yet_to_come() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    heads = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert heads[0] == "Unreleased" or heads[0] == atlasd.__version__
