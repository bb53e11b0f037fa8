"""The bus: carries facts to subscribers; bounded, so a slow subscriber loses and is counted."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Self

from atlasd.clock import Clock, RealClock
from atlasd.events import Event, EventsLost

DEFAULT_LIMIT = 1024


class Subscription:
    """One reader's queue; iterate over it, and leave it (`async with`) when done.

    Facts come in the order in which they were published. When the queue is full the oldest fact
    gives way to the newest; the reader is then handed one `EventsLost` with the count in their
    place.
    """

    def __init__(
        self, bus: "Bus", name: str, kinds: frozenset[str] | None, limit: int, clock: Clock
    ) -> None:
        self.name = name
        self.dropped = 0
        """Facts this reader has lost since it subscribed."""
        self._bus = bus
        self._kinds = kinds
        self._queue: deque[Event] = deque()
        self._limit = limit
        self._unreported = 0
        self._ready = asyncio.Event()
        self._clock = clock
        self._closed = False

    def _offer(self, event: Event) -> None:
        if self._closed or (self._kinds is not None and event.kind not in self._kinds):
            return
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
            self._unreported += 1
            self._bus.dropped += 1
        self._queue.append(event)
        self._ready.set()

    async def get(self) -> Event:
        """The next fact; waits for one. Raises `StopAsyncIteration` once the bus is closed."""
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        if self._unreported:
            lost, self._unreported = self._unreported, 0
            return EventsLost(
                time=self._clock.wall(), count=lost, detail=f"{self.name} was too slow to read them"
            )
        return self._queue.popleft()

    def close(self) -> None:
        """End the subscription; a reader that waits gets what is queued, then the end."""
        self._closed = True
        self._ready.set()
        self._bus._forget(self)  # noqa: SLF001  the two are one mechanism

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self.get()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Bus:
    """Carries facts, never requests. Publishing never blocks and never raises.

    It belongs to the event loop it was made in; `publish` may be called from any thread. Facts are
    numbered in the order in which they were published, from `first` on; `record`, if given, gets
    each of them before any subscriber and loses none: it must be as quick as an append.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        first: int = 1,
        record: Callable[[Event], object] | None = None,
    ) -> None:
        self._clock: Clock = clock or RealClock()
        self.next_seq = first
        """Number of the next fact."""
        self._record = record
        self._subscriptions: list[Subscription] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.published = 0
        self.dropped = 0
        """Facts lost by slow subscribers, all of them together, those that left included."""

    def publish(self, event: Event) -> None:
        """Hand a fact to every subscriber; from another thread it happens a moment later."""
        if threading.get_ident() != self._thread:
            try:
                self._loop.call_soon_threadsafe(self.publish, event)
            except RuntimeError:
                pass  # the loop is closed: nobody is left to be told
            return
        event = replace(event, seq=self.next_seq)
        self.next_seq += 1
        self.published += 1
        if self._record is not None:
            self._record(event)
        for subscription in self._subscriptions:
            subscription._offer(event)  # noqa: SLF001  the two are one mechanism

    def subscribe(
        self, name: str, *, kinds: Iterable[str] | None = None, limit: int = DEFAULT_LIMIT
    ) -> Subscription:
        """A queue of at most `limit` facts of these kinds (default: all), from now on."""
        wanted = None if kinds is None else frozenset(kinds)
        subscription = Subscription(self, name, wanted, limit, self._clock)
        self._subscriptions.append(subscription)
        return subscription

    def subscriptions(self) -> tuple[Subscription, ...]:
        """Those that listen now."""
        return tuple(self._subscriptions)

    def close(self) -> None:
        """End every subscription."""
        for subscription in tuple(self._subscriptions):
            subscription.close()

    def _forget(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
