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
        (turn.finished if lease.plain else turn.finished_unique).append(one.id)
        if one.result:
            turn.results.append((one.id, one.result))
        if lease.cancel:
            turn.write().execute(sql.FORGET_CANCEL, (one.id,))
        board.move(lane, JobState.RUNNING, JobState.COMPLETED)
        if lane.target:
            breaking.hear(turn, lane.target, failed=False, took=one.took, epoch=lease.epoch)
        if one.then:
            turn.enqueuing.add(one.then, turn.rules, bounded=False)
    elif isinstance(one, Failure):
        lease, lane = board.let_go(one.id)
        row = _row(turn, one.id)
        _leave(turn, row, turn.rules.failed(row, one, turn.now))
        if lane.target and one.verdict == "target":
            breaking.hear(turn, lane.target, failed=True, took=one.took, epoch=lease.epoch)
    else:
        _release(turn, one)
    return True


def _release(turn: Round, one: Release) -> None:
    board = turn.board
    row = _row(turn, one.id)
    lease, lane = board.let_go(one.id)
    if lease.cancel:
        # Nobody runs it any longer, which is what was asked for.
        to = Transition(state=JobState.CANCELLED, reason="user", attempt_back=True)
        _leave(turn, row, to)
        return
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
            int(to.lost),
            int(to.attempt_back),
            not final,
            row.id,
        ),
    )
    errors, print_ = to.errors or row.errors, to.fingerprint or row.fingerprint
    turn.write().execute(sql.NOTE_FAILURE, (row.id, to.reason, errors, print_))
    lane = turn.board.by_key[row.queue, row.fair_key, row.target]
    turn.board.move(lane, JobState.RUNNING, to.state, head=rank)


def _row(turn: Round, job: int) -> Row:
    found = query.row(turn, job)
    assert found is not None  # it is leased, so it is there
    return found


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
            reports.append((one.id, one.progress))
    if reports:
        turn.write().executemany(sql.NOTE_PROGRESS, reports)
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
    row = _row(turn, job)
    turn.board.let_go(job)
    _leave(turn, row, turn.rules.lost(row, turn.now, why=why))
