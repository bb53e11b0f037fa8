"""Who may import whom: every import statement of the code, held against the rooms of the house."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STDLIB = sys.stdlib_module_names
ANY = frozenset({"*"})
NONE: frozenset[str] = frozenset()

LEAVES = (
    *("errors", "states", "events", "clock", "retry", "breaker", "folders", "paths", "privacy"),
    *("spellings", "needles", "redaction", "inotify"),
)
ENGINES = ("config", "secrets", "settings", "jobs", "checks", "alerts", "deployments", "backups")
# What core and the services role exchange: plain values, readers of files, and the client itself.
SERVICES_BORDER = ("services.spec", "services.protocol", "services.client", "services.logfiles")
# An import starts a thread or an event loop nowhere in a role that forks and holds every process.
LOOPS = frozenset({"asyncio", "subprocess", "threading", "multiprocessing", "concurrent"})


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the modules of one room may import, beside their own room."""

    inside: tuple[str, ...] = ()
    """Modules of atlasd, without the leading `atlasd.`; what they contain is included."""
    third_party: frozenset[str] = NONE
    """Top-level names of other distributions; ANY for all but pluggy."""
    without: frozenset[str] = NONE
    """Standard library modules that are refused."""


# A service's specification, and the graph's checks: pure values and functions, which the services
# role and the engine that makes the specifications must not hold two opinions on.
ENGINE = Room(
    inside=(*LEAVES, "contracts", "bus", "store", "logs", "services.spec", "services.order"),
    third_party=ANY,
)

# The longest name that fits a module is its room. A new room is a decision: it gets a row here.
ROOMS: dict[str, Room] = {
    "": Room(third_party=frozenset({"pluggy"})),
    "__main__": Room(inside=("errors", "services.main", "daemon", "cli")),
    **dict.fromkeys(LEAVES, Room(inside=LEAVES)),
    "bus": Room(inside=LEAVES),
    "store": Room(inside=LEAVES),
    "notify": Room(inside=LEAVES),
    "logs": Room(inside=LEAVES),
    "contracts": Room(inside=LEAVES, third_party=frozenset({"pydantic"})),
    "hookspecs": Room(inside=(*LEAVES, "contracts"), third_party=frozenset({"pluggy"})),
    "pluginhost": Room(
        inside=(*LEAVES, "contracts", "hookspecs", "bus", "logs"),
        third_party=frozenset({"pluggy", "pydantic"}),
    ),
    "services": Room(inside=(*LEAVES, "notify", "logs"), without=LOOPS),
    "services.client": Room(inside=(*LEAVES, "logs", "services.spec", "services.protocol")),
    **dict.fromkeys(ENGINES, ENGINE),
    # A circle of dependencies is refused by the same pure function that later orders the start.
    "config": Room(inside=(*ENGINE.inside, "services.order"), third_party=ANY),
    "core": Room(
        inside=(*LEAVES, "contracts", "bus", "store", "logs", "notify", *SERVICES_BORDER),
        third_party=ANY,
    ),
    "control": Room(
        inside=(*LEAVES, "contracts", "bus", "store", "logs", *SERVICES_BORDER), third_party=ANY
    ),
    # atlasctl starts with these two, so they cost what the standard library costs.
    "control.wire": Room(inside=LEAVES),
    "control.client": Room(inside=(*LEAVES, "control.wire")),
    "web": Room(
        inside=(*LEAVES, "contracts", "bus", "logs", "control.client", "control.wire"),
        third_party=ANY,
    ),
    "cli": Room(
        inside=(*LEAVES, "control.client", "control.wire", "config.load", "services.logfiles"),
        third_party=frozenset({"click", "rich"}),
    ),
    "worker": Room(inside=LEAVES),
    # Queue stores are held against the engine's real rules, and an application's jobs are run by
    # the real engine and the worker's own code.
    "testing": Room(
        inside=(
            *(*LEAVES, "contracts", "hookspecs", "pluginhost", "bus", "store", "services.spec"),
            *("jobs", "worker"),
        ),
        third_party=ANY,
    ),
    "daemon": Room(inside=("*",), third_party=ANY),
}
# `hookimpl` and `__version__` stand in the package itself and cost nothing.
OPEN_NAMES = ("atlasd.hookimpl", "atlasd.__version__")
OWN_ROOM_ONLY = frozenset({"control.wire", "control.client", "services.client"})
PLUGINS_MAY = ("atlasd.contracts", "atlasd.errors", "atlasd.events", *OPEN_NAMES)


def runtime_dependencies() -> frozenset[str]:
    """The import names of what an installed atlasd always has beside it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = (line.split(">")[0].strip() for line in project["dependencies"])
    return frozenset(name.replace("-", "_") for name in names)


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import: what is named, where, and whether it runs when the module is loaded."""

    target: str
    line: int
    on_load: bool
    typing_only: bool


def imports_of(source: str, module: str, *, package: bool = False) -> Iterator[Import]:
    """Every import in a source text, wherever it stands, with relative names made absolute."""
    parts = module.split(".")
    home = parts if package else parts[:-1]

    def walk(node: ast.AST, *, on_load: bool, typing_only: bool) -> Iterator[Import]:
        for target in targets(node):
            yield Import(
                target=target,
                line=getattr(node, "lineno", 0),
                on_load=on_load and not typing_only,
                typing_only=typing_only,
            )
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            on_load = False
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from walk(statement, on_load=on_load, typing_only=True)
            for statement in node.orelse:
                yield from walk(statement, on_load=on_load, typing_only=typing_only)
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, on_load=on_load, typing_only=typing_only)

    def targets(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            # importlib.import_module("x") is an import statement in other words.
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            name = node.args[0]
            if (
                called in {"import_module", "__import__"}
                and isinstance(name, ast.Constant)
                and isinstance(name.value, str)
            ):
                yield name.value

    yield from walk(ast.parse(source), on_load=True, typing_only=False)


def within(name: str, *prefixes: str) -> bool:
    """Whether a dotted name is one of the prefixes or lies below one of them."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def room_of(module: str) -> str | None:
    """The room of a module of atlasd (dotted, without the leading `atlasd`), or None."""
    if not module:
        return ""
    fitting = [name for name in ROOMS if name and within(module, name)]
    return max(fitting, key=len, default=None)


def faults_of_core(source: str, module: str, *, package: bool = False) -> list[str]:
    """What a module of `atlasd` imports against the rule; a sentence each."""
    inner = module.removeprefix("atlasd").lstrip(".")
    name = room_of(inner)
    if name is None:
        return [f"{module}: belongs to no room; say in tests/test_architecture.py what it may use"]
    room = ROOMS[name]
    # A module with a row of its own inside a room gets what the row says, not the whole room.
    own = name if name in OWN_ROOM_ONLY else name.split(".")[0]
    faults = []
    for found in imports_of(source, module, package=package):
        top = found.target.split(".")[0]
        where = f"{module}:{found.line}: {found.target}"
        if within(found.target, "atlasd_plugins"):
            faults.append(f"{where}: atlasd never imports its plugins")
        elif top == "atlasd":
            target = found.target.removeprefix("atlasd").lstrip(".")
            if (
                found.target in ("atlasd", *OPEN_NAMES)
                or "*" in room.inside
                or (own and within(target, own))
                or within(target, *room.inside)
            ):
                continue
            faults.append(f"{where}: not open to {name or 'the package itself'}")
        elif top in STDLIB:
            if within(found.target, *room.without):
                faults.append(f"{where}: {name} does without it")
        elif top == "pluggy" and "pluggy" not in room.third_party:
            faults.append(f"{where}: pluggy is pluginhost's alone")
        elif top not in room.third_party and "*" not in room.third_party:
            faults.append(f"{where}: {name or 'the package itself'} does without it")
    return faults


def faults_of_plugin(source: str, module: str, *, package: bool = False) -> list[str]:
    """What a built-in plugin imports against the rule; a sentence each."""
    at_hand = runtime_dependencies()
    own = ".".join(module.split(".")[:2])
    faults = []
    for found in imports_of(source, module, package=package):
        top = found.target.split(".")[0]
        where = f"{module}:{found.line}: {found.target}"
        if top == "atlasd":
            if found.target != "atlasd" and not within(found.target, *PLUGINS_MAY):
                faults.append(f"{where}: not open to plugins")
        elif top == "atlasd_plugins":
            if not within(found.target, own):
                faults.append(f"{where}: a plugin never imports another")
        elif top not in STDLIB and top not in at_hand and found.on_load:
            faults.append(f"{where}: an SDK is imported in `open`, never when the module is loaded")
    return faults


def modules_below(folder: Path) -> list[tuple[Path, str, bool]]:
    """Each source file below a package folder: its path, dotted name, and if it is a package."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        package = parts[-1] == "__init__"
        found.append((path, ".".join(parts[:-1] if package else parts), package))
    return found


def test_every_module_of_atlasd_keeps_to_its_room() -> None:
    modules = modules_below(ROOT / "atlasd")
    assert len(modules) > 10
    faults = [
        fault
        for path, module, package in modules
        for fault in faults_of_core(path.read_text(), module, package=package)
    ]
    assert faults == []


def test_every_plugin_keeps_to_what_plugins_may_use() -> None:
    modules = modules_below(ROOT / "plugins" / "atlasd_plugins")
    assert modules
    faults = [
        fault
        for path, module, package in modules
        for fault in faults_of_plugin(path.read_text(), module, package=package)
    ]
    assert faults == []


def test_every_module_opens_with_a_sentence() -> None:
    modules = modules_below(ROOT / "atlasd") + modules_below(ROOT / "plugins" / "atlasd_plugins")
    docstrings = {name: ast.get_docstring(ast.parse(path.read_text())) for path, name, _ in modules}
    assert [name for name, text in docstrings.items() if not text] == []


def loaded_by(module: str) -> set[str]:
    """The top-level modules in memory after importing one module in a fresh interpreter."""
    program = f"import sys, {module}; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.split(".")[0] for name in answer.stdout.split()}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "atlasd.services.main",
            {"asyncio", "subprocess", "pluggy", "pydantic", "aiohttp", "click", "rich", "http"},
        ),
        ("atlasd.cli.atlasctl", {"asyncio", "pluggy", "pydantic", "aiohttp", "rich"}),
        ("atlasd", {"pluggy", "typing"}),
    ],
)
def test_what_must_be_light_loads_nothing_heavy_even_through_others(
    module: str, heavy: set[str]
) -> None:
    assert loaded_by(module) & heavy == set()


# The rule must be able to fail: each sentence of it, broken on purpose.


@pytest.mark.parametrize(
    ("module", "source", "named"),
    [
        # 1: leaves, contracts, hookspecs
        ("atlasd.errors", "import pydantic", "pydantic"),
        ("atlasd.states", "from atlasd.bus import Bus", "atlasd.bus"),
        ("atlasd.events", "from atlasd import logs", "atlasd.logs"),
        ("atlasd.contracts.checks", "import aiohttp", "aiohttp"),
        ("atlasd.contracts.checks", "from atlasd import bus", "atlasd.bus"),
        ("atlasd.hookspecs", "from atlasd import pluginhost", "atlasd.pluginhost"),
        # 2: engines
        ("atlasd.config.load", "from atlasd.checks import run", "atlasd.checks"),
        ("atlasd.config.load", "from atlasd import pluginhost", "atlasd.pluginhost"),
        ("atlasd.checks.run", "import atlasd.web.health", "atlasd.web"),
        ("atlasd.checks.run", "from atlasd.control.client import Client", "atlasd.control"),
        ("atlasd.checks.run", "from atlasd.cli import atlasctl", "atlasd.cli"),
        ("atlasd.jobs.plan", "def f():\n    import atlasd.daemon", "atlasd.daemon"),
        ("atlasd.checks.run", "import pluggy", "pluggy"),
        # 3: services and worker
        ("atlasd.services.main", "import asyncio", "asyncio"),
        ("atlasd.services.main", "import subprocess", "subprocess"),
        ("atlasd.services.loop", "from threading import Thread", "threading"),
        ("atlasd.services.loop", "from concurrent.futures import Future", "concurrent"),
        ("atlasd.services.main", "import pydantic", "pydantic"),
        ("atlasd.services.main", "from atlasd.contracts import x", "atlasd.contracts"),
        ("atlasd.services.main", "from atlasd.bus import Bus", "atlasd.bus"),
        ("atlasd.services.client", "import aiohttp", "aiohttp"),
        ("atlasd.services.client", "from atlasd.services.loop import Loop", "services.loop"),
        ("atlasd.worker.loop", "import requests", "requests"),
        ("atlasd.worker.loop", "from atlasd import logs", "atlasd.logs"),
        # 4: cli and control
        ("atlasd.cli.status", "import pydantic", "pydantic"),
        ("atlasd.cli.status", "import aiohttp", "aiohttp"),
        ("atlasd.cli.status", "from atlasd.control.server import x", "control.server"),
        ("atlasd.cli.check", "from atlasd.config.plan import x", "config.plan"),
        ("atlasd.control.wire", "import pydantic", "pydantic"),
        ("atlasd.control.wire", "from .models import Status", "control.models"),
        ("atlasd.control.client", "from atlasd.control.server import x", "control.server"),
        # 5: nobody but daemon imports everything
        ("atlasd.web.health", "from atlasd import daemon", "atlasd.daemon"),
        ("atlasd.control.server", "from atlasd.config.load import x", "atlasd.config"),
        ("atlasd.pluginhost", "from atlasd.control.wire import x", "atlasd.control"),
        # 6: the core never imports its plugins, not even composition
        ("atlasd.daemon", "import atlasd_plugins.config_toml", "atlasd_plugins"),
        ("atlasd.daemon", "from atlasd_plugins import checks_tcp", "atlasd_plugins"),
        # a room that nobody has decided on
        ("atlasd.utils", "import os", "atlasd.utils"),
    ],
)
def test_a_breach_is_named(module: str, source: str, named: str) -> None:
    faults = faults_of_core(source, module)
    assert len(faults) == 1
    assert named in faults[0]


@pytest.mark.parametrize(
    "source",
    [
        "def late():\n    import asyncio",
        "class A:\n    def b(self):\n        return __import__('asyncio')",
        "import typing\nif typing.TYPE_CHECKING:\n    import asyncio",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from asyncio import Task",
        "try:\n    import asyncio\nexcept ImportError:\n    asyncio = None",
        "import importlib\nimportlib.import_module('asyncio')",
        "import os, asyncio.events as e",
        "f = lambda: __import__('asyncio')",
    ],
)
def test_a_breach_is_seen_wherever_it_stands(source: str) -> None:
    faults = faults_of_core(source, "atlasd.services.main")
    assert len(faults) == 1
    assert "asyncio" in faults[0]


def test_relative_imports_are_followed() -> None:
    assert faults_of_core("from ..bus import Bus", "atlasd.services.main")
    assert faults_of_core("from .. import bus", "atlasd.services.main")
    assert faults_of_core("from ..bus import Bus", "atlasd.services", package=True)
    assert faults_of_core("from .spec import ServiceSpec", "atlasd.services.main") == []
    assert faults_of_core("from .spec import ServiceSpec", "atlasd.services", package=True) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("atlasd.services.main", "import os\nfrom . import loop\nfrom .. import errors"),
        ("atlasd.services.main", "from atlasd import __version__, logs, notify, states"),
        ("atlasd.services.main", "import atlasd\nprint(atlasd.__version__)"),
        ("atlasd.services.client", "import asyncio\nfrom .spec import ServiceSpec"),
        ("atlasd.config.load", "import pydantic\nfrom atlasd import contracts, events"),
        ("atlasd.cli.logs", "import click\nfrom atlasd.services.logfiles import read"),
        ("atlasd.cli.check", "from atlasd.config.load import load"),
        ("atlasd.daemon", "from atlasd import config, control, pluginhost, services, web"),
        ("atlasd.pluginhost", "import pluggy\nfrom atlasd.contracts.checks import CheckType"),
    ],
)
def test_what_is_allowed_is_left_alone(module: str, source: str) -> None:
    assert faults_of_core(source, module) == []


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("from atlasd.bus import Bus", "atlasd.bus"),
        ("def f():\n    from atlasd import daemon", "atlasd.daemon"),
        ("from atlasd_plugins import checks_tcp", "checks_tcp"),
        ("import boto3", "boto3"),
        ("class A:\n    import boto3", "boto3"),
        ("try:\n    import boto3\nexcept ImportError:\n    pass", "boto3"),
    ],
)
def test_a_plugin_that_reaches_too_far_is_named(source: str, named: str) -> None:
    faults = faults_of_plugin(source, "atlasd_plugins.checks_http")
    assert len(faults) == 1
    assert named in faults[0]


def test_a_plugin_may_import_its_sdk_when_it_is_opened() -> None:
    source = (
        "import pydantic\n"
        "from typing import TYPE_CHECKING\n"
        "from atlasd import hookimpl\n"
        "from atlasd.contracts.checks import CheckType\n"
        "if TYPE_CHECKING:\n    import boto3\n"
        "async def open_backend(settings, context):\n    import boto3\n"
    )
    assert faults_of_plugin(source, "atlasd_plugins.secrets_aws") == []
