"""What each plugin has cost: calls, time, failures, and what it last did wrong."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from atlasd.clock import Clock
from atlasd.events import Event, PluginFailed


class Cause(StrEnum):
    """In what way a plugin failed at work."""

    RAISED = "raised"
    HUNG = "hung"
    """It did not return within its time limit."""
    FLOODED = "flooded"
    """It gave, published or logged more than its allowance; the surplus is lost."""
    WRONG = "wrong answer"
    """It returned something else than it promises."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Counts since the start, of one plugin and kind of work."""

    calls: int = 0
    seconds: float = 0.0
    """Time from call to return, waiting included; core's loop is not held up by the waiting."""
    failures: int = 0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What a plugin last did wrong."""

    time: float
    """Wall time, seconds since the epoch."""
    kind: str
    cause: Cause
    detail: str


CALM = timedelta(minutes=1)
"""A flood counts as over when nothing more was lost for this long; and of one thing's failures
one in this time is published, or a plugin that fails often would flood the bus by it."""


class Ledger:
    """The books of one host; may be written to from any thread."""

    def __init__(self, clock: Clock, publish: Callable[[Event], None]) -> None:
        self._clock = clock
        self._publish = publish
        self._lock = threading.Lock()
        self._costs: dict[tuple[str, str], Cost] = {}
        self._ailing: dict[str, dict[str, Failure]] = {}
        self._told: dict[tuple[str, str], float] = {}

    def called(self, plugin: str, kind: str, seconds: float) -> None:
        """A call took this long, however it ended."""
        with self._lock:
            cost = self._costs.get((plugin, kind), Cost())
            self._costs[plugin, kind] = replace(
                cost, calls=cost.calls + 1, seconds=cost.seconds + seconds
            )

    def worked(self, plugin: str, subject: str) -> None:
        """What failed under this name before now works."""
        with self._lock:
            self._ailing.get(plugin, {}).pop(subject, None)

    def failed(self, plugin: str, kind: str, subject: str, cause: Cause, detail: str) -> None:
        """A plugin failed at work; the first failure of a subject in a while is published."""
        failure = Failure(time=self._clock.wall(), kind=kind, cause=cause, detail=detail)
        with self._lock:
            cost = self._costs.get((plugin, kind), Cost())
            self._costs[plugin, kind] = replace(cost, failures=cost.failures + 1)
            self._calm(plugin)
            ailing = self._ailing.setdefault(plugin, {})
            first = subject not in ailing
            ailing[subject] = failure
            now = self._clock.monotonic()
            tell = first and now >= self._told.get((plugin, subject), now)
            if tell:
                self._told[plugin, subject] = now + CALM.total_seconds()
        if tell:
            self._publish(PluginFailed(time=failure.time, plugin=plugin, detail=detail))

    def costs(self) -> Mapping[tuple[str, str], Cost]:
        """A copy of the books, by plugin and kind."""
        with self._lock:
            return dict(self._costs)

    def ailing(self, plugin: str) -> tuple[Failure, ...]:
        """The last failure of each thing of the plugin's whose last call failed."""
        with self._lock:
            self._calm(plugin)
            return tuple(self._ailing.get(plugin, {}).values())

    def _calm(self, plugin: str) -> None:
        """Forget floods that are over: no call says that they are."""
        before = self._clock.wall() - CALM.total_seconds()
        ailing = self._ailing.get(plugin, {})
        for subject, failure in tuple(ailing.items()):
            if failure.cause is Cause.FLOODED and failure.time <= before:
                del ailing[subject]
