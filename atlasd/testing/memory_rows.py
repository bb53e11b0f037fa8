"""What the queue store in memory keeps, and how it is looked at."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from atlasd.contracts.queue import (
    BreakerRow,
    DeadGroup,
    Enqueued,
    Filter,
    JobState,
    Lane,
    QueueCount,
    Row,
    Turns,
)
from atlasd.testing.memory_schedules import Ledger

LaneKey = tuple[str, str, str]
Rows = Mapping[int, Row]


class Lease(NamedTuple):
    """What is known of a running job beside its row."""

    until: float
    """Milliseconds on the monotonic clock."""
    epoch: int
    """Of its target's breaker when it was claimed."""


@dataclass
class Kept:
    """What a store keeps from one opening to the next."""

    rows: dict[int, Row] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    lanes: dict[LaneKey, Lane] = field(default_factory=dict)
    breakers: dict[str, BreakerRow] = field(default_factory=dict)
    answers: dict[str, tuple[int, Sequence[Enqueued]]] = field(default_factory=dict)
    """When an idempotency key was used, and what the answer was."""
    ledger: Ledger = field(default_factory=Ledger)
    paused: frozenset[str] = frozenset()
    turns: Turns = field(default_factory=Turns)
    last_id: int = 0


def those(rows: Rows, which: Filter, able: Collection[JobState]) -> list[Row]:
    """The jobs that a filter means and that are in one of these states, by id."""
    return [row for row in rows.values() if row.state in able and _fits(row, which)]


def ahead(rows: Rows, job: int) -> int:
    """How many jobs of the same lane rank before one."""
    mine = rows.get(job)
    if mine is None:
        return 0
    return sum(
        row.state is JobState.AVAILABLE
        and (row.queue, row.fair_key, row.target) == (mine.queue, mine.fair_key, mine.target)
        and (row.rank_at, row.id) < (mine.rank_at, mine.id)
        for row in rows.values()
    )


def counts(rows: Rows) -> Sequence[QueueCount]:
    """How many jobs of each queue are in each state."""
    lines: dict[tuple[str, JobState], list[Row]] = {}
    for row in rows.values():
        lines.setdefault((row.queue, row.state), []).append(row)
    return [
        QueueCount(
            queue,
            state,
            len(line),
            min(row.run_at for row in line) if state is JobState.AVAILABLE else 0,
        )
        for (queue, state), line in sorted(lines.items())
    ]


def dead_groups(rows: Rows) -> Sequence[DeadGroup]:
    """Dead jobs by how they died, the largest group first."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in those(rows, Filter(), {JobState.DEAD}):
        key = (row.fingerprint, row.queue, row.kind, row.reason)
        groups.setdefault(key, []).append(row)
    found = []
    for key, line in groups.items():
        ends = [row.finalized_at for row in line]
        found.append(DeadGroup(*key, _said(line[-1]), len(line), min(ends), max(ends)))
    return sorted(found, key=lambda one: (-one.jobs, one.fingerprint))


def _fits(row: Row, which: Filter) -> bool:
    return (
        row.id > which.after
        and (not which.ids or row.id in which.ids)
        and (not which.states or row.state in which.states)
        and which.queue in ("", row.queue)
        and which.kind in ("", row.kind)
        and which.fair_key in ("", row.fair_key)
        and which.target in ("", row.target)
        and which.fingerprint in ("", row.fingerprint)
        and (not which.finalized_since or row.finalized_at >= which.finalized_since)
        and (not which.finalized_before or 0 < row.finalized_at < which.finalized_before)
        and (not which.tag or which.tag in json.loads(row.options or "{}").get("tags", ()))
    )


def _said(row: Row) -> str:
    """Type and message of a job's last failure."""
    last = json.loads(row.errors)[-1] if row.errors else {"error": "", "message": ""}
    return f"{last['error']}: {last['message']}" if last["message"] else str(last["error"])
