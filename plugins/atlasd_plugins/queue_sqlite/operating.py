"""What operators do with jobs and queues."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from atlasd.contracts.queue import JOB_FINAL, Filter, JobState, NewJob, Row
from atlasd_plugins.queue_sqlite import maintenance, query, sql
from atlasd_plugins.queue_sqlite.enqueuing import IDEMPOTENCY
from atlasd_plugins.queue_sqlite.round import Round

JOB_OPEN = frozenset(JobState) - JOB_FINAL
JOB_IDLE = frozenset(JobState) - {JobState.RUNNING}


def cancel(turn: Round, which: Filter, reason: str, limit: int) -> int:
    """Cancel jobs that wait, and ask running ones to end; how many."""
    rows = _those(turn, which, JOB_OPEN, limit)
    waiting = [
        (row.id, turn.board.by_key[row.queue, row.fair_key, row.target].id, row.state)
        for row in rows
        if row.state in (JobState.SCHEDULED, JobState.AVAILABLE)
    ]
    if waiting:
        maintenance.end(turn, waiting, reason)
    running = [row.id for row in rows if row.state is JobState.RUNNING]
    for job in running:
        turn.board.leases[job].cancel = True
    if running:
        turn.write().execute(sql.ASK_CANCEL, (json.dumps(running),))
    return len(waiting) + len(running)


def requeue(turn: Round, which: Filter, args: str, limit: int) -> Sequence[int]:
    """Make final jobs available again; their ids."""
    done = []
    for row in _those(turn, which, JOB_FINAL, limit):
        rank = turn.rules.rank(row.queue, row.priority, turn.now)
        turn.write().execute(sql.REQUEUE, (turn.now, rank, row.id))
        turn.write().execute(sql.NOTE_REQUEUE, (row.id, row.state.value))
        if args:
            turn.write().execute(sql.NEW_ARGS, (args, row.id))
        lane = turn.board.by_key[row.queue, row.fair_key, row.target]
        turn.board.move(lane, row.state, JobState.AVAILABLE, head=rank)
        done.append(row.id)
    return done


def edit(turn: Round, job: int, args: str) -> bool:
    """Give a dead job other arguments; whether it is dead."""
    turn.flush()
    return turn.write().execute(sql.EDIT, (args, job)).rowcount > 0


def restore(turn: Round, rows: Sequence[Row]) -> Sequence[int]:
    """Take in final jobs from elsewhere; their new ids, 0 for one that was taken in before."""
    turn.flush()
    return [_restore(turn, row) for row in rows]


def _restore(turn: Round, row: Row) -> int:
    connection, board = turn.write(), turn.board
    if row.unique_key:
        known = connection.execute(
            sql.KNOWN_KEY, (row.unique_key, row.unique_key, turn.now - IDEMPOTENCY)
        ).fetchone()
        if known is not None:
            return 0
    job = NewJob(
        row.queue, row.kind, row.args, priority=row.priority, max_attempts=row.max_attempts,
        fair_key=row.fair_key, target=row.target,
    )  # fmt: skip
    lane, spec = board.lane_of(job, connection), board.spec_of(job, connection)
    number = board.next_id
    board.next_id = number + 1
    connection.execute(
        sql.RESTORE,
        (
            number, lane.id, spec, row.state.value, row.rank_at, row.run_at, row.attempt, row.token,
            row.lost_count, row.finalized_at, row.unique_key or None, row.unique_until,
        ),
    )  # fmt: skip
    connection.execute(
        f"{sql.INSERT_PAYLOAD} (?, ?, ?, ?)", (number, row.created_at, row.args, row.options)
    )
    connection.execute(
        sql.RESTORE_NOTES,
        (
            number, row.reason, row.fingerprint, row.requeued_from, row.errors, row.progress,
            row.result,
        ),
    )  # fmt: skip
    if row.unique_key:
        answer = json.dumps([(number, row.state.value, "existing")])
        connection.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?)",
            (row.unique_key, answer, turn.now),
        )
    board.move(lane, None, row.state)
    return number


def purge(turn: Round, which: Filter, limit: int) -> int:
    """Delete jobs that do not run; how many."""
    ids = [row.id for row in _those(turn, which, JOB_IDLE, limit)]
    if ids:
        maintenance.delete(turn, ids)
    return len(ids)


def pause(turn: Round, queue: str) -> None:
    """Have nothing more claimed from a queue."""
    turn.write().execute("INSERT OR IGNORE INTO paused VALUES (?)", (queue,))
    turn.board.paused |= {queue}


def resume(turn: Round, queue: str) -> None:
    """Have jobs claimed from it again."""
    turn.write().execute("DELETE FROM paused WHERE queue = ?", (queue,))
    turn.board.paused -= {queue}


def _those(turn: Round, which: Filter, able: Collection[JobState], limit: int) -> Sequence[Row]:
    """The jobs that are meant and that it can be done to: only they count for the limit."""
    states = tuple(state for state in which.states or able if state in able)
    return query.select(turn, replace(which, states=states), limit) if states else ()
