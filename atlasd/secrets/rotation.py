"""Rotation: create, set, test, promote, retire; each step durable, so that a crash costs nothing.

What is to be done next stands in the store before it is done, and each step may be done twice.
Until `promote` the current value is in force, whatever happens; after it the previous one still
works for the plan's overlap, and is retired then.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from atlasd.clock import Clock
from atlasd.contracts.secrets import (
    CURRENT,
    PENDING,
    Capability,
    Rotator,
    SecretsPolicy,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd.events import Event, SecretRotated
from atlasd.retry import RetryPolicy, delay
from atlasd.secrets.audit import Entry
from atlasd.secrets.engine import Engine
from atlasd.secrets.steps import Plan

STEPS = ("create", "set", "test", "promote", "retire")
IDLE = "idle"
LOOK_EVERY = 30.0
"""Seconds after which the schedule is looked at again at the latest."""
AGAIN = RetryPolicy(first=timedelta(minutes=1), longest=timedelta(hours=6))
"""Between attempts of a step that failed, where it is tried again by itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """How far the rotation of a secret has come; times are wall times, seconds since the epoch."""

    environment: str
    backend: str
    name: str
    step: str = IDLE
    """What is done next."""
    before: str | None = None
    """Id of the version that was pending before this rotation; None until it was looked up."""
    pending: str = ""
    previous: str = ""
    """Id of the version that was current when the new one was promoted."""
    retire_at: float | None = None
    actor: str = ""
    error: str = ""
    """Of the last attempt, if that failed."""
    failures: int = 0
    next_try: float = 0.0
    since: float = 0.0
    """When it was last promoted; before that, since when it is known."""


class Rotations(Protocol):
    """Where rotations outlive the daemon."""

    async def load(self) -> Sequence[Rotation]:
        """All of them."""

    async def save(self, rotation: Rotation) -> None:
        """Keep one, durably."""


OpenSteps = Callable[[str, Plan], AbstractAsyncContextManager[Rotator]]
"""Opens the steps of a secret's rotation."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A step that was done."""

    step: str
    detail: str = ""
    version: str = ""


class RotationEngine:
    """Carries out rotations, one of a secret at a time."""

    def __init__(
        self,
        engine: Engine,
        rotations: Rotations,
        *,
        open_steps: OpenSteps,
        clock: Clock,
        publish: Callable[[Event], object] = lambda _event: None,
        promoted: Callable[[str, str], object] = lambda _backend, _name: None,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """`promoted` hears of a secret (backend and name) that has another current version."""
        self._engine = engine
        self._rotations = rotations
        self._open_steps = open_steps
        self._clock = clock
        self._publish = publish
        self._promoted = promoted
        self._chance = chance
        self._policy = SecretsPolicy(environment="")
        self._plans: Mapping[tuple[str, str], Plan] = {}
        self._known: dict[tuple[str, str], Rotation] = {}
        self._busy: set[tuple[str, str]] = set()
        self._changed = asyncio.Event()
        self.outcomes: dict[str, int] = {"done": 0, "failed": 0}

    async def configure(self, policy: SecretsPolicy, plans: Mapping[tuple[str, str], Plan]) -> None:
        """What is to be rotated from now on, and how; by backend and name."""
        self._policy = policy
        self._plans = dict(plans)
        self._known = {
            (one.backend, one.name): one
            for one in await self._rotations.load()
            if one.environment == policy.environment
        }
        self._changed.set()

    def standing(self, backend: str, name: str) -> Rotation | None:
        """How far the rotation of a secret has come; None for one that never was rotated."""
        return self._known.get((backend, name))

    @property
    def failing(self) -> tuple[Rotation, ...]:
        """Those whose last attempt failed."""
        return tuple(row for row in self._known.values() if row.error)

    # --- one rotation

    async def rotate(
        self, backend: str, name: str, *, actor: str, force: bool = False
    ) -> AsyncIterator[Done]:
        """Rotate a secret up to its promotion, a step at a time.

        `force` retires at once what an earlier rotation has left valid. Raises `AtlasError`:
        `secret.rotation` when a step failed and the current value stays in force;
        `secret.conflict` while it is being rotated.
        """
        key = (backend, name)
        self._engine.backends.demand(self._policy, backend, Capability.PUT)
        self._engine.backends.demand(self._policy, backend, Capability.STAGE)
        if key not in self._plans:
            raise self._not_configured(name)
        with self._alone(key):
            row = self._row(key)
            if row.step == "retire":
                if not force:
                    raise self._still_valid(row)
                row = await self._one(row)
                yield Done(step="retire", version=row.previous)
            if row.step == IDLE:
                row = await self._save(
                    replace(row, step="create", before=None, pending="", actor=actor, error="")
                )
            async for done in self._upto_promotion(row):
                yield done

    async def _upto_promotion(self, row: Rotation) -> AsyncIterator[Done]:
        while row.step in STEPS[:4]:
            step = row.step
            try:
                row = await self._one(row)
            except AtlasError as error:
                raise await self._failed(row, error) from error
            yield Done(step=step, version=row.pending)

    async def _one(self, row: Rotation) -> Rotation:
        """Do the next step; the rotation after it, which is durable."""
        plan = self._plans.get((row.backend, row.name))
        step = row.step
        if plan is None:
            if step != "retire":
                raise self._not_configured(row.name)
            plan = Plan()
        async with self._open_steps(row.name, plan) as steps:
            if step == "create":
                row = await self._create(row, steps)
            elif step == "set":
                current = await self._current(row)
                await steps.set(row.name, await self._value(row, row.pending), _of(current))
                row = replace(row, step="test")
            elif step == "test":
                await steps.test(row.name, await self._value(row, row.pending))
                row = replace(row, step="promote")
            elif step == "promote":
                row = await self._promote(row, plan)
            else:
                await self._retire(row, steps)
                row = replace(row, step=IDLE, retire_at=None)
        row = await self._save(replace(row, error="", failures=0, next_try=0.0))
        if step == "promote":
            self.outcomes["done"] += 1
            self._promoted(row.backend, row.name)
        await self._tell(row, step)
        return row

    async def _create(self, row: Rotation, steps: Rotator) -> Rotation:
        pending = await self._at(row, PENDING)
        if row.before is None:
            row = await self._save(replace(row, before=pending))
        elif pending not in ("", row.before):
            # It was made, and then we were killed: the system may have heard of it already.
            return replace(row, pending=pending, step="set")
        value = await steps.create(row.name, _of(await self._current(row)))
        made = await self._engine.backends.call(
            self._policy,
            row.backend,
            lambda store: store.put(row.name, value, stage=PENDING, actor=row.actor),
            expect=SecretVersion,
        )
        return replace(row, pending=made.version, step="set")

    async def _promote(self, row: Rotation, plan: Plan) -> Rotation:
        current = await self._at(row, CURRENT)
        if current != row.pending:
            row = await self._save(replace(row, previous=current))
            await self._engine.backends.call(
                self._policy,
                row.backend,
                lambda store: store.stage(row.name, row.pending, CURRENT),
                expect=type(None),
            )
        self._engine.changed_by_us(self._policy, row.backend, row.name)
        now = self._clock.wall()
        return replace(row, step="retire", retire_at=now + plan.overlap, since=now)

    async def _retire(self, row: Rotation, steps: Rotator) -> None:
        if not row.previous or row.previous == await self._at(row, CURRENT):
            return  # there was none, or somebody has gone back to it
        with contextlib.suppress(_GoneError):
            await steps.retire(row.name, await self._value(row, row.previous))

    async def _at(self, row: Rotation, stage: str) -> str:
        """Id of the version at a stage; empty when there is none."""
        found = await self._fetched(row, stage=stage)
        return found.version if found is not None else ""

    async def _current(self, row: Rotation) -> SecretVersion | None:
        return await self._fetched(row, stage=CURRENT)

    async def _fetched(self, row: Rotation, **which: str) -> SecretVersion | None:
        try:
            return await self._engine.backends.call(
                self._policy,
                row.backend,
                lambda store: store.get(row.name, **which),
                expect=SecretVersion,
            )
        except AtlasError as error:
            if error.code != "secret.not_found":
                raise
            return None

    async def _value(self, row: Rotation, version: str) -> SecretValue:
        found = await self._fetched(row, version=version)
        value = _of(found)
        if value is None:
            raise _GoneError(row.name, version)
        return value

    # --- by itself

    async def run(self) -> None:
        """Go on with what was interrupted, retire and rotate when it is due; for ever."""
        while True:
            try:
                wait = await self.work_due()
            except AtlasError as error:
                # The database, say: it is tried again, and the rest of the daemon says so too.
                _log.error("rotations wait: %s", error.message)
                wait = LOOK_EVERY
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    async def work_due(self) -> float:
        """Do all that is due; seconds until the next look."""
        now = self._clock.wall()
        for key, row in list(self._known.items()):
            if key[0] not in self._policy.backends or now < row.next_try:
                continue
            if row.step in STEPS[:4] and key not in self._busy:
                await self._go_on(key, row)
            elif row.step == "retire" and now >= (row.retire_at or 0.0):
                await self._retire_due(key, row)
        for key, plan in list(self._plans.items()):
            if plan.every is not None:
                await self._rotate_due(key, plan.every)
        return self._wait()

    def _wait(self) -> float:
        """Seconds until something may be due."""
        now = self._clock.wall()
        times = [
            max(row.retire_at or 0.0, row.next_try) if row.step == "retire" else row.next_try
            for row in self._known.values()
            if row.step != IDLE and (row.backend, row.name) not in self._busy
        ]
        soonest = min(times, default=now + LOOK_EVERY)
        return min(max(soonest - now, 0.5), LOOK_EVERY)

    async def _go_on(self, key: tuple[str, str], row: Rotation) -> None:
        """A crash, or the daemon's end, has interrupted it; or its backend did not answer."""
        _log.info("the rotation of %s goes on with: %s", row.name, row.step)
        with contextlib.suppress(AtlasError), self._alone(key):
            async for _ in self._upto_promotion(row):
                pass

    async def _retire_due(self, key: tuple[str, str], row: Rotation) -> None:
        with contextlib.suppress(AtlasError), self._alone(key):
            try:
                await self._one(row)
            except AtlasError as error:
                await self._failed(row, error)

    async def _rotate_due(self, key: tuple[str, str], every: float) -> None:
        now = self._clock.wall()
        row = self._row(key)
        if not row.since:
            # The first time is counted from when it was configured: nothing is known of before.
            await self._save(replace(row, since=now))
            return
        if row.step != IDLE or now < max(row.since + every, row.next_try):
            return
        try:
            async for _ in self.rotate(*key, actor="schedule"):
                pass
        except AtlasError as error:
            _log.error("the scheduled rotation of %s failed: %s", key[1], error.message)

    # --- keeping and telling

    def _row(self, key: tuple[str, str]) -> Rotation:
        return self._known.get(key) or Rotation(
            environment=self._policy.environment, backend=key[0], name=key[1]
        )

    async def _save(self, row: Rotation) -> Rotation:
        await self._rotations.save(row)
        self._known[row.backend, row.name] = row
        return row

    @contextlib.contextmanager
    def _alone(self, key: tuple[str, str]) -> Iterator[None]:
        if key in self._busy:
            raise AtlasError(
                "secret.conflict",
                f"the secret {key[1]!r} is being rotated: {self._row(key).step}",
                hint="wait for it to end",
            )
        self._busy.add(key)
        try:
            yield
        finally:
            self._busy.discard(key)

    async def _failed(self, row: Rotation, error: AtlasError) -> AtlasError:
        """Note that a step failed; the error to be raised."""
        self.outcomes["failed"] += 1
        step = row.step
        row = self._known.get((row.backend, row.name), row)
        failures = row.failures + 1
        wait = delay(AGAIN, failures, self._chance()).total_seconds()
        again = step in ("promote", "retire")
        row = await self._save(
            replace(
                row,
                step=step if again else IDLE,
                error=f"{step}: {error.message}",
                failures=failures,
                next_try=self._clock.wall() + wait,
            )
        )
        await self._tell(row, step, error)
        stays = "" if step == "retire" else "; the current value stays in force"
        return AtlasError(
            "secret.rotation",
            f"the step {step} of the rotation of {row.name!r} failed: {error.message}{stays}",
            hint=error.hint or "mend what it says, and rotate again",
            details={"step": step, "code": error.code},
        )

    async def _tell(self, row: Rotation, step: str, error: AtlasError | None = None) -> None:
        self._publish(
            SecretRotated(
                time=self._clock.wall(),
                secret=row.name,
                step="failed" if error is not None else step,
                backend=row.backend,
                version=row.previous if step == "retire" else row.pending,
                environment=row.environment,
                actor=row.actor,
                detail=f"{row.name}: {step}" + (f": {error.message}" if error is not None else ""),
            )
        )
        self._changed.set()
        with contextlib.suppress(AtlasError):
            await self._engine.enter(
                self._policy,
                [
                    Entry(
                        action=f"rotate-{step}",
                        name=row.name,
                        backend=row.backend,
                        version=row.previous if step == "retire" else row.pending,
                        environment=row.environment,
                        actor=row.actor,
                        outcome=error.code if error is not None else "done",
                        reason=error.message if error is not None else "",
                    )
                ],
            )

    def _not_configured(self, name: str) -> AtlasError:
        return AtlasError(
            "secret.rotation",
            f"nothing says how the secret {name!r} is rotated",
            hint=f"write a table [secrets.rotate.{name if name.isalnum() else repr(name)}]; an "
            "empty one makes random characters",
        )

    def _still_valid(self, row: Rotation) -> AtlasError:
        left = max(0.0, (row.retire_at or 0.0) - self._clock.wall())
        return AtlasError(
            "secret.conflict",
            f"the value of {row.name!r} before the last rotation still works for {left:.0f} s",
            hint="wait for that, or retire it at once with --force",
        )


class _GoneError(AtlasError):
    def __init__(self, name: str, version: str) -> None:
        super().__init__("secret.not_found", f"secret {name!r} has no version {version!r} any more")


def _of(found: SecretVersion | None) -> SecretValue | None:
    return found.value if found is not None else None
