"""Secrets of one role: the engine in a loop of its own, at the service of threads and loops."""

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from atlasd.clock import Clock, RealClock
from atlasd.config.load import Config
from atlasd.contracts.secrets import (
    Reference,
    Resolved,
    Sealed,
    Sealer,
    SecretBackend,
    SecretsPolicy,
    SecretStore,
    SecretValue,
)
from atlasd.errors import AtlasError, nearest
from atlasd.events import Event
from atlasd.paths import Paths
from atlasd.pluginhost.host import PluginHost

if TYPE_CHECKING:
    from atlasd.secrets.audit import Audit
    from atlasd.secrets.engine import Engine

T = TypeVar("T")

RESOLVE_LIMIT = 60.0
"""Seconds that all secrets of a configuration together may take."""
CLOSE_LIMIT = 5.0

_log = logging.getLogger("atlasd.daemon")


class Vault:
    """The engine of one process, and the thread that it runs in.

    The thread begins when the first secret is wanted: before the role's own loop runs, and in
    programs that have none. A backend that holds it up holds up nothing else of the role.
    """

    def __init__(
        self,
        host: PluginHost,
        paths: Paths,
        role: str,
        *,
        publish: Callable[[Event], object] = lambda _event: None,
        keeps: bool = True,
        clock: Clock | None = None,
    ) -> None:
        """`keeps`: whether it writes the audit log and last known values; a mere check doesn't."""
        self.role = role
        self.changed: Callable[[str], object] = lambda _name: None
        """Hears, in any thread, of a secret that is in use and has another value now."""
        self.known: Callable[[str, bytes], object] = lambda _name, _value: None
        """Hears, in any thread, the value of each secret that was read: no log may show it."""
        self._host = host
        self._paths = paths
        self._publish = publish
        self._keeps = keeps
        self._clock: Clock = clock or RealClock()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._fault: Exception | None = None
        self._allowed: Mapping[str, Mapping[str, Reference]] = {}
        self._config: Config | None = None
        host.setting.secret = self._for_plugin

    # --- for the configuration

    def resolve(
        self, policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
    ) -> Mapping[Reference | Sealed, Resolved | Exception]:
        """See `atlasd.contracts.secrets.Resolve`; for any thread but the engine's own."""
        try:
            future = self._submit(
                lambda engine: engine.resolve(
                    policy, wanted, consumer="configuration", actor=self.role
                )
            )
        except AtlasError as error:
            return dict.fromkeys(wanted, error)
        try:
            return future.result(RESOLVE_LIMIT)
        except concurrent.futures.TimeoutError:
            future.cancel()
            late = AtlasError(
                "secret.unavailable", f"the secrets were not there within {RESOLVE_LIMIT:g} s"
            )
            return dict.fromkeys(wanted, late)
        except Exception as error:  # noqa: BLE001  it becomes a problem of each setting
            _log.exception("secrets cannot be resolved")
            return dict.fromkeys(wanted, error)

    def follow(self, config: Config) -> None:
        """From now on keep the secrets of this configuration fresh, and say when one changes."""
        self._config = config
        self._allowed = _allowed(config, self._host)
        references = references_in(config)
        if references or self._engine is not None:
            self._submit(lambda engine: _watch(engine, config.secrets, references))

    async def _for_plugin(self, plugin: str, name: str) -> SecretValue:
        """What `context.secret` gives: only what the plugin's own settings refer to."""
        config = self._config
        allowed = self._allowed.get(plugin, {})
        reference = allowed.get(name)
        if config is None or reference is None:
            raise AtlasError(
                "plugin.secret",
                f"plugin {plugin} asks for the secret {name!r}, which no setting of its refers to",
                hint=nearest(name, tuple(allowed)) or "name it in the plugin's settings",
            )
        found = await self.run(
            lambda engine: engine.fetch(
                config.secrets, reference, consumer=f"plugin {plugin}", actor=self.role
            )
        )
        return found.value

    # --- for other loops

    async def run(self, work: Callable[["Engine"], Awaitable[T]]) -> T:
        """What `work` gives in the engine's loop."""
        return await asyncio.wrap_future(self._submit(work))

    async def stream(self, work: Callable[["Engine"], AsyncIterator[T]]) -> AsyncIterator[T]:
        """What `work` yields in the engine's loop; it goes on to its end when nobody listens."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[T | None, BaseException | None, bool]] = asyncio.Queue()

        async def pump(engine: "Engine") -> None:
            fault: BaseException | None = None
            try:
                async for item in work(engine):
                    _tell(loop, queue, (item, None, False))
            except Exception as error:  # noqa: BLE001  it belongs to whoever listens
                fault = error
            _tell(loop, queue, (None, fault, True))

        self._submit(pump)
        while True:
            item, fault, over = await queue.get()
            if fault is not None:
                raise fault
            if over:
                return
            yield cast("T", item)

    async def seal(self, value: SecretValue, *, binding: str, policy: SecretsPolicy) -> str:
        """`enc:v1:…` for a setting of the environment that the policy is for."""
        return await self._sealing(policy, lambda sealer: sealer.seal(value, binding=binding), str)

    async def unseal(self, text: str, *, binding: str, policy: SecretsPolicy) -> SecretValue:
        """What such a text stands for."""
        return await self._sealing(
            policy, lambda sealer: sealer.unseal(text, binding=binding), SecretValue
        )

    async def _sealing(
        self, policy: SecretsPolicy, work: Callable[[Sealer], Awaitable[T]], expect: type[T]
    ) -> T:

        def as_sealer(store: SecretStore) -> Awaitable[T]:
            assert isinstance(store, Sealer)
            return work(store)

        async def call(engine: "Engine") -> T:
            name = engine.sealer_of(policy)
            return await engine.backends.call(policy, name, as_sealer, expect=expect)

        return await self.run(call)

    @property
    def begun(self) -> bool:
        """Whether any secret was ever wanted."""
        return self._engine is not None

    @property
    def engine(self) -> "Engine | None":
        """The engine, for numbers only: everything else goes through its loop."""
        return self._engine

    def close(self) -> None:
        """End the engine and its thread."""
        with self._lock:
            loop, self._loop = self._loop, None
            engine, self._engine = self._engine, None
        if loop is None or engine is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(engine.close(), loop).result(CLOSE_LIMIT)
        except Exception as error:  # noqa: BLE001  the role ends whatever a backend does
            _log.warning("the secret backends did not close: %r", error)
        loop.call_soon_threadsafe(loop.stop)

    # --- the thread

    def _submit(self, work: Callable[["Engine"], Awaitable[T]]) -> "concurrent.futures.Future[T]":
        loop, engine = self._begun()

        async def call() -> T:
            return await work(engine)

        return asyncio.run_coroutine_threadsafe(call(), loop)

    def _begun(self) -> "tuple[asyncio.AbstractEventLoop, Engine]":
        with self._lock:
            if self._loop is None or self._engine is None:
                ready = threading.Event()
                thread = threading.Thread(
                    target=self._live, args=(ready,), name="secrets", daemon=True
                )
                thread.start()
                ready.wait()
            if self._fault is not None:
                fault, self._fault = self._fault, None
                raise fault
            assert self._loop is not None
            assert self._engine is not None
            return self._loop, self._engine

    def _live(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)

        async def begin() -> None:
            self._engine = self._make()

        try:
            loop.run_until_complete(begin())
        except Exception as error:  # noqa: BLE001  it belongs to whoever waits for the thread
            self._fault = _named(error)
            loop.close()
            ready.set()
            return
        self._loop = loop
        keeping = loop.create_task(self._engine.run(), name="secrets kept fresh")  # type: ignore[union-attr]
        ready.set()
        try:
            loop.run_forever()
        finally:
            keeping.cancel()
            rest = asyncio.all_tasks(loop)
            for task in rest:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            loop.close()

    def _make(self) -> "Engine":
        if self._keeps:
            Path(self._paths.state, "secrets").mkdir(mode=0o700, parents=True, exist_ok=True)
        # Here, so that a role whose configuration has no secrets pays nothing for them.
        from atlasd.secrets.engine import Engine
        from atlasd.secrets.lastknown import LastKnown, machine_id

        return Engine(
            open_backend=self._host.secret_backend,
            descriptors={o.descriptor.name: o.descriptor for o in self._host.offers(SecretBackend)},
            clock=self._clock,
            audit=self.audit().append if self._keeps else None,
            last_known=LastKnown(
                Path(self._paths.state, "secrets", "last-known"),
                self._key("last-known"),
                machine=machine_id(),
            )
            if self._keeps
            else None,
            publish=self._publish,
            changed=lambda key: self.changed(key.name),
            known=lambda name, value: self.known(name, value.reveal()),
        )

    def audit(self) -> "Audit":
        """The audit log of this host."""
        from atlasd.secrets.audit import Audit

        return Audit(
            Path(self._paths.state, "secrets", "audit.jsonl"),
            Path(self._paths.state, "keys", "audit.anchor"),
            self._key("audit"),
            self._clock,
        )

    def _key(self, name: str) -> Callable[[], bytes]:
        from atlasd.secrets import keyfile

        return lambda: keyfile.key(
            Path(self._paths.state, "keys", name),
            credential=f"atlasd.{name}",
            credentials=os.environ.get("CREDENTIALS_DIRECTORY"),
        )


def _named(error: Exception) -> Exception:
    if not isinstance(error, OSError):
        return error
    return AtlasError(
        "secret.unavailable",
        f"the folder of secrets cannot be used: {error.strerror}: {error.filename}",
        hint="the daemon's user must be able to write to its state folder",
    )


def references_in(config: Config) -> tuple[Reference, ...]:
    """The secrets of which anything in the configuration is made, each once."""
    found: dict[Reference, None] = {}
    for referenced in config.references.values():
        for source in referenced.sources:
            if isinstance(source.reference, Reference):
                found[source.reference] = None
    return tuple(found)


async def _watch(engine: "Engine", policy: SecretsPolicy, references: Sequence[Reference]) -> None:
    engine.watch(policy, references)


def _allowed(config: Config, host: PluginHost) -> dict[str, dict[str, Reference]]:
    """For each plugin the secrets that its settings refer to, by what it may call them."""
    from atlasd.contracts.checks import CheckType

    owners = host.table_owners()
    checks = {o.descriptor.name: o.plugin for o in host.offers(CheckType)}
    types = {check.name: check.type.name for check in config.checks}
    allowed: dict[str, dict[str, Reference]] = {}
    for path, referenced in config.references.items():
        if path[0] == "plugins":
            plugin = owners.get(str(path[1]))
        elif path[0] == "checks":
            plugin = checks.get(types.get(str(path[1]), ""))
        else:
            continue
        for source in referenced.sources if plugin is not None else ():
            if isinstance(source.reference, Reference):
                names = allowed.setdefault(str(plugin), {})
                names[source.reference.name] = source.reference
                names[str(source.reference)] = source.reference
    return allowed


def _tell(
    loop: asyncio.AbstractEventLoop,
    queue: "asyncio.Queue[tuple[T | None, BaseException | None, bool]]",
    item: tuple[T | None, BaseException | None, bool],
) -> None:
    try:
        loop.call_soon_threadsafe(queue.put_nowait, item)
    except RuntimeError:
        pass  # the loop that listened has ended
