"""When a finished instance is started again: delays, limits, crash loops, the host's budget."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from atlasd.services.signals import signal_name
from atlasd.services.spec import Backoff, Restart
from atlasd.states import Reason

LOOP_FAILURES = 5
"""This many failures within `LOOP_WINDOW` make a crash loop."""
LOOP_WINDOW = 600.0
STARVED = 60.0
"""Seconds to wait for a token of a budget that gives none."""


def delay(
    failures: int, backoff: Backoff, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Seconds to wait before the next start after `failures` consecutive failures (≥ 1).

    The first failure since a stable run restarts at once. From the second on the delay is
    `min(cap, base · factor^(n-2))`, spread by the jitter so that a host's services don't all
    return in step after a common cause.
    """
    if failures <= 1:
        return 0.0
    try:
        grown = backoff.base * backoff.factor ** (failures - 2)
    except OverflowError:
        grown = backoff.cap
    return min(backoff.cap, grown) * uniform(1.0 - backoff.jitter, 1.0 + backoff.jitter)


class Outcome:
    """What an exit calls for."""

    RESTART = "restart"
    """It failed: start it again by the backoff."""
    AGAIN = "again"
    """It finished as expected and is wanted to run always: start it again."""
    DONE = "done"
    """It finished as expected."""
    GIVE_UP = "give-up"
    """No restart will heal it, or none is wanted."""
    LOST = "lost"
    """Nobody knows what became of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """How a process ended. `code` and `signal` are both null when that could not be found out."""

    code: int | None = None
    signal: int | None = None
    oom: bool = False
    core_dumped: bool = False
    max_rss: int | None = None
    """Bytes, the largest of the process and its waited-for descendants; null for adopted ones."""
    cpu_seconds: float | None = None


def reason_of(exit_: Exit) -> Reason:
    """The reason code of an exit that nobody asked for."""
    if exit_.oom:
        return Reason.OOM_KILL
    return Reason.SIGNAL if exit_.signal is not None else Reason.EXIT_CODE


def describe(exit_: Exit, policy: Restart) -> str:
    """An exit in plain words."""
    if exit_.oom:
        return "killed by the kernel: out of memory"
    if exit_.signal is not None:
        dumped = ", core dumped" if exit_.core_dumped else ""
        return f"killed by signal {signal_name(exit_.signal)}{dumped}"
    if exit_.code is None:
        return "ended while nobody watched; exit code unknown"
    if exit_.code in policy.config_error_codes:
        return f"exit code {exit_.code}: the program says that its configuration is wrong"
    return f"exit code {exit_.code}"


def judge(exit_: Exit, policy: Restart, kind: str) -> str:
    """What an exit that nobody asked for calls for, one of `Outcome`.

    An unknown exit (adopted on a kernel that doesn't tell) counts as a failure: a service that
    is wanted up should rather be started once too often.
    """
    success = exit_.code in policy.success_codes or (
        exit_.signal is not None and signal_name(exit_.signal) in policy.success_signals
    )
    if success:
        if policy.policy == "always" and kind != "oneshot":
            return Outcome.AGAIN
        return Outcome.DONE
    if exit_.code is not None and (
        exit_.code in policy.no_restart_codes or exit_.code in policy.config_error_codes
    ):
        return Outcome.GIVE_UP
    return Outcome.GIVE_UP if policy.policy == "never" else Outcome.RESTART


class FailureWindow:
    """Failures of one instance within a sliding window, on the monotonic clock."""

    __slots__ = ("_times",)
    KEPT = 256

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=self.KEPT)

    def add(self, now: float) -> None:
        """Note a failure."""
        self._times.append(now)

    def within(self, now: float, window: float) -> int:
        """Failures in the last `window` seconds, `KEPT` at most."""
        return sum(1 for t in self._times if now - t <= window)

    def clear(self) -> None:
        """Forget them: somebody started the instance by hand, or gave it a new definition."""
        self._times.clear()

    def times(self) -> list[float]:
        """When each failure was, oldest first; the monotonic clock is the same for a successor."""
        return list(self._times)

    def restore(self, times: list[float]) -> None:
        """Take over what `times` gave."""
        self._times.extend(times)


def limit_reached(policy: Restart, window: FailureWindow, now: float) -> bool:
    """Whether the service's own limit says that it is to be given up."""
    return (
        policy.on_limit == "fail"
        and policy.limit_count is not None
        and window.within(now, policy.limit_window) >= policy.limit_count
    )


class Budget:
    """Token bucket for restarts after failures, for the whole host.

    Starts that somebody asked for never take from it: fifty crash loops may not hurt the host,
    and neither may they hold an operator back.
    """

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, *, rate: float, burst: int, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at = now

    def _fill(self, now: float) -> None:
        self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.rate)
        self._at = now

    def take(self, now: float) -> float:
        """Take a token: 0.0 when there was one, else the seconds until the one taken is there.

        What is not there yet is promised: who was told to wait need not ask again, and of many
        that wait none is woken for nothing.
        """
        self._fill(now)
        self._tokens -= 1.0
        if self._tokens >= -1e-9:
            return 0.0
        return -self._tokens / self.rate if self.rate > 0 else STARVED

    def tokens(self, now: float) -> float:
        """Tokens at hand; none as long as some are promised."""
        self._fill(now)
        return max(0.0, self._tokens)

    def change(self, *, rate: float, burst: int, now: float) -> None:
        """New limits; what is at hand is kept, up to the new burst."""
        self._fill(now)
        self.rate, self.burst = rate, burst
        self._tokens = min(self._tokens, float(burst))
