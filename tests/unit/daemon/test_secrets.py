"""The engine of a role in its thread: for threads, for loops and for plugins, until its end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.config.load import Config, load
from atlasd.contracts.checks import CheckType
from atlasd.contracts.secrets import Reference, Resolved, SecretBackend, SecretsPolicy, SecretValue
from atlasd.contracts.settings import NoSettings
from atlasd.daemon.ground import offers, sources
from atlasd.daemon.secrets import Vault, references_in
from atlasd.errors import AtlasError
from atlasd.paths import Paths, find
from atlasd.pluginhost.host import PluginHost
from atlasd.pluginhost.roll import Offer
from atlasd.secrets.engine import Engine
from atlasd.testing.memory_backend import MemoryBackend

POLICY = SecretsPolicy(
    environment="production", backend="memory", backends={"memory": ("memory", NoSettings())}
)
DB = Reference(name="db")


class Host(PluginHost):
    """A plugin host that has the backend in memory beside what is installed."""

    def __init__(self, memory: MemoryBackend, paths: Paths) -> None:
        super().__init__(drop_ins=None, state_dir=Path(paths.state, "plugins"))
        self._memory = memory

    def offers(self, kind: Any) -> tuple[Offer[Any], ...]:
        found: tuple[Offer[Any], ...] = super().offers(kind)
        if kind is SecretBackend:
            return (*found, Offer(plugin="memory", descriptor=self._memory.descriptor))
        return found

    def find(self, kind: Any, name: str, *, wanted_by: str = "") -> Offer[Any]:
        if name == "memory":
            return Offer(plugin="memory", descriptor=self._memory.descriptor)
        return super().find(kind, name, wanted_by=wanted_by)


@pytest.fixture
def memory() -> MemoryBackend:
    """A backend with one secret."""
    memory = MemoryBackend()
    memory.plant("db", "first")
    return memory


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An empty root."""
    paths = find(root=str(tmp_path), environ={})
    paths.prepare()
    Path(paths.etc).mkdir(exist_ok=True)
    return paths


@pytest.fixture
def host(memory: MemoryBackend, paths: Paths) -> Iterator[Host]:
    host = Host(memory, paths)
    host.load()
    yield host
    host.close()


@pytest.fixture
def vault(host: Host, paths: Paths) -> Iterator[Vault]:
    vault = Vault(host, paths, "core")
    yield vault
    vault.close()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "secrets"]


def test_without_a_secret_there_is_no_thread(vault: Vault) -> None:
    assert vault.engine is None
    vault.close()
    assert vault.engine is None


def test_a_program_without_a_loop_gets_its_secrets(vault: Vault, memory: MemoryBackend) -> None:
    gone = Reference(name="gone")
    answers = vault.resolve(POLICY, [DB, gone])
    found, missing = answers[DB], answers[gone]
    assert isinstance(found, Resolved)
    assert found.value == SecretValue("first")
    assert isinstance(missing, AtlasError)
    assert missing.code == "secret.not_found"
    vault.resolve(POLICY, [DB])
    assert memory.calls["get"] == 2


async def test_a_loop_gets_what_it_asks_for(vault: Vault) -> None:
    async def work(engine: Engine) -> str:
        assert threading.current_thread().name == "secrets"
        found = await engine.fetch(POLICY, DB, consumer="test", actor="core")
        return found.value.text()

    assert await asyncio.gather(vault.run(work), vault.run(work)) == ["first", "first"]


async def test_what_is_streamed_comes_as_it_is_made_and_goes_on_alone(vault: Vault) -> None:
    ended = threading.Event()

    async def work(engine: Engine) -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0)
            yield number
        ended.set()

    assert [number async for number in vault.stream(work)] == [0, 1, 2, 3, 4]
    ended.clear()
    stream = vault.stream(work)
    assert await anext(stream) == 0
    await stream.aclose()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(ended.wait, 20)


async def test_what_a_stream_raises_reaches_whoever_listens(vault: Vault) -> None:
    async def work(engine: Engine) -> AsyncIterator[int]:
        yield 1
        raise AtlasError("secret.denied", "no")

    stream = vault.stream(work)
    assert await anext(stream) == 1
    with pytest.raises(AtlasError, match="no"):
        await anext(stream)


def test_a_check_leaves_no_trace(host: Host, paths: Paths) -> None:
    vault = Vault(host, paths, "check", keeps=False)
    assert isinstance(vault.resolve(POLICY, [DB])[DB], Resolved)
    vault.close()
    assert not Path(paths.state, "secrets").exists()
    assert not Path(paths.state, "keys").exists()


def test_what_is_kept_is_open_to_the_daemon_alone(vault: Vault, paths: Paths) -> None:
    vault.resolve(POLICY, [DB])
    for folder in ("secrets", "keys", "secrets/last-known"):
        assert Path(paths.state, folder).stat().st_mode & 0o777 == 0o700
    files = [path for path in Path(paths.state).rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
    assert b"first" not in b"".join(path.read_bytes() for path in files)


def test_a_folder_that_cannot_be_made_is_named(vault: Vault, paths: Paths) -> None:
    Path(paths.state, "secrets").write_text("a file in its place")
    answer = vault.resolve(POLICY, [DB])[DB]
    assert isinstance(answer, AtlasError)
    assert answer.code == "secret.unavailable"
    assert str(Path(paths.state, "secrets")) in answer.message
    Path(paths.state, "secrets").unlink()
    assert isinstance(vault.resolve(POLICY, [DB])[DB], Resolved)


def test_after_its_end_the_thread_is_gone(vault: Vault) -> None:
    vault.resolve(POLICY, [DB])
    assert threads() == ["secrets"]
    vault.close()
    for thread in [t for t in threading.enumerate() if t.name == "secrets"]:
        thread.join(20)
    assert threads() == []


def configured(host: Host, paths: Paths, vault: Vault, text: str) -> Config:
    Path(paths.config_file).write_text(text)
    config = load(paths, sources(host), environ={}, offers=offers(host), resolve=vault.resolve)
    host.setting.environment = config.environment
    vault.follow(config)
    return config


TEXT = """
[secrets]
backend = "memory"
[checks.web]
type = "http"
url = "${secret:url}"
"""


async def test_a_plugin_gets_what_its_settings_refer_to(
    host: Host, paths: Paths, vault: Vault, memory: MemoryBackend
) -> None:
    memory.plant("url", "http://127.0.0.1/")
    config = await asyncio.to_thread(configured, host, paths, vault, TEXT)
    assert references_in(config) == (Reference(name="url"),)
    http = host.find(CheckType, "http").plugin
    context = host.context(http)
    assert await context.secret("url") == "http://127.0.0.1/"
    assert await context.secret("secret://url") == "http://127.0.0.1/"
    for plugin, name in ((http, "db"), ("another", "url")):
        with pytest.raises(AtlasError) as caught:
            await host.context(plugin).secret(name)
        assert caught.value.code == "plugin.secret"


def test_a_change_of_what_is_in_use_is_told(
    host: Host, paths: Paths, vault: Vault, memory: MemoryBackend
) -> None:
    memory.plant("url", "http://127.0.0.1/")
    config = configured(host, paths, vault, TEXT)
    told: list[str] = []
    heard = threading.Event()

    def changed(name: str) -> None:
        told.append(name)
        heard.set()

    vault.changed = changed
    memory.plant("url", "http://127.0.0.1/new")

    async def refresh(engine: Engine) -> None:
        await engine.refresh(config.secrets, Reference(name="url"))

    asyncio.run(vault.run(refresh))
    assert heard.wait(20)
    assert told == ["url"]
