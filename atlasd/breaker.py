"""A circuit breaker: closed, open, half-open; pure but for the clock it is given."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from atlasd.clock import Clock


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """They don't: too many failed in a row."""
    HALF_OPEN = "half-open"
    """The rest is over: one call may try."""


@dataclass(frozen=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens, and for how long."""

    failures: int = 5
    """In a row, that open it."""
    rest: timedelta = timedelta(seconds=30)
    """Before the first try; doubled by each try that fails."""
    longest_rest: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ValueError("a breaker opens after one failure at the earliest")
        if not timedelta(0) < self.rest <= self.longest_rest:
            raise ValueError("a breaker rests for more than no time and at most its longest rest")


class Breaker:
    """Keeps a backend that fails from being called until it has rested.

    Before each call ask `admit`; after it say `succeeded`, `failed`, or `withdrawn` when it came
    to neither.
    """

    def __init__(self, clock: Clock, policy: BreakerPolicy | None = None) -> None:
        self._clock = clock
        self._policy = policy or BreakerPolicy()
        self._rest = self._policy.rest
        self._until: float | None = None
        self._trying = False
        self.failures = 0
        """Failures since the last success."""

    @property
    def state(self) -> BreakerState:
        """The state at this moment."""
        if self._until is None:
            return BreakerState.CLOSED
        if self._clock.monotonic() < self._until:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    @property
    def remaining(self) -> timedelta:
        """How long until a call may try; zero when one may now, or is trying."""
        if self._until is None:
            return timedelta(0)
        return timedelta(seconds=max(0.0, self._until - self._clock.monotonic()))

    def admit(self) -> bool:
        """Whether a call may be made now; a half-open breaker admits one at a time."""
        state = self.state
        if state is BreakerState.HALF_OPEN and not self._trying:
            self._trying = True
            return True
        return state is BreakerState.CLOSED

    def succeeded(self) -> None:
        """An admitted call did what it should: the breaker closes and forgets."""
        self.failures = 0
        self._until = None
        self._trying = False
        self._rest = self._policy.rest

    def failed(self) -> bool:
        """An admitted call failed; true when that opened the breaker."""
        self.failures += 1
        state = self.state
        if state is BreakerState.OPEN:
            return False  # a call from before it opened came in late
        if state is BreakerState.HALF_OPEN:
            if not self._trying:
                return False
            self._rest = min(self._rest * 2, self._policy.longest_rest)
        elif self.failures < self._policy.failures:
            return False
        self._trying = False
        self._until = self._clock.monotonic() + self._rest.total_seconds()
        return True

    def withdrawn(self) -> None:
        """An admitted call was given up by the caller: it says nothing about the backend."""
        self._trying = False
