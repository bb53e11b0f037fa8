"""An engine over a backend in memory, with a clock to wind and a disk that outlives it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from atlasd.clock import HandClock
from atlasd.contracts.secrets import (
    Reference,
    Resolved,
    SecretsPolicy,
    SecretStore,
    SecretValue,
)
from atlasd.contracts.settings import NoSettings, Settings
from atlasd.events import Event
from atlasd.secrets.audit import Entry
from atlasd.secrets.cache import Key
from atlasd.secrets.engine import Engine
from atlasd.secrets.lastknown import LastKnown
from atlasd.testing.context import PlainContext
from atlasd.testing.memory_backend import MemoryBackend

T = TypeVar("T")


class Direct:
    """A backend without a guard."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    async def call(
        self,
        work: Callable[[SecretStore], Awaitable[T]],
        *,
        limit: timedelta,
        expect: type | tuple[type, ...],
    ) -> T:
        answer = await work(self._store)
        assert isinstance(answer, expect)
        return answer


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  what is waited for knows nothing of the test
            await asyncio.sleep(0.001)


class Labelled(Settings):
    """Settings that tell one configuration of a backend from another."""

    label: str = ""


@dataclass(kw_only=True)
class House:
    """What an engine needs, and what came of it."""

    folder: Path
    memory: MemoryBackend = field(default_factory=MemoryBackend)
    with_disk: bool = True
    policy: SecretsPolicy = field(
        default_factory=lambda: SecretsPolicy(
            environment="production",
            backend="memory",
            backends={"memory": ("memory", NoSettings())},
        )
    )
    entries: list[Entry] = field(default_factory=list)
    audit_fault: Exception | None = None
    events: list[Event] = field(default_factory=list)
    changed: list[Key] = field(default_factory=list)
    known: list[tuple[str, SecretValue]] = field(default_factory=list)
    opened: list[tuple[str, BaseModel, str]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)

    @property
    def clock(self) -> HandClock:
        return self.memory.clock

    def engine(self) -> Engine:
        """Another engine, as after a restart."""
        return Engine(
            open_backend=self.open,
            descriptors={"memory": self.memory.descriptor},
            clock=self.clock,
            audit=self.audit,
            last_known=self.disk() if self.with_disk else None,
            publish=self.events.append,
            changed=self.changed.append,
            known=lambda name, value: self.known.append((name, value)),
            chance=lambda: 0.5,
            pause=self.pause,
        )

    def disk(self) -> LastKnown:
        return LastKnown(self.folder / "known", lambda: b"k" * 32)

    def audit(self, entries: Sequence[Entry]) -> None:
        if self.audit_fault is not None:
            raise self.audit_fault
        self.entries.extend(entries)

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.clock.wind(seconds)
        await asyncio.sleep(0)

    @asynccontextmanager
    async def open(
        self, kind: str, settings: BaseModel, name: str, environment: str
    ) -> AsyncIterator[Direct]:
        self.opened.append((name, settings, environment))
        context = PlainContext(self.folder / "state", environment=environment, clock=self.clock)
        async with self.memory.descriptor.open(settings, context) as store:
            yield Direct(store)
        context.close()
        self.closed.append(name)

    async def get(self, engine: Engine, address: str = "db", **parts: str) -> str:
        """The text of a secret. Raises `AtlasError`."""
        found = await self.ask(engine, address, **parts)
        return found.value.text()

    async def ask(self, engine: Engine, address: str = "db", **parts: str) -> Resolved:
        reference = Reference(name=address, **parts)
        return await engine.fetch(self.policy, reference, consumer="test", actor="core")
