"""That what the pages tell people to write is accepted: configurations, and commands."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from atlasd.config.load import check, load
from atlasd.config.validate import Offers
from atlasd.contracts.config import ConfigSource
from atlasd.paths import find
from atlasd_plugins.config_toml import register_config_sources
from docs.commands import programs
from docs.settings import check_types, secret_backends

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


class Anywhere:
    """A host that has whatever an example refers to."""

    def has_user(self, user: str) -> bool:
        return bool(user)

    def has_group(self, group: str) -> bool:
        return bool(group)

    def has_program(self, word: str, *, search: str, cwd: str) -> bool:
        return bool(word and search and cwd)

    def is_folder(self, path: str) -> bool:
        return bool(path)

    def is_root(self) -> bool:
        return True

    def read(self, path: str) -> bytes:
        return path.encode()


def sources() -> list[ConfigSource]:
    return list(register_config_sources())


def offers() -> Offers:
    return Offers(
        check_types={kind.name: kind for kind in check_types()},
        plugin_settings={},
        secret_backends={kind.name: kind for kind in secret_backends()},
    )


def blocks(page: Path) -> list[str]:
    """The TOML on a page, as one configuration each."""
    found = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if re.search(r"^\[", block, re.MULTILINE)]


def commands_on(page: Path) -> list[str]:
    """The lines of a page that call atlasd or atlasctl, without the comments behind them."""
    lines = re.findall(r"^(?: {4,}|\$ )((?:atlasctl|atlasd) .*)$", page.read_text(), re.MULTILINE)
    spans = re.findall(r"`((?:atlasctl|atlasd) [a-z][^`]*)`", page.read_text())
    return [re.split(r"\s{2,}| #", line)[0].strip() for line in [*lines, *spans]]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_configuration_on_a_page_is_valid(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page)):
        file = tmp_path / f"{number}.toml"
        named = re.match(r"# environments/(\w+)\.toml\n", block)
        if named is None:
            file.write_text(block)
        else:  # the page says itself which file it shows
            file.write_text("")
            (tmp_path / "environments").mkdir(exist_ok=True)
            (tmp_path / "environments" / f"{named[1]}.toml").write_text(block)
        env = named[1] if named is not None else None
        paths = find(root=str(tmp_path), config=str(file))
        problems = check(paths, sources(), env=env, environ={}, offers=offers(), host=Anywhere())
        assert [str(p) for p in problems if not p.warning] == [], block


def test_there_are_configurations_to_look_at() -> None:
    assert sum(len(blocks(page)) for page in PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_on_a_page_exists(page: Path) -> None:
    known = programs()
    for line in commands_on(page):
        words = shlex.split(line.replace("…", ""))
        # A command of a group has options of its own: `atlasctl secret audit verify`.
        length = next((n for n in (4, 3, 2) if " ".join(words[:n]) in known), 0)
        assert length, line
        called, rest = known[" ".join(words[:length])], words[length:]
        wrong = isinstance(called, click.Group) and rest and not rest[0].startswith("-")
        assert not wrong, line
        options = {name for option in called.params for name in option.opts}
        for word in rest:
            if word.startswith("-"):
                assert word.split("=")[0] in options, line


def test_there_are_commands_to_look_at() -> None:
    assert sum(len(commands_on(page)) for page in PAGES) > 20


@pytest.mark.parametrize("name", ["etc/atlasd.toml", "etc/demo/atlasd.toml"])
def test_what_ships_is_valid(name: str, tmp_path: Path) -> None:
    paths = find(root=str(tmp_path), config=str(ROOT / name))
    config = load(paths, sources(), environ={}, offers=offers(), host=Anywhere())
    assert config.files


def test_a_mistake_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "atlasd.toml"
    file.write_text('[services.web]\ncomand = "x"\n')
    paths = find(root=str(tmp_path), config=str(file))
    assert check(paths, sources(), environ={}, offers=offers(), host=Anywhere())


def test_a_page_is_read_as_people_read_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Say `atlasctl why web`, or\n\n    atlasctl logs web -f    # and what comes\n\n"
        "```console\n$ atlasctl status\nweb  up\n```\n"
        "```toml\n[a]\nb = 1\n```\n\n```toml\nno = 'table'\n```\n"
    )
    assert blocks(page) == ["[a]\nb = 1\n"]
    assert commands_on(page) == ["atlasctl logs web -f", "atlasctl status", "atlasctl why web"]


def plugins_on(page: Path) -> list[str]:
    """The Python on a page that is a whole plugin."""
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if "@hookimpl" in block and "ATLASD_API" in block]


async def test_the_plugin_that_is_shown_gives_a_verdict(tmp_path: Path) -> None:
    (source,) = plugins_on(ROOT / "docs" / "how-to" / "write-a-plugin.md")
    module: dict[str, Any] = {"__name__": "backlog"}
    exec(compile(source, "write-a-plugin.md", "exec"), module)
    (check_type,) = module["register_health_checks"]()

    class Context:
        async def in_thread(self, work: Callable[..., object], *args: object) -> object:
            return work(*args)

    for name in ("a", "b"):
        (tmp_path / name).touch()
    settings = check_type.settings(folder=str(tmp_path), limit=1)
    async with check_type.open(settings, Context()) as opened:
        verdict = await opened.run(timedelta(seconds=5))
    assert (verdict.status, verdict.observed_value) == ("warn", 2)


def test_the_tests_of_jobs_that_are_shown_pass(tmp_path: Path) -> None:
    page = ROOT / "docs" / "how-to" / "test-jobs.md"
    (source,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert source.count("\ndef test_") == 3
    (tmp_path / "test_shown.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shown.py"]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
