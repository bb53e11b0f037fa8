"""Looking into the SQLite queue."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from atlasd.contracts.queue import DeadGroup, Filter, JobState, QueueCount, Row
from atlasd_plugins.queue_sqlite import sql
from atlasd_plugins.queue_sqlite.board import Board
from atlasd_plugins.queue_sqlite.round import Round


def row(turn: Round, job: int) -> Row | None:
    """One job."""
    found = turn.connection.execute(sql.BY_ID, (job,)).fetchone()
    return None if found is None else _row(found, turn)


def select(turn: Round, which: Filter, limit: int) -> Sequence[Row]:
    """The jobs that a filter means, by id."""
    where, values = _where(which)
    statement = f"{sql.ROW} WHERE {where} ORDER BY j.id LIMIT ?"
    found = turn.looked().execute(statement, (*values, limit))
    return [_row(one, turn) for one in found]


def dead(connection: sqlite3.Connection, limit: int) -> Sequence[DeadGroup]:
    """Groups of dead jobs."""
    groups = []
    for print_, queue, kind, reason, errors, count, first, last in connection.execute(
        sql.DEAD_GROUPS, (limit,)
    ):
        known = json.loads(errors)[-1] if errors else {"error": "", "message": ""}
        said = f"{known['error']}: {known['message']}" if known["message"] else known["error"]
        groups.append(DeadGroup(print_, queue, kind, reason, said, count, first, last))
    return groups


def ahead(connection: sqlite3.Connection, job: int, limit: int) -> int:
    """Available jobs of its lane that rank before a job; at most `limit`."""
    (count,) = connection.execute(sql.AHEAD, (job, limit)).fetchone()
    assert isinstance(count, int)
    return count


def counts(connection: sqlite3.Connection, board: Board) -> Sequence[QueueCount]:
    """How many jobs of each queue are in each state."""
    return [
        QueueCount(
            queue,
            state,
            count,
            _oldest(connection, board, queue) if state is JobState.AVAILABLE else 0,
        )
        for (queue, state), count in sorted(board.counts.items())
        if count
    ]


def _oldest(connection: sqlite3.Connection, board: Board, queue: str) -> int:
    """`run_at` of the available job of a queue that has waited longest."""
    moments = []
    for lane in board.active.get(queue, {}).values():
        found = connection.execute(
            "SELECT run_at FROM jobs WHERE lane = ? AND state = 'available'"
            " ORDER BY rank_at, id LIMIT 1",
            (lane.id,),
        ).fetchone()
        if found is not None:
            moments.append(found[0])
    return min(moments, default=0)


def _where(which: Filter) -> tuple[str, list[Any]]:
    clauses: list[str] = ["j.id > ?"]
    values: list[Any] = [which.after]
    plain: tuple[tuple[str, Any], ...] = (
        ("l.queue = ?", which.queue),
        ("s.kind = ?", which.kind),
        ("l.fair_key = ?", which.fair_key),
        ("l.target = ?", which.target),
        ("n.fingerprint = ?", which.fingerprint),
        ("j.finalized_at >= ?", which.finalized_since),
        ("j.finalized_at < ?", which.finalized_before),
    )
    for clause, value in plain:
        if value:
            clauses.append(clause)
            values.append(value)
    if which.ids:
        clauses.append("j.id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(which.ids))
    if which.states:
        clauses.append(f"j.state IN ({', '.join('?' * len(which.states))})")
        values += [state.value for state in which.states]
    if which.tag:
        clauses.append(
            "p.options != '' AND EXISTS (SELECT 1 FROM json_each(p.options, '$.tags')"
            " WHERE value = ?)"
        )
        values.append(which.tag)
    return " AND ".join(clauses), values


def _row(found: tuple[Any, ...], turn: Round) -> Row:
    known = Row._make(found)
    state = JobState(known.state)
    lease = turn.board.leases.get(known.id) if state is JobState.RUNNING else None
    if lease is None:
        # Of a job that has ended it says nothing any more.
        return known._replace(state=state, cancel_requested=False)
    return known._replace(
        state=state,
        worker=lease.worker,
        lease_until=turn.now + int(lease.until - turn.mono),
        cancel_requested=lease.cancel,
    )
