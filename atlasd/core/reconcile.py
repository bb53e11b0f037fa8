"""Reconcile: an idempotent pass that has services do what is wanted, and only the difference."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from atlasd.core.health import CheckState
from atlasd.core.wanted import Intents, Resolved, resolve
from atlasd.errors import AtlasError
from atlasd.services.protocol import ActionBody
from atlasd.services.spec import HostPolicy, ServiceSpec, to_wire

TICK = 10.0
"""Seconds between two passes in which nothing was asked: then one looks that nothing is left."""
RETRY = 5.0
"""Seconds before a pass that failed is tried again."""
APPLY_TIMEOUT = 60.0

LIVE_ACTIONS = frozenset({"update", "deliver", "none"})
"""What a reload may do by itself: what touches no process, or only as its service's `on_change`
has allowed beforehand."""


class Services(Protocol):
    """What is needed of `atlasd.services.client.ServicesClient`."""

    @property
    def connected(self) -> bool: ...  # noqa: D102

    async def call(  # noqa: D102
        self, op: str, *, timeout: float = 10.0, **fields: object
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A configuration, as far as core acts on it."""

    specs: Mapping[str, ServiceSpec]
    host: HostPolicy = field(default_factory=HostPolicy)
    checks: tuple[CheckState, ...] = ()
    """Configured checks, each as it is before its first verdict."""
    scales: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Least and most instances of services whose backlog decides how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reloaded:
    """What a reload did and left."""

    applied: tuple[ActionBody, ...]
    pending: tuple[ActionBody, ...]
    notes: tuple[str, ...]
    failure: AtlasError | None = None
    """Why services could not be brought there; it is tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """What applying a configuration did."""

    actions: tuple[ActionBody, ...]
    failure: AtlasError | None = None
    """As in `Reloaded`."""


Agreed = Callable[[], Awaitable[object]]
"""Called when services would do what is wanted, before anything changes; raising keeps it so."""


async def _nothing() -> None:
    pass


class Reconciler:
    """Holds what is wanted and has the services role act on the difference.

    One pass at a time. What is not reached because services is gone is done when it is back.
    """

    def __init__(
        self,
        services: Services,
        intents: Intents,
        wish: Wish,
        *,
        report: Callable[[str], None],
        ticked: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        """`ticked` hears how many seconds a pass took."""
        self.wish = wish
        """The configuration that is in force."""
        self.ticks = 0
        self._target = dict(wish.specs)
        self._host = wish.host
        self._services = services
        self._intents = intents
        self._report = report
        self._ticked = ticked
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._due = True
        self._last_pass = time.monotonic()

    def resolved(self) -> Resolved:
        """What is wanted now: the target with the operator's intents over it."""
        return resolve(self._target.values(), self._intents.all())

    @property
    def since_last_pass(self) -> float:
        """Seconds since the scheduler last came round."""
        return time.monotonic() - self._last_pass

    @property
    def is_due(self) -> bool:
        """Whether services has still to be told what is wanted."""
        return self._due

    def due(self) -> None:
        """Something has changed: have the next pass come at once."""
        self._due = True
        self._wake.set()

    async def run(self) -> None:
        """Pass after pass until cancelled; each failure is reported and tried again."""
        while True:
            began = time.monotonic()
            pause = TICK
            if self._due and self._services.connected:
                try:
                    await self.converge("core")
                except AtlasError as error:
                    self._report(f"what is wanted could not be reached yet: {error.message}")
                    pause = RETRY
            self.ticks += 1
            self._last_pass = time.monotonic()
            self._ticked(self._last_pass - began)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def converge(self, actor: str) -> tuple[ActionBody, ...]:
        """Have services do what is missing; what that is. Raises `AtlasError`."""
        async with self._lock:
            return await self._converge(actor)

    async def _converge(self, actor: str) -> tuple[ActionBody, ...]:
        resolved = self.resolved()
        self._due = False
        try:
            actions = await self._apply(resolved, self._host, actor, dry_run=False)
        except BaseException:
            self._due = True
            raise
        await self._intents.end(resolved.ended, resolved.specs)
        return actions

    async def plan(self, wish: Wish) -> tuple[ActionBody, ...]:
        """What applying another configuration would do.

        Raises `services.unreachable`, and what services refuses (a cycle, an unknown name).
        """
        async with self._lock:
            resolved = resolve(wish.specs.values(), self._intents.all())
            return await self._apply(resolved, wish.host, "core", dry_run=True)

    async def apply(self, wish: Wish, actor: str, agreed: Agreed = _nothing) -> Applied:
        """Have another configuration take over, and do what the plan says.

        The dry run comes first: what services refuses changes nothing. Raises as `plan` does, and
        what `agreed` raises.
        """
        async with self._lock:
            resolved = resolve(wish.specs.values(), self._intents.all())
            await self._apply(resolved, wish.host, actor, dry_run=True)
            await agreed()
            self.wish, self._target, self._host = wish, dict(wish.specs), wish.host
            actions, failure = await self._reach(actor)
        return Applied(actions=actions, failure=failure)

    async def reload(
        self, wish: Wish, actor: str, agreed: Agreed = _nothing, *, dry_run: bool = False
    ) -> Reloaded:
        """Take over of another configuration what needs no `apply`; `dry_run`: only tell.

        Services whose change needs a start, a stop or a restart keep their old specification until
        `apply`; what they are handed by it is renewed all the same. Raises as `apply` does; then
        everything is as it was.
        """
        async with self._lock:
            resolved = resolve(wish.specs.values(), self._intents.all())
            actions = await self._apply(resolved, wish.host, actor, dry_run=True)
            waiting = {a["service"] for a in actions if a["action"] not in LIVE_ACTIONS}
            mixed = mix(self._target, wish.specs, waiting)
            waiting = {
                name
                for name in {*self._target, *wish.specs}
                if mixed.get(name) != wish.specs.get(name)
            }
            pending = tuple(a for a in actions if a["service"] in waiting)
            notes = notes_between(self.wish, wish)
            if dry_run:
                resolved = resolve(mixed.values(), self._intents.all())
                applied = await self._apply(resolved, wish.host, actor, dry_run=True)
                return Reloaded(applied=applied, pending=pending, notes=notes)
            await agreed()
            self.wish, self._target, self._host = wish, mixed, wish.host
            applied, failure = await self._reach(actor)
        return Reloaded(applied=applied, pending=pending, notes=notes, failure=failure)

    async def _reach(self, actor: str) -> tuple[tuple[ActionBody, ...], AtlasError | None]:
        """Converge on what has just taken over: a failure is told, and tried again later."""
        try:
            return await self._converge(actor), None
        except AtlasError as error:
            self._wake.set()
            return (), error

    async def _apply(
        self, resolved: Resolved, host: HostPolicy, actor: str, *, dry_run: bool
    ) -> tuple[ActionBody, ...]:
        answer = await self._services.call(
            "apply",
            timeout=APPLY_TIMEOUT,
            services=[to_wire(spec) for spec in resolved.specs.values()],
            wanted={name: wanted.value for name, wanted in resolved.wanted.items()},
            host=to_wire(host),
            actor=actor,
            dry_run=dry_run,
        )
        actions: Sequence[ActionBody] = answer.get("actions", ())
        return tuple(action for action in actions if action["action"] != "none")


def mix(
    old: Mapping[str, ServiceSpec], new: Mapping[str, ServiceSpec], waiting: set[str]
) -> dict[str, ServiceSpec]:
    """The new specifications, with the old ones for services in `waiting`.

    A service that depends on one which is not there yet waits too. What a waiting one is handed is
    renewed: a secret that was rotated, or revoked, waits for nobody's `apply`.
    """
    waiting = set(waiting)
    while True:
        mixed = {name: spec for name, spec in new.items() if name not in waiting}
        mixed.update({name: renewed(old[name], new.get(name)) for name in waiting if name in old})
        hanging = {
            name
            for name, spec in mixed.items()
            if name not in waiting and any(edge.service not in mixed for edge in spec.edges)
        }
        if not hanging:
            return mixed
        waiting |= hanging


def renewed(old: ServiceSpec, new: ServiceSpec | None) -> ServiceSpec:
    """The old specification with the new contents of what it is handed by the same names."""
    if new is None or not old.deliveries:
        return old
    later = {(one.name, one.kind, one.path): one for one in new.deliveries}
    deliveries = tuple(later.get((one.name, one.kind, one.path), one) for one in old.deliveries)
    if deliveries == old.deliveries:
        return old
    known = dict.fromkeys((*old.secrets, *new.secrets))
    return replace(old, deliveries=deliveries, secrets=tuple(known))


def notes_between(old: Wish, new: Wish) -> tuple[str, ...]:
    """What else differs between two configurations, a phrase each."""
    notes = []
    if old.host != new.host:
        notes.append("the host's policy changes")
    names = {check.name: check for check in old.checks}
    later = {check.name: check for check in new.checks}
    notes += [f"check {name} is new" for name in sorted(later.keys() - names.keys())]
    notes += [f"check {name} goes" for name in sorted(names.keys() - later.keys())]
    return tuple(notes)
