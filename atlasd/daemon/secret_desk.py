"""Operations on secrets, put together: what the engine does, for the control socket."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from atlasd.clock import RealClock
from atlasd.config import envfile, references
from atlasd.config.load import Config
from atlasd.contracts.secrets import Reference, Rotator
from atlasd.control.rights import CALLER
from atlasd.daemon.secrets import Vault
from atlasd.errors import AtlasError
from atlasd.events import Event
from atlasd.pluginhost.host import PluginHost
from atlasd.retry import RetryPolicy, delay
from atlasd.secrets.desk import Asker, Use
from atlasd.secrets.impact import Consumer
from atlasd.secrets.operations import SecretOperations
from atlasd.secrets.rotation import RotationEngine
from atlasd.secrets.rotations import StoredRotations
from atlasd.secrets.steps import Commands, Plan, Plugin
from atlasd.store import Store

if TYPE_CHECKING:
    from atlasd.secrets.engine import Engine

Body = dict[str, Any]
Method = Callable[..., Awaitable[Any]]

GATHER = 0.3
"""Seconds in which several changes of secrets become one reload."""
AGAIN = RetryPolicy(first=timedelta(seconds=30), longest=timedelta(minutes=15))
"""Between attempts of a reload for a changed secret."""

STREAMS = {"secret.rotate": "rotate", "secret.rotate-keys": "rotate_keys"}
ANSWERS = {
    "secret.list": "list",
    "secret.check": "check",
    "secret.versions": "versions",
    "secret.impact": "impact",
    "secret.reveal": "reveal",
    "secret.set": "set",
    "secret.rollback": "rollback",
    "secret.delete": "delete",
    "secret.recover": "recover",
    "secret.refresh": "refresh",
    "secret.import": "import_",
    "secret.export": "export",
    "secret.keys": "keys",
    "secret.keygen": "keygen",
    "secret.audit": "audit",
    "secret.audit-verify": "audit_verify",
}
"""Operations by name, and the methods of `SecretOperations` that perform them."""

_log = logging.getLogger("atlasd.daemon")


class SecretDesk:
    """All that is asked about secrets, of one process."""

    def __init__(
        self,
        vault: Vault,
        host: PluginHost,
        config: Callable[[], Config],
        *,
        store: Store | None = None,
        publish: Callable[[Event], object] = lambda _event: None,
    ) -> None:
        """Without a `store` there are no rotations: nothing would go on with them."""
        self._vault = vault
        self._host = host
        self._config = config
        self._store = store
        self._publish = publish
        self._operations: SecretOperations | None = None
        self.rotations: RotationEngine | None = None
        self._going: asyncio.Task[None] | None = None
        self._changes: asyncio.Event = asyncio.Event()

    def methods(self) -> Mapping[str, Method]:
        """Each operation, by name, and what performs it."""
        return {
            **{name: partial(self._answer, method) for name, method in ANSWERS.items()},
            **{name: partial(self._stream, method) for name, method in STREAMS.items()},
        }

    async def _answer(self, method: str, *, actor: str, **fields: object) -> Body:
        asker = _asker(actor)

        async def work(engine: "Engine") -> Body:
            found: Body = await getattr(await self._begun(engine), method)(asker, **fields)
            return found

        return await self._vault.run(work)

    async def _stream(self, method: str, *, actor: str, **fields: object) -> AsyncIterator[Body]:
        asker = _asker(actor)

        async def work(engine: "Engine") -> AsyncIterator[Body]:
            async for item in getattr(await self._begun(engine), method)(asker, **fields):
                yield item

        return self._vault.stream(work)

    async def _begun(self, engine: "Engine") -> SecretOperations:
        """The operations; made in the engine's loop, to which they belong."""
        if self._operations is None:
            if self._store is not None:
                self.rotations = RotationEngine(
                    engine,
                    StoredRotations(self._store),
                    open_steps=self._steps,
                    clock=RealClock(),
                    publish=self._publish,
                    promoted=lambda _backend, name: self._tell(name),
                )
                await self._configure()
            self._operations = SecretOperations(
                engine,
                self._vault.audit(),
                lambda: use_of(self._config()),
                address=references.address,
                parse_env=envfile.parse,
                in_thread=asyncio.to_thread,
                rotations=self.rotations,
                changed=self._tell,
            )
        return self._operations

    def _tell(self, name: str) -> None:
        self._vault.changed(name)

    # --- rotations, and what follows from a change

    async def follow(self, config: Config) -> None:
        """Rotate what this configuration says, from now on."""
        if self._store is None:
            return
        wanted = config.settings.secrets.rotate or self.rotations is not None
        if not wanted and not await StoredRotations(self._store).load():
            return  # nor has a daemon before left one to go on with

        async def work(engine: "Engine") -> None:
            await self._begun(engine)
            await self._configure()
            if self._going is None and self.rotations is not None:
                self._going = asyncio.create_task(self.rotations.run(), name="secret rotations")

        await self._vault.run(work)

    async def _configure(self) -> None:
        if self.rotations is not None:
            config = self._config()
            await self.rotations.configure(config.secrets, plans_of(config))

    @asynccontextmanager
    async def _steps(self, name: str, plan: Plan) -> AsyncIterator[Rotator]:
        config = self._config()
        if plan.rotator is None:
            yield Commands(plan=plan, environment=config.environment)
            return
        async with self._host.secret_rotator(
            plan.rotator, config.plugins, name, config.environment
        ) as running:
            yield Plugin(running=running, timeout=plan.timeout)

    def numbers(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """Samples of `atlasd.core.metrics.SECRET_NUMBERS`; none before a secret was wanted."""
        engine = self._vault.engine
        if engine is None:
            return
        numbers = engine.numbers
        for (backend, outcome), count in dict(numbers.fetches).items():
            labels = {"backend": backend, "outcome": outcome}
            yield "atlasd_secret_fetches_total", labels, float(count)
        for (backend, state), count in dict(numbers.served).items():
            labels = {"backend": backend, "state": state}
            yield "atlasd_secret_served_total", labels, float(count)
        yield "atlasd_secret_audit_failures_total", {}, float(numbers.audit_failures)
        for one in engine.standing(self._config().secrets, engine.watched):
            backend, name, selector = one.key
            labels = {"backend": backend, "secret": name, "selector": selector}
            if one.age is not None:
                yield "atlasd_secret_age_seconds", labels, one.age
            yield "atlasd_secret_stale", labels, float(bool(one.error))
        outcomes = self.rotations.outcomes if self.rotations is not None else {}
        for outcome, count in outcomes.items():
            yield "atlasd_secret_rotations_total", {"outcome": outcome}, float(count)

    def faults(self) -> tuple[str, ...]:
        """A sentence for each secret in use that cannot be fetched, or not rotated."""
        engine = self._vault.engine
        if engine is None:
            return ()
        found = [
            f"secret {one.key.name} of {one.key.backend}: {one.error}"
            + ("; a value from before is used" if one.age is not None else "")
            for one in engine.standing(self._config().secrets, engine.watched)
            if one.error
        ]
        if self.rotations is not None:
            found += [
                f"the rotation of {row.name} failed: {row.error}" for row in self.rotations.failing
            ]
        return tuple(found)

    async def keep(self, reload: Callable[[], Awaitable[object]]) -> None:
        """Whenever a secret that is in use has changed, have the configuration read anew."""
        loop = asyncio.get_running_loop()

        def changed(_name: str) -> None:
            try:
                loop.call_soon_threadsafe(self._changes.set)
            except RuntimeError:
                pass  # the role has ended before the thread did

        self._vault.changed = changed
        failures = 0
        while True:
            await self._changes.wait()
            await asyncio.sleep(GATHER)
            self._changes.clear()
            try:
                await reload()
                failures = 0
            except AtlasError as error:
                failures += 1
                wait = delay(AGAIN, failures, 0.5).total_seconds()
                _log.error(
                    "a secret has changed, and not yet where it is used: %s; next try in %.0f s",
                    error.message,
                    wait,
                )
                loop.call_later(wait, self._changes.set)

    async def begin(self) -> None:
        """Go on with the rotations that an earlier daemon has left; what is wrong is logged."""
        try:
            await self.follow(self._config())
        except AtlasError as error:
            _log.error("rotations of secrets do not go on: %s (%s)", error.message, error.hint)


def _asker(actor: str) -> Asker:
    caller = CALLER.get()
    return Asker(actor=actor, pid=caller.pid if caller is not None else None)


def use_of(config: Config) -> Use:
    """What a configuration has to do with secrets."""
    uses = {}
    for path, referenced in config.references.items():
        found = [s.reference for s in referenced.sources if isinstance(s.reference, Reference)]
        if found:
            uses[path] = found
    return Use(
        policy=config.secrets,
        uses=uses,
        consumers=[
            Consumer(
                name=name,
                settings=service.settings,
                on_change=service.on_change.action,
                running=service.instances,
            )
            for name, service in sorted(config.settings.services.items())
        ],
        rotated=tuple(plans_of(config)),
    )


def plans_of(config: Config) -> dict[tuple[str, str], Plan]:
    """How secrets are rotated, by backend and name."""
    plans = {}
    for name, rotation in config.settings.secrets.rotate.items():
        found = references.address(name, config.secrets.backends)
        plans[found.backend or config.secrets.backend, found.name] = Plan(
            rotator=rotation.rotator,
            create=rotation.create,
            length=rotation.length,
            set=rotation.set,
            test=rotation.test,
            retire=rotation.retire,
            overlap=rotation.overlap,
            every=rotation.every,
            timeout=rotation.timeout,
        )
    return plans
