"""Why a job is where it is: one word, and a sentence; pure. Times are milliseconds."""

from dataclasses import dataclass

from atlasd.contracts.queue import BreakerRow, QueueLimits, Row
from atlasd.jobs import circuit
from atlasd.states import JOB_FINAL, JobState

AHEAD = 10_000
"""Jobs before it that are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What is around a job."""

    now: int
    paused: bool = False
    """Whether its queue is."""
    breaker: BreakerRow | None = None
    """Of its target."""
    limits: QueueLimits
    running: int = 0
    """Jobs of its queue that run."""
    running_of_key: int = 0
    """Jobs of its queue and fair key that run."""
    workers: int = 0
    """That ask for its queue."""
    others: int = 0
    """Workers that ask for other queues."""
    ahead: int = 0
    """Jobs of its lane that rank before it; `AHEAD`: that many or more."""


def explained(row: Row, around: Around) -> tuple[str, str]:
    """A word, and a sentence. The first thing that holds a job up is the one reason."""
    if row.state in JOB_FINAL:
        return row.reason or row.state.value, _ended(row)
    if row.state is JobState.RUNNING:
        asked = "; it is asked to end" if row.cancel_requested else ""
        return "running", f"{_holder(row)}attempt {row.attempt} of {row.max_attempts}{asked}"
    if row.state is JobState.SCHEDULED:
        wait = _long(row.run_at - around.now)
        if row.attempt:
            return "retrying", f"attempt {row.attempt} failed; the next is due in {wait}"
        return "scheduled", f"it is due in {wait}"
    return _held_up(row, around) or _waiting(row, around)


def _holder(row: Row) -> str:
    return f"worker {row.worker} holds it, " if row.worker else "a worker holds it, "


def _ended(row: Row) -> str:
    words = {
        "exhausted": f"it was given up after {row.attempt} attempts: `atlasctl dead show {row.id}`",
        "buried": f"its handler gave it up: `atlasctl dead show {row.id}`",
        "worker_lost": f"it lost its worker {row.lost_count} times: `atlasctl dead show {row.id}`",
        "discarded": "its handler found that it is not worth another try",
        "user": "somebody cancelled it",
        "expired": "it expired before a worker began it",
    }
    return words.get(row.reason, f"it has ended: {row.state.value}")


def _held_up(row: Row, around: Around) -> tuple[str, str] | None:
    limits, breaker = around.limits, around.breaker
    if around.paused:
        return "paused", f"the queue {row.queue} is paused: `atlasctl queue resume {row.queue}`"
    if breaker is not None and breaker.state == circuit.FORCED_OPEN:
        return "breaker", (
            f"the breaker of {row.target} was opened by an operator: "
            f"`atlasctl breaker close {row.target}`"
        )
    if breaker is not None and circuit.is_shut(breaker):
        left = _long(breaker.open_until - around.now)
        return "breaker", f"the breaker of {row.target} is open, for {left} more"
    if breaker is not None and breaker.state == circuit.HALF_OPEN:
        return "breaker", f"the breaker of {row.target} is half open: one probe at a time"
    if not around.workers:
        others = f"; {around.others} ask for other queues" if around.others else ""
        return "no_worker", f"no worker asks for jobs of {row.queue}{others}"
    if limits.concurrency and around.running >= limits.concurrency:
        return "concurrency", (
            f"{around.running} jobs of {row.queue} run, and no more than {limits.concurrency} may"
        )
    if row.fair_key and limits.key_concurrency and around.running_of_key >= limits.key_concurrency:
        return "concurrency", (
            f"{around.running_of_key} jobs of {row.queue} for {row.fair_key} run, and no more than "
            f"{limits.key_concurrency} may"
        )
    return None


def _waiting(row: Row, around: Around) -> tuple[str, str]:
    limits = around.limits
    of_key = bool(row.fair_key and limits.key_rate)
    rate = min(
        (one for one in (limits.rate, limits.key_rate if of_key else 0.0) if one), default=0.0
    )
    ahead = _ahead(around.ahead)
    if rate:
        whose = f" for {row.fair_key}" if rate == limits.key_rate and of_key else ""
        least = _long(round((around.ahead + 1) / rate * 1000))
        return "rate", (
            f"jobs of {row.queue}{whose} are let out at {rate:g} a second; {ahead}, so that its "
            f"turn comes in about {least}"
        )
    return "waiting", f"{ahead}; {_bound(row, limits)}"


def _ahead(ahead: int) -> str:
    if not ahead:
        return "it is the next of its kind"
    if ahead >= AHEAD:
        return f"{AHEAD} jobs or more rank before it"
    return "one job ranks before it" if ahead == 1 else f"{ahead} jobs rank before it"


def _bound(row: Row, limits: QueueLimits) -> str:
    if limits.strict and row.priority:
        return "as long as more urgent work comes, it waits: priority is strict"
    bound = row.priority * limits.aging
    if not bound:
        return "nothing that comes later overtakes it"
    return f"urgent work that comes later can overtake it for {_long(bound)} at most"


def _long(milliseconds: int) -> str:
    seconds = max(0, milliseconds) / 1000.0
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
