"""What is wanted: the configuration, and over it what the operator has asked for."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from atlasd.services.spec import ServiceSpec
from atlasd.states import Wanted
from atlasd.store import Store

SCHEMA: Sequence[str] = (
    """
    CREATE TABLE intents (
        service TEXT PRIMARY KEY,
        wanted TEXT,
        instances INTEGER,
        configured INTEGER,
        actor TEXT NOT NULL,
        time REAL NOT NULL
    ) STRICT
    """,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What the operator asked of one service, beyond what the configuration says."""

    service: str
    wanted: Wanted | None = None
    """Null: as configured."""
    instances: int | None = None
    """Null: as configured."""
    configured: int | None = None
    """How many instances were configured when it was scaled: another number there ends it."""
    actor: str = ""
    time: float = 0.0
    """Wall time, seconds since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """Configuration and intents, put together."""

    specs: Mapping[str, ServiceSpec]
    wanted: Mapping[str, Wanted]
    ended: tuple[Intent, ...]
    """Scalings that a newer configuration overrides, and intents for services that are gone."""


def resolve(specs: Iterable[ServiceSpec], intents: Mapping[str, Intent]) -> Resolved:
    """What is wanted of each configured service.

    The operator's start, stop or pause holds until the next one. A scaling holds until the
    configuration states another number than it did when the operator scaled.
    """
    resolved: dict[str, ServiceSpec] = {}
    wanted: dict[str, Wanted] = {}
    ended: list[Intent] = []
    for spec in specs:
        intent = intents.get(spec.name)
        chosen = spec
        if intent is not None and intent.instances is not None:
            if intent.configured == spec.instances:
                chosen = replace(spec, instances=intent.instances)
            else:
                ended.append(intent)
        resolved[spec.name] = chosen
        asked = intent.wanted if intent is not None else None
        wanted[spec.name] = asked or (Wanted.UP if spec.enabled else Wanted.DOWN)
    ended += [intent for name, intent in intents.items() if name not in resolved]
    return Resolved(specs=resolved, wanted=wanted, ended=tuple(ended))


class Intents:
    """The operator's intents: in memory for reading, in the store so that they outlive core."""

    def __init__(self, store: Store, known: Mapping[str, Intent]) -> None:
        self._store = store
        self._known = dict(known)

    @classmethod
    async def load(cls, store: Store) -> "Intents":
        """Those that the store holds."""
        return cls(store, await store.run(_read))

    def all(self) -> Mapping[str, Intent]:
        """The intents by service; a copy."""
        return dict(self._known)

    async def ask(self, service: str, wanted: Wanted, *, actor: str, now: float) -> None:
        """Remember that the service is wanted so, durably. Raises as `Store.run` does."""
        before = self._known.get(service, Intent(service=service))
        await self._keep(replace(before, wanted=wanted, actor=actor, time=now))

    async def scale(
        self, service: str, instances: int, *, configured: int, actor: str, now: float
    ) -> None:
        """Remember a number of instances, durably; the configured number ends the override."""
        before = self._known.get(service, Intent(service=service))
        if instances == configured:
            after = replace(before, instances=None, configured=None)
        else:
            after = replace(before, instances=instances, configured=configured)
        await self._keep(replace(after, actor=actor, time=now))

    async def end(self, ended: Iterable[Intent], configured: Iterable[str]) -> None:
        """Forget what `resolve` found to have ended; `configured` are the services that exist."""
        exists = set(configured)
        for intent in ended:
            if intent.service not in exists:
                await self._forget(intent.service)
                continue
            rest = replace(intent, instances=None, configured=None)
            if rest.wanted is None:
                await self._forget(intent.service)
            else:
                await self._keep(rest)

    async def _keep(self, intent: Intent) -> None:
        await self._store.run(lambda connection: _write(connection, intent))
        self._known[intent.service] = intent

    async def _forget(self, service: str) -> None:
        await self._store.run(
            lambda connection: (
                connection.execute("DELETE FROM intents WHERE service = ?", (service,)).rowcount
            )
        )
        self._known.pop(service, None)


def _read(connection: sqlite3.Connection) -> dict[str, Intent]:
    rows = connection.execute(
        "SELECT service, wanted, instances, configured, actor, time FROM intents"
    )
    return {
        service: Intent(
            service=service,
            wanted=Wanted(wanted) if wanted else None,
            instances=instances,
            configured=configured,
            actor=actor,
            time=time,
        )
        for service, wanted, instances, configured, actor, time in rows
    }


def _write(connection: sqlite3.Connection, intent: Intent) -> None:
    connection.execute(
        "INSERT INTO intents (service, wanted, instances, configured, actor, time)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (service) DO UPDATE SET wanted = excluded.wanted,"
        " instances = excluded.instances, configured = excluded.configured,"
        " actor = excluded.actor, time = excluded.time",
        (
            intent.service,
            intent.wanted.value if intent.wanted else None,
            intent.instances,
            intent.configured,
            intent.actor,
            intent.time,
        ),
    )
