"""Plugin hosts over a folder of drop-ins, with a clock that is wound by hand."""

import textwrap
import uuid
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.events import Event
from atlasd.pluginhost import PluginHost, PluginReport

GOOD = """
from contextlib import asynccontextmanager
from atlasd import hookimpl
from atlasd.contracts.checks import CheckResult, CheckType, Health
from atlasd.contracts.settings import Settings

ATLASD_API = 1

class Always:
    async def run(self, limit):
        return CheckResult(status=Health.PASS)

@asynccontextmanager
async def open_check(settings, context):
    yield Always()

@hookimpl
def register_health_checks():
    return [CheckType(name="{name}", summary="always well", settings=Settings, open=open_check)]
"""


class Desk:
    """A folder of drop-ins, and hosts that load it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.drop_ins = root / "plugins.d"
        self.drop_ins.mkdir(mode=0o755)
        self.clock = HandClock()
        self.published: list[Event] = []
        self._monkeypatch = monkeypatch
        self._packages = root / "packages"
        self._packages.mkdir()

    def write(self, name: str, source: str) -> Path:
        """A drop-in; a name without `.py` is a folder."""
        path = self.drop_ins / name
        if path.suffix != ".py":
            path.mkdir(mode=0o755)
            path = path / "__init__.py"
        path.write_text(textwrap.dedent(source))
        path.chmod(0o644)
        return path

    def good(self, name: str = "good") -> Path:
        """A drop-in with which nothing is wrong."""
        return self.write(f"{name}.py", GOOD.format(name=name))

    def entry_point(self, source: str, *, name: str = "pointed", suffix: str = "") -> EntryPoint:
        """An entry point to a module of its own with that source."""
        module = f"plugin_{uuid.uuid4().hex}"
        (self._packages / f"{module}.py").write_text(textwrap.dedent(source))
        self._monkeypatch.syspath_prepend(self._packages)
        return EntryPoint(name=name, value=module + suffix, group="atlasd.plugins")

    def host(self, *entry_points: EntryPoint, load: bool = True) -> PluginHost:
        """A host that has loaded what is there, and nothing that is installed."""
        host = PluginHost(
            drop_ins=self.drop_ins,
            state_dir=self.root / "state",
            publish=self.published.append,
            clock=self.clock,
            reserved_operations=("service.start",),
        )
        if load:
            host.load(entry_points)
        return host

    def report(self, *entry_points: EntryPoint) -> dict[str, PluginReport]:
        """What a host says of each plugin."""
        return {report.name: report for report in self.host(*entry_points).report()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


Write = Callable[[str, str], Path]
