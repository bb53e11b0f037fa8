"""How a queue does: ok, degraded or stalled, and why; pure, all times in seconds.

A verdict gets worse at once and better only when it has been better for a while, so that a queue on
the edge doesn't flap.
"""

from dataclasses import dataclass

OK, DEGRADED, STALLED = "ok", "degraded", "stalled"
WORDS = (OK, DEGRADED, STALLED)

STALL_AFTER = 60.0
"""Without anything begun or ended, while jobs wait and none runs."""
CALM = 30.0
"""A better verdict has to hold for so long before it is believed."""
RUNS = 20
"""Runs that failed or finished lately before their ratio says anything."""
FAILED = 0.5
"""Part of them that fail in a queue that is degraded."""
FULL = 0.9
"""Part of a queue's size at which it is nearly full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A queue as it stands."""

    available: int
    running: int
    scheduled: int
    waited: float
    """Of the first in line, since it was due."""
    idle: float
    """Since a job of it was begun or ended, or since the first one came."""
    workers: int
    """That ask for jobs of it."""
    paused: bool = False
    shut: tuple[str, ...] = ()
    """Targets of its jobs whose breakers are open."""
    size: int = 0
    """Waiting jobs that it takes; 0: any number."""
    max_wait: float = 900.0
    finished: int = 0
    """Runs of the last minutes that were good."""
    failed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueHealth:
    """A verdict that holds."""

    word: str
    reason: str
    """In plain words."""
    since: float
    """When this word began to hold."""
    better_since: float | None = None
    """Since when it has looked better than the word says."""


FRESH = QueueHealth(word=OK, reason="it was not looked at yet", since=0.0)


def judge(seen: Seen) -> tuple[str, str]:
    """The word for what is seen, and the reason for it."""
    waiting = _jobs(seen.available)
    if seen.paused:
        return OK, f"paused by an operator; {waiting} {_wait(seen.available)}"
    if seen.available and not seen.running and seen.idle >= STALL_AFTER:
        return STALLED, f"{waiting} {_wait(seen.available)}, {_standstill(seen)}"
    if seen.size and seen.available + seen.scheduled >= FULL * seen.size:
        return DEGRADED, f"{seen.available + seen.scheduled} of at most {seen.size} jobs wait"
    if seen.available and seen.waited > seen.max_wait:
        why = "" if seen.workers else "; no worker is connected"
        return DEGRADED, (
            f"the first in line has waited {_long(seen.waited)}, "
            f"more than {_long(seen.max_wait)}{why}"
        )
    runs = seen.finished + seen.failed
    if runs >= RUNS and seen.failed >= FAILED * runs:
        return DEGRADED, f"{seen.failed} of the last {runs} runs failed"
    if seen.shut and seen.available:
        return DEGRADED, f"{_breakers(seen.shut)}: jobs for it wait"
    if not seen.available:
        return OK, "no job waits"
    return OK, f"{waiting} {_wait(seen.available)}, the first for {_long(seen.waited)}"


def settle(before: QueueHealth | None, word: str, reason: str, now: float) -> QueueHealth:
    """The verdict that holds, given the one that held and what is judged at this moment."""
    if before is None or WORDS.index(word) > WORDS.index(before.word):
        return QueueHealth(word=word, reason=reason, since=now)
    if word == before.word:
        return QueueHealth(word=word, reason=reason, since=before.since)
    better_since = now if before.better_since is None else before.better_since
    if now - better_since >= CALM or reason.startswith("paused"):
        return QueueHealth(word=word, reason=reason, since=now)
    return QueueHealth(
        word=before.word, reason=before.reason, since=before.since, better_since=better_since
    )


def _standstill(seen: Seen) -> str:
    if not seen.workers:
        return "and no worker asks for them"
    if seen.shut:
        return f"and {_breakers(seen.shut)}"
    return f"and nothing was begun for {_long(seen.idle)}, though workers ask for them"


def _breakers(shut: tuple[str, ...]) -> str:
    shown = ", ".join(shut[:3]) + (", …" if len(shut) > 3 else "")
    return f"the breaker of {shown} is open"


def _jobs(count: int) -> str:
    return "one job" if count == 1 else f"{count} jobs"


def _wait(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
