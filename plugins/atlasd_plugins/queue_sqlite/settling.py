"""What becomes of jobs that are held: finished, failed, given back, lost; and their leases."""

from collections.abc import Sequence

from atlasd.contracts.queue import (
    JOB_FINAL,
    Extended,
    Failure,
    Finish,
    Held,
    JobState,
    Release,
    Row,
    Settlement,
    Transition,
)
from atlasd_plugins.queue_sqlite import breaking, query, sql
from atlasd_plugins.queue_sqlite.round import Round


def settle(turn: Round, one: Settlement) -> bool:
    """Settle one job; whether its lease still held."""
    board = turn.board
    if not board.holds(one.id, one.token):
        return False
    if isinstance(one, Finish):
        lease, lane = board.let_go(one.id)
        turn.finished.append(one.id)
        if one.result:
            turn.results.append((one.result, one.id))
        board.move(lane, JobState.RUNNING, JobState.COMPLETED)
        if lane.target:
            breaking.hear(turn, lane.target, failed=False, took=one.took, epoch=lease.epoch)
        if one.then:
            turn.enqueuing.add(one.then, turn.rules, bounded=False)
    elif isinstance(one, Failure):
        lease, lane = board.let_go(one.id)
        row = query.row(turn.connection, one.id)
        assert row is not None
        _leave(turn, row, turn.rules.failed(row, one, turn.now))
        if lane.target and one.verdict == "target":
            breaking.hear(turn, lane.target, failed=True, took=one.took, epoch=lease.epoch)
    else:
        _release(turn, one)
    return True


def _release(turn: Round, one: Release) -> None:
    board = turn.board
    row = query.row(turn.connection, one.id)
    assert row is not None
    _, lane = board.let_go(one.id)
    state = JobState.SCHEDULED if one.delay else JobState.AVAILABLE
    run_at = turn.now + one.delay if one.delay else row.run_at
    rank = turn.rules.rank(row.queue, row.priority, run_at)
    turn.write().execute(sql.RELEASE, (state.value, run_at, rank, one.id))
    board.move(lane, JobState.RUNNING, state, head=rank)


def _leave(turn: Round, row: Row, to: Transition) -> None:
    """Write what the rules decided for a job that is held no longer."""
    final = to.state in JOB_FINAL
    run_at = to.run_at or row.run_at
    rank = turn.rules.rank(row.queue, row.priority, run_at)
    turn.write().execute(
        sql.LEAVE,
        (
            to.state.value,
            run_at,
            rank,
            turn.now if final else None,
            to.reason,
            to.errors or row.errors,
            to.fingerprint or row.fingerprint,
            int(to.lost),
            int(to.attempt_back),
            not final,
            row.id,
        ),
    )
    lane = turn.board.by_key[row.queue, row.fair_key, row.target]
    turn.board.move(lane, JobState.RUNNING, to.state, head=rank)


def extend(turn: Round, worker: str, held: Sequence[Held], lease: int) -> Extended:
    """Prolong leases. Only progress is written: leases are kept in memory.

    After a crash of this process every lease starts anew, so a stored end would mean nothing.
    """
    lost, cancel, reports = [], [], []
    for one in held:
        known = turn.board.leases.get(one.id)
        if known is None or known.token != one.token:
            lost.append(one.id)
            continue
        known.worker = worker
        known.until = turn.mono + lease
        if known.cancel:
            cancel.append(one.id)
        if one.progress:
            reports.append((one.progress, one.id))
    if reports:
        turn.write().executemany("UPDATE jobs SET progress = ? WHERE id = ?", reports)
    return Extended(lost=tuple(lost), cancel=tuple(cancel))


def lose(turn: Round, worker: str, ids: Sequence[int], why: str) -> int:
    """Take these jobs from a worker that is gone; how many it still held."""
    mine = [
        job
        for job in ids
        if (lease := turn.board.leases.get(job)) is not None and lease.worker == worker
    ]
    for job in mine:
        lost(turn, job, why)
    return len(mine)


def lost(turn: Round, job: int, why: str) -> None:
    """Take a running job from whoever holds it."""
    row = query.row(turn.connection, job)
    assert row is not None
    turn.board.let_go(job)
    if row.cancel_requested:
        to = Transition(state=JobState.CANCELLED, reason="user", lost=True)
    else:
        to = turn.rules.lost(row, turn.now, why=why)
    _leave(turn, row, to)
