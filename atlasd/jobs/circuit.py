"""Circuit breakers of targets: when they open, for how long, and what closes them; pure.

States and defaults after resilience4j and Polly: a sliding window of time buckets while closed, a
growing open time, a count of probes while half open. A bucket is named by its moment, so nothing
has to be reset, and every change of state begins a new epoch: what started in an older one says
nothing about the present.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from atlasd.contracts.queue import BreakerRow

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
FORCED_OPEN, DISABLED, METRICS_ONLY = "forced_open", "disabled", "metrics_only"
STATES = (CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, DISABLED, METRICS_ONLY)

BUCKET = 6_000
"""Milliseconds of a bucket; the window has ten."""
BUCKETS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitPolicy:
    """When a breaker opens and closes; times in milliseconds."""

    minimum_calls: int = 20
    failure_ratio: float = 0.5
    slow_after: int = 0
    """A call that takes longer is slow; 0: none is."""
    slow_ratio: float = 0.8
    open_for: int = 15_000
    open_cap: int = 600_000
    """Each trip in a row doubles the open time up to this."""
    probes: int = 1
    """Calls at once while half open."""
    successes: int = 3
    """Probes in a row that close it."""


def is_shut(row: BreakerRow) -> bool:
    """Whether no job of the target may be claimed."""
    return row.state in (OPEN, FORCED_OPEN)


def tick(row: BreakerRow, now: int) -> BreakerRow:
    """The breaker at this moment: one that has been open long enough is half open.

    One that opened in what is now the future saw the clock go back: its time begins now.
    """
    if row.state == OPEN and now < row.changed_at:
        rest = row.open_until - row.changed_at
        return row._replace(changed_at=now, open_until=now + rest)
    if row.state == OPEN and now >= row.open_until:
        return _move(row, HALF_OPEN, now)._replace(successes=0)
    return row


def after(
    row: BreakerRow, results: Sequence[tuple[bool, int, int]], now: int, policy: CircuitPolicy
) -> BreakerRow:
    """The breaker after results, each (failed, milliseconds that it took, epoch at its claim)."""
    for failed, took, epoch in results:
        if row.state in (FORCED_OPEN, DISABLED) or (
            epoch != row.epoch and row.state != METRICS_ONLY
        ):
            continue
        if row.state == HALF_OPEN:
            row = _probed(row, failed, now, policy)
        else:
            row = _counted(row, failed, bool(policy.slow_after) and took > policy.slow_after, now)
            if row.state == CLOSED and _is_bad(row, policy):
                row = _trip(row, now, policy)
    return row


def lengthen(row: BreakerRow, until: int) -> BreakerRow:
    """An open breaker whose target asked to be left alone until then."""
    return row._replace(open_until=max(row.open_until, until)) if row.state == OPEN else row


def _probed(row: BreakerRow, failed: bool, now: int, policy: CircuitPolicy) -> BreakerRow:  # noqa: FBT001
    if failed:
        return _trip(row, now, policy)
    row = row._replace(successes=row.successes + 1)
    if row.successes >= policy.successes:
        return _move(row, CLOSED, now)._replace(trips=0, buckets="{}")
    return row


def _counted(row: BreakerRow, failed: bool, slow: bool, now: int) -> BreakerRow:  # noqa: FBT001
    bucket = now // BUCKET
    buckets = {
        name: counts
        for name, counts in json.loads(row.buckets).items()
        if bucket - BUCKETS < int(name) <= bucket
    }
    calls, failures, slows = buckets.get(str(bucket), (0, 0, 0))
    buckets[str(bucket)] = [calls + 1, failures + failed, slows + slow]
    return row._replace(buckets=json.dumps(buckets, separators=(",", ":")))


def _is_bad(row: BreakerRow, policy: CircuitPolicy) -> bool:
    calls, failures, slows = map(sum, zip(*json.loads(row.buckets).values(), strict=True))
    return calls >= policy.minimum_calls and (
        failures >= policy.failure_ratio * calls
        or bool(policy.slow_after and slows >= policy.slow_ratio * calls)
    )


def _trip(row: BreakerRow, now: int, policy: CircuitPolicy) -> BreakerRow:
    rest = min(policy.open_for * 2 ** min(row.trips, 30), policy.open_cap)
    # Chance within ±10 %, but the same wherever it is computed.
    chance = zlib.crc32(f"{row.target}/{row.epoch}".encode()) / 2**32
    until = now + round(rest * (0.9 + 0.2 * chance))
    return _move(row, OPEN, now)._replace(trips=row.trips + 1, open_until=until, buckets="{}")


def _move(row: BreakerRow, state: str, now: int) -> BreakerRow:
    return row._replace(state=state, epoch=row.epoch + 1, changed_at=now)
