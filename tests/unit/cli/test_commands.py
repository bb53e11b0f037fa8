import ast
import subprocess
import sys
from pathlib import Path

import click
import pytest

from atlasd.cli.commands import API_ONLY, COMMANDS, atlasctl
from atlasd.cli.lazy import Entry, LazyGroup
from atlasd.cli.templates import TEMPLATES, drop_in
from atlasd.control.wire import OPERATIONS

ROOT = Path(__file__).parents[3]
each = pytest.mark.parametrize("entry", COMMANDS, ids=lambda e: e.name)


def strings_in(module: str) -> set[str]:
    tree = ast.parse((ROOT / "atlasd" / "cli" / f"{module}.py").read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_operation_has_a_command_or_a_reason_to_have_none() -> None:
    served = {operation for entry in COMMANDS for operation in entry.operations}
    assert not served & API_ONLY.keys()
    assert served | API_ONLY.keys() == {operation.name for operation in OPERATIONS}
    assert all(API_ONLY.values())


@each
def test_a_command_really_asks_for_what_its_entry_says(entry: Entry) -> None:
    said = strings_in(entry.module)
    if entry.name == "status":
        said |= strings_in("overview")
    if entry.name == "job":
        said |= strings_in("pushing")
    assert set(entry.operations) <= said


@each
def test_a_command_loads_explains_itself_and_answers_in_json(entry: Entry) -> None:
    assert isinstance(atlasctl, LazyGroup)
    command = atlasctl.get_command(click.Context(atlasctl), entry.name)
    assert command is not None
    assert command.help
    if entry.name != "completion":
        assert {"as_json", "root", "socket"} <= {parameter.name for parameter in command.params}


def modules_after(*arguments: str) -> set[str]:
    program = (
        "import sys; sys.argv = ['atlasctl', *sys.argv[1:]]\n"
        "from atlasd.cli.atlasctl import main\n"
        "code = main()\n"
        "print('MODULES', *sys.modules)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"ATLASD_ROOT": "/nowhere", "PATH": "/usr/bin:/bin"},
    )
    line = next(line for line in answer.stdout.splitlines() if line.startswith("MODULES "))
    return set(line.split()[1:])


HEAVY = {
    "pydantic",
    "asyncio",
    "rich",
    "aiohttp",
    "pluggy",
    "http.client",
    "ssl",
    "email",
    "subprocess",
    "pathlib",
    "tempfile",
    "logging",
}


@pytest.mark.parametrize(
    "arguments", [("--help",), ("status", "web"), ("restart", "web"), ("logs",)]
)
def test_starting_costs_only_what_is_needed(arguments: tuple[str, ...]) -> None:
    loaded = modules_after(*arguments)
    assert "atlasd.cli.atlasctl" in loaded
    assert loaded & HEAVY == set()
    commands = {f"atlasd.cli.{entry.module}" for entry in COMMANDS}
    wanted = next((f"atlasd.cli.{e.module}" for e in COMMANDS if e.name == arguments[0]), None)
    assert loaded & commands == ({wanted} if wanted else set())


@pytest.mark.parametrize(
    "arguments", [("status",), ("--json", "status"), ("status", "--root", "/nowhere", "--json")]
)
def test_a_plain_status_does_without_click_too(arguments: tuple[str, ...]) -> None:
    loaded = modules_after(*arguments)
    assert "atlasd.cli.overview" in loaded
    assert loaded & (HEAVY | {"click", "dataclasses", "inspect"}) == set()


@pytest.mark.parametrize(
    "arguments", [("status", "--jsn"), ("status", "status"), ("status", "--root"), ("status", "-h")]
)
def test_whatever_else_is_said_of_status_goes_to_click(arguments: tuple[str, ...]) -> None:
    assert "click" in modules_after(*arguments)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_new_plugin_is_python_that_says_its_api(kind: str) -> None:
    tree = ast.parse(drop_in(kind, "my_thing"))
    assert "ATLASD_API = 1" in [ast.unparse(node) for node in tree.body]
    assert ast.get_docstring(tree)
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert all("{" not in name for name in classes)
