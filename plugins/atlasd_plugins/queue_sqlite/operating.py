"""What operators do with jobs and queues."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from atlasd.contracts.queue import JOB_FINAL, Filter, JobState, Row
from atlasd_plugins.queue_sqlite import maintenance, query, sql
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
