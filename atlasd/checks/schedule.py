"""When a check runs next: pure, so that it can be tried with any clock and any chance."""

from dataclasses import dataclass

JITTER = 0.1
"""Part of the interval by which chance shifts a run, so that checks do not run in step."""
SPREAD = 5.0
"""Seconds over which the first runs of all checks are spread, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often a check runs; seconds."""

    interval: float
    deadline: float

    @property
    def limit(self) -> float:
        """Seconds that a run may take: its deadline, but no longer than the interval."""
        return min(self.deadline, self.interval)


def first(pace: Pace, chance: float) -> float:
    """Seconds until the first run; `chance` is uniform in [0, 1)."""
    return min(pace.interval, SPREAD) * chance


def following(pace: Pace, began: float, now: float, chance: float) -> float:
    """Seconds from `now` until the next run of a check whose last run began at `began`.

    Runs begin an interval apart, give or take the jitter, however long they take; never two at
    once, and never sooner than a tenth of the interval after the last one ended.
    """
    due = began + pace.interval * (1 + JITTER * (2 * chance - 1))
    return max(due - now, pace.interval / 10)
