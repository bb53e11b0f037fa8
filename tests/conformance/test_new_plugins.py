"""What `atlasctl plugins new` writes is admitted as it stands, works, and passes the suites."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atlasd.bus import Bus
from atlasd.clock import HandClock
from atlasd.contracts.checks import CheckType
from atlasd.contracts.config import ConfigSource
from atlasd.contracts.operations import Operation
from atlasd.contracts.secrets import SecretBackend
from atlasd.events import InstanceCrashed
from atlasd.pluginhost import PluginHost, PluginState
from atlasd.testing.checks import CheckTypeSuite
from atlasd.testing.config_sources import ConfigSourceSuite
from atlasd.testing.descriptors import load_drop_in
from atlasd.testing.secrets import SecretBackendSuite

KINDS = (
    "check",
    "subscriber",
    "operation",
    "collector",
    "component",
    "config_source",
    "secret_backend",
)


def atlasctl(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from atlasd.cli.atlasctl import main; raise SystemExit(main())",
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write(kind: str, name: str, root: Path) -> Path:
    """A drop-in as the command writes it; the folder is made by the command too."""
    folder = root / "etc" / "plugins.d"
    done = atlasctl("plugins", "new", kind, name, "--dir", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    return folder / f"{name}.py"


def loaded(kind: str, tmp_path: Path) -> PluginHost:
    path = write(kind, "mine", tmp_path)
    host = PluginHost(drop_ins=path.parent, state_dir=tmp_path / "state", clock=HandClock())
    host.load(entry_points=())
    return host


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_admitted(kind: str, tmp_path: Path) -> None:
    (report,) = loaded(kind, tmp_path).report()
    assert (report.state, report.reason) == (PluginState.ADMITTED, "")
    (offer,) = report.offers
    assert offer.kind.replace(" ", "_").removesuffix("_type") == kind
    assert offer.name.startswith("mine")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = write("check", "mine", tmp_path)
    path.write_text("# precious\n")
    done = atlasctl("plugins", "new", "check", "mine", "--dir", str(path.parent))
    assert done.returncode == 5
    assert str(path) in done.stderr
    assert path.read_text() == "# precious\n"


def test_an_unknown_kind_is_answered_with_the_nearest(tmp_path: Path) -> None:
    done = atlasctl("plugins", "new", "chek", "mine", "--dir", str(tmp_path))
    assert done.returncode == 3
    assert "'check'" in done.stderr
    assert list(tmp_path.iterdir()) == []


class TestNewCheck(CheckTypeSuite):
    @pytest.fixture
    def check_type(self, tmp_path: Path) -> CheckType:
        return load_drop_in(write("check", "size", tmp_path), CheckType)

    @pytest.fixture
    def passing(self, tmp_path: Path) -> dict[str, Any]:
        (tmp_path / "small").write_text("x")
        return {"path": str(tmp_path / "small")}

    @pytest.fixture
    def failing(self, tmp_path: Path) -> dict[str, Any]:
        (tmp_path / "large").write_text("x" * 100)
        return {"path": str(tmp_path / "large"), "limit": 99}


class TestNewConfigSource(ConfigSourceSuite):
    @pytest.fixture
    def source(self, tmp_path: Path) -> ConfigSource:
        return load_drop_in(write("config_source", "lines", tmp_path), ConfigSource)

    @pytest.fixture
    def document(self) -> str:
        return '# settings\nhost.environment = "production"\nservices.web.command = ["a", "b"]\n'

    @pytest.fixture
    def expected(self) -> dict[str, Any]:
        return {
            "host": {"environment": "production"},
            "services": {"web": {"command": ["a", "b"]}},
        }

    @pytest.fixture
    def broken(self) -> tuple[str, int]:
        return 'host.environment = "production"\nnot a setting\n', 2


@pytest.fixture(scope="module")
def written_backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Once: the command takes a while, and the suite is long."""
    return write("secret_backend", "folder", tmp_path_factory.mktemp("written"))


class TestNewSecretBackend(SecretBackendSuite):
    @pytest.fixture
    def backend(self, written_backend: Path) -> SecretBackend:
        return load_drop_in(written_backend, SecretBackend)

    @pytest.fixture
    def present(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "secrets" / "shop").mkdir(parents=True)
        (tmp_path / "secrets" / "shop" / "db").write_text("given")
        (tmp_path / "secrets" / "tls.key").write_text("a key")
        return {"shop/db": "given", "tls.key": "a key"}

    @pytest.fixture
    def settings(self, present: dict[str, str], tmp_path: Path) -> dict[str, Any]:
        return {"folder": str(tmp_path / "secrets")}

    @pytest.fixture
    def down(self, tmp_path: Path) -> dict[str, Any]:
        (tmp_path / "loop").symlink_to("loop")
        return {"folder": str(tmp_path / "loop")}


async def test_a_new_operation_answers(tmp_path: Path) -> None:
    host = loaded("operation", tmp_path)
    (offer,) = host.offers(Operation)
    answer = await host.perform(offer.descriptor, offer.descriptor.request())
    assert answer.model_dump() == {"greeting": "hello, world"}


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.001)


async def test_a_new_subscriber_hears(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = loaded("subscriber", tmp_path)
    bus = Bus()
    running = asyncio.create_task(host.run("core", bus=bus, settings={}))
    await until(bus.subscriptions)
    bus.publish(InstanceCrashed(time=1.0, service="web", instance=2, detail="exit code 3"))
    await until(lambda: caplog.records)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == ["crash: web/2: exit code 3"]


async def test_a_new_collector_counts(tmp_path: Path) -> None:
    host = loaded("collector", tmp_path)
    settings = {"mine": host.plugin_settings()["mine"].model_validate({"folders": [str(tmp_path)]})}
    running = asyncio.create_task(host.run("core", bus=None, settings=settings))
    found = await host.collect()
    while not found:
        await asyncio.sleep(0)
        found = await host.collect()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (metric,) = found
    assert metric.name == "mine_entries"
    assert metric.samples[0].value == len(list(tmp_path.iterdir()))


async def test_a_new_component_runs(tmp_path: Path) -> None:
    host = loaded("component", tmp_path)
    settings = {"mine": host.plugin_settings()["mine"].model_validate({"every": "1h"})}
    running = asyncio.create_task(host.run("core", bus=None, settings=settings))
    done, _ = await asyncio.wait({running}, timeout=timedelta(seconds=0.05).total_seconds())
    assert done == set()
    assert host.report()[0].state is PluginState.ADMITTED
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
