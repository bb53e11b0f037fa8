"""What time does to jobs: they fall due, lose their worker, expire, are forgotten."""

import json
from collections.abc import Sequence

from atlasd.contracts.queue import JOB_FINAL, JobState, Maintained
from atlasd_plugins.queue_sqlite import settling, sql
from atlasd_plugins.queue_sqlite.enqueuing import IDEMPOTENCY
from atlasd_plugins.queue_sqlite.round import Round

PROOF = 65_536
"""Bytes that are written to see whether the store can be written again."""


def maintain(turn: Round, limit: int, *, prove: bool = False) -> Maintained:
    """One round of it; at most `limit` rows of each kind.

    With `prove` something is written even if nothing is due: whether that works is the question.
    """
    board = turn.board
    turn.flush()
    if prove:
        _prove(turn)
    promoted = _promote(turn, limit)
    late = [job for job, lease in board.leases.items() if lease.until <= turn.mono][:limit]
    for job in late:
        settling.lost(turn, job, "lease")
    expired = _expire(turn, limit)
    pruned = _prune(turn, limit)
    return Maintained(
        promoted=promoted,
        lost=len(late),
        expired=expired,
        pruned=pruned,
        next_due=_next_due(turn),
    )


def _prove(turn: Round) -> None:
    """Write as much as a large job: the last pages of a full disk still take something small."""
    # Under the key that no request can have, and old enough to be forgotten in a minute.
    turn.write().execute(
        "INSERT OR REPLACE INTO idempotency VALUES ('', ?, ?)",
        ("-" * PROOF, turn.now - IDEMPOTENCY + 60_000),
    )


def _promote(turn: Round, limit: int) -> int:
    (due,) = turn.connection.execute(sql.NEXT_DUE).fetchone()
    if due is None or due > turn.now:
        return 0
    promoted: dict[int, list[int]] = {}
    for lane_id, rank in turn.write().execute(sql.PROMOTE, (turn.now, limit)).fetchall():
        promoted.setdefault(lane_id, []).append(rank)
    board = turn.board
    for lane_id, ranks in promoted.items():
        lane = board.lanes[lane_id]
        board.move(lane, JobState.SCHEDULED, JobState.AVAILABLE, len(ranks), head=min(ranks))
    return sum(map(len, promoted.values()))


def _next_due(turn: Round) -> int:
    moments = [turn.now + int(lease.until - turn.mono) + 1 for lease in turn.board.leases.values()]
    moments += [
        moment
        for statement in (sql.NEXT_DUE, sql.NEXT_EXPIRY)
        for (moment,) in turn.connection.execute(statement)
        if moment is not None
    ]
    return min(moments, default=0)


def _expire(turn: Round, limit: int) -> int:
    rows = turn.connection.execute(sql.EXPIRED, (turn.now, limit)).fetchall()
    if rows:
        end(turn, [(job, lane, JobState(state)) for job, lane, state in rows], "expired")
    return len(rows)


def end(turn: Round, rows: Sequence[tuple[int, int, JobState]], reason: str) -> None:
    """Cancel jobs that wait, each given as (id, lane, state)."""
    ids = json.dumps([job for job, _, _ in rows])
    turn.write().execute(sql.END, (turn.now, ids))
    turn.write().execute(sql.NOTE_REASON, (reason, ids))
    for _, lane, state in rows:
        turn.board.move(turn.board.lanes[lane], state, JobState.CANCELLED)


def _prune(turn: Round, limit: int) -> int:
    """Forget final jobs that are old, and the oldest where there are too many."""
    left = limit
    for state in JOB_FINAL:
        aged: dict[int, list[str]] = {}
        for (queue, known), count in list(turn.board.counts.items()):
            if known is state and count:
                age, most = turn.rules.keep(state, queue)
                aged.setdefault(age, []).append(queue)
                left -= _forget(turn, state, turn.now, [queue], min(left, count - most))
        for age, queues in aged.items():
            left -= _forget(turn, state, turn.now - age, queues, left)
    if turn.begun:
        turn.write().execute(
            "DELETE FROM idempotency WHERE created_at <= ?", (turn.now - IDEMPOTENCY,)
        )
    return limit - left


def _forget(turn: Round, state: JobState, before: int, queues: Sequence[str], limit: int) -> int:
    if limit <= 0:
        return 0
    rows = turn.connection.execute(
        sql.OLD, (state.value, before, turn.now, json.dumps(queues), limit)
    ).fetchall()
    if rows:
        delete(turn, [job for (job,) in rows])
    return len(rows)


def delete(turn: Round, ids: Sequence[int]) -> None:
    """Forget jobs that nobody holds."""
    text = json.dumps(ids)
    connection = turn.write()
    for lane, state, count in connection.execute(
        "SELECT lane, state, count(*) FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
        " GROUP BY lane, state",
        (text,),
    ).fetchall():
        turn.board.move(turn.board.lanes[lane], JobState(state), None, count)
    for statement in sql.DELETE:
        connection.execute(statement, (text,))
    # An id is never given twice, even when the last one is gone.
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES ('last_id', ?)", (turn.board.next_id - 1,)
    )
