"""What each plugin has cost: calls, time, failures, and what it last did wrong."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


class Ledger:
    """The books of one host; may be written to from any thread."""

    def __init__(self, clock: Clock, publish: Callable[[Event], None]) -> None:
        self._clock = clock
        self._publish = publish
        self._lock = threading.Lock()
        self._costs: dict[tuple[str, str], Cost] = {}
        self._last: dict[str, Failure] = {}
        self._ailing: dict[str, dict[str, Failure]] = {}

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
        """A plugin failed at work; the first failure in a row of each subject is published."""
        failure = Failure(time=self._clock.wall(), kind=kind, cause=cause, detail=detail)
        with self._lock:
            cost = self._costs.get((plugin, kind), Cost())
            self._costs[plugin, kind] = replace(cost, failures=cost.failures + 1)
            self._last[plugin] = failure
            ailing = self._ailing.setdefault(plugin, {})
            first = subject not in ailing
            ailing[subject] = failure
        if first:
            self._publish(PluginFailed(time=failure.time, plugin=plugin, detail=detail))

    def costs(self) -> Mapping[tuple[str, str], Cost]:
        """A copy of the books, by plugin and kind."""
        with self._lock:
            return dict(self._costs)

    def ailing(self, plugin: str) -> tuple[Failure, ...]:
        """The last failure of each thing of the plugin's whose last call failed."""
        with self._lock:
            return tuple(self._ailing.get(plugin, {}).values())

    def last_failure(self, plugin: str) -> Failure | None:
        """What the plugin last did wrong, if anything."""
        with self._lock:
            return self._last.get(plugin)
