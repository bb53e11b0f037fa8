"""Plugins at work: checks that run, subscribers that hear, collectors, and long-running parts."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Generic, TypeVar

from atlasd.breaker import Breaker, BreakerPolicy
from atlasd.bus import Subscription
from atlasd.clock import Clock
from atlasd.contracts.checks import Check, CheckResult
from atlasd.contracts.collectors import Collector, Metric
from atlasd.contracts.components import Part
from atlasd.contracts.subscribers import Handler
from atlasd.errors import AtlasError
from atlasd.events import Event, EventsLost
from atlasd.pluginhost import answers
from atlasd.pluginhost.guard import Backend, Guard
from atlasd.pluginhost.ledger import Ledger
from atlasd.pluginhost.opened import Opened
from atlasd.retry import RetryPolicy, delay
from atlasd.states import Health

T = TypeVar("T")
R = TypeVar("R")

OVERTIME = timedelta(seconds=1)
"""What a check may take beyond the limit that it knows of, before it is cancelled."""
HANDLE_LIMIT = timedelta(seconds=10)
"""What a subscriber may take for one fact."""
COLLECT_LIMIT = timedelta(seconds=2)
"""What a collector may take for one scrape."""
OPEN_LIMIT = timedelta(seconds=30)
"""What a component may take to open."""
CLOSE_LIMIT = timedelta(seconds=5)
"""What anything may take to close."""

STABLE = timedelta(minutes=1)
"""A component that ran for this long begins anew with the shortest delay."""

RESTARTS = RetryPolicy(first=timedelta(seconds=1), longest=timedelta(minutes=5))
"""Delays between the runs of a component that fails."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all guarded work needs."""

    ledger: Ledger
    clock: Clock

    def guard(
        self, backend: Backend, *, most_strays: int = 1, policy: BreakerPolicy | None = None
    ) -> Guard:
        """A guard with a breaker of its own."""
        return Guard(
            backend,
            ledger=self.ledger,
            breaker=Breaker(self.clock, policy),
            clock=self.clock,
            most_strays=most_strays,
        )


@asynccontextmanager
async def _held(
    backend: Backend, guard: Guard, make: Callable[[], AbstractAsyncContextManager[T]]
) -> AsyncIterator[Opened[T]]:
    opened = Opened(make, name=backend.name)
    try:
        yield opened
    finally:
        fault = await opened.close(CLOSE_LIMIT)
        if fault is not None:
            guard.closed_badly(fault)


class RunningCheck:
    """A configured check, opened when it first runs."""

    def __init__(self, opened: Opened[Check], guard: Guard) -> None:
        self._opened = opened
        self._guard = guard

    async def run(self, limit: timedelta) -> CheckResult:
        """The verdict; unknown, with a sentence, when the plugin did not come to one.

        Never raises, but for its own cancellation. Must not be called twice at the same time.
        """

        async def once() -> CheckResult:
            check = await self._opened.get()
            return await check.run(limit)

        try:
            return await self._guard.call(
                once, limit=limit + OVERTIME, accept=answers.check_result(self._guard.flooded)
            )
        except AtlasError as error:
            if not self._opened.is_open:
                await self._opened.drop()
            return CheckResult(status=Health.UNKNOWN, output=error.message)


@asynccontextmanager
async def running_check(
    bench: Bench, backend: Backend, make: Callable[[], AbstractAsyncContextManager[Check]]
) -> AsyncIterator[RunningCheck]:
    """A check to be run again and again, closed at the end."""
    guard = bench.guard(backend)
    async with _held(backend, guard, make) as opened:
        yield RunningCheck(opened, guard)


class RunningThing(Generic[T]):
    """A secret backend or a rotator, opened when it is first called."""

    def __init__(self, opened: Opened[T], guard: Guard) -> None:
        self._opened = opened
        self._guard = guard

    async def call(
        self,
        work: Callable[[T], Awaitable[R]],
        *,
        limit: timedelta,
        expect: type | tuple[type, ...],
    ) -> R:
        """What `work` gives, which must be of the type `expect`.

        Raises the plugin's own `AtlasError`s, which are no failure of its, and
        `AtlasError("plugin.failed")` when it raises something else, hangs or answers wrongly.
        """

        async def once() -> R:
            return await work(await self._opened.get())

        try:
            return await self._guard.call(
                once, limit=limit, accept=answers.instance(expect), honest=(AtlasError,)
            )
        except AtlasError:
            if not self._opened.is_open:
                await self._opened.drop()
            raise


@asynccontextmanager
async def running_thing(
    bench: Bench, backend: Backend, make: Callable[[], AbstractAsyncContextManager[T]]
) -> AsyncIterator[RunningThing[T]]:
    """Something to be called again and again, by several at once; closed at the end."""
    guard = bench.guard(backend, most_strays=8)
    async with _held(backend, guard, make) as opened:
        yield RunningThing(opened, guard)


async def run_subscriber(
    bench: Bench,
    backend: Backend,
    make: Callable[[], AbstractAsyncContextManager[Handler]],
    subscription: Subscription,
) -> None:
    """Hand a subscriber its facts until the bus closes; what it does with them is its affair."""
    guard = bench.guard(backend)
    missed = 0
    async with subscription, _held(backend, guard, make) as opened:
        async for event in subscription:
            if guard.resting:
                missed += 1
                continue
            if missed:
                detail = f"{backend.name} rested after failures"
                lost = EventsLost(time=bench.clock.wall(), count=missed, detail=detail)
                missed = 0
                await _hand(guard, opened, lost)
            await _hand(guard, opened, event)


async def _hand(guard: Guard, opened: Opened[Handler], event: Event) -> None:
    async def once() -> None:
        handler = await opened.get()
        await handler.handle(event)

    try:
        await guard.call(once, limit=HANDLE_LIMIT, accept=answers.nothing)
    except AtlasError:
        if not opened.is_open:
            await opened.drop()


class RunningCollector:
    """A collector, opened when somebody first scrapes."""

    def __init__(self, opened: Opened[Collector], guard: Guard) -> None:
        self._opened = opened
        self._guard = guard

    async def collect(self) -> tuple[Metric, ...]:
        """The metrics now; none when the plugin failed."""

        async def once() -> object:
            collector = await self._opened.get()
            return await collector.collect()

        try:
            return await self._guard.call(once, limit=COLLECT_LIMIT, accept=answers.metrics)
        except AtlasError:
            if not self._opened.is_open:
                await self._opened.drop()
            return ()


@asynccontextmanager
async def running_collector(
    bench: Bench, backend: Backend, make: Callable[[], AbstractAsyncContextManager[Collector]]
) -> AsyncIterator[RunningCollector]:
    """A collector to be asked again and again, closed at the end."""
    guard = bench.guard(backend)
    async with _held(backend, guard, make) as opened:
        yield RunningCollector(opened, guard)


async def run_component(
    bench: Bench,
    backend: Backend,
    make: Callable[[], AbstractAsyncContextManager[Part]],
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> None:
    """Run a component until it has nothing left to do; again, after a while, when it fails.

    `pause` waits for so many seconds; `chance` gives the jitter of the waits.
    """
    # The waits between runs are what a breaker is elsewhere: this one never opens.
    guard = bench.guard(backend, policy=BreakerPolicy(failures=sys.maxsize))
    failures = 0
    loop = asyncio.get_running_loop()
    while True:
        began = bench.clock.monotonic()
        well = loop.call_later(STABLE.total_seconds(), guard.recovered)
        async with _held(backend, guard, make) as opened:
            work = partial(_opened_and_run, opened)
            try:
                await guard.call(work, limit=None, accept=answers.nothing)
            except AtlasError:
                if not opened.is_open:
                    await opened.drop()
            else:
                return
            finally:
                well.cancel()
        if bench.clock.monotonic() - began >= STABLE.total_seconds():
            failures = 0
        failures += 1
        await pause(delay(RESTARTS, failures, chance()).total_seconds())


async def _opened_and_run(opened: Opened[Part]) -> None:
    try:
        async with asyncio.timeout(OPEN_LIMIT.total_seconds()) as limit:
            part = await opened.get()
    except TimeoutError:
        if limit.expired():
            seconds = OPEN_LIMIT.total_seconds()
            raise AtlasError("plugin.failed", f"it did not open within {seconds:g} s") from None
        raise
    await part.run()
