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
from atlasd_plugins.queue_sqlite.board import Lease
from atlasd_plugins.queue_sqlite.round import Round


def settle(turn: Round, settlements: Sequence[Settlement]) -> list[bool]:
    """Settle jobs; for each whether its lease still held."""
    board = turn.board
    leases, finished = board.leases, turn.finished
    done: dict[int, int] = {}
    held = []
    for one in settlements:
        lease = leases.get(one.id)
        if lease is None or lease.token != one.token:
            held.append(False)
            continue
        held.append(True)
        if isinstance(one, Finish):
            del leases[one.id]
            lane = lease.lane
            done[lane.id] = done.get(lane.id, 0) + 1
            if lease.plain and not one.result and not one.then and not lane.target:
                finished.append(one.id)
            else:
                _finish(turn, one, lease)
        else:
            _stop(turn, one, lease)
    for lane_id, count in done.items():
        lane = board.lanes[lane_id]
        board.begin(lane, -count)
        board.move(lane, JobState.RUNNING, JobState.COMPLETED, count)
    return held


def _finish(turn: Round, one: Finish, lease: Lease) -> None:
    """The job is done, and there is more to it than that."""
    (turn.finished if lease.plain else turn.finished_unique).append(one.id)
    if one.result:
        turn.results.append((one.id, one.result))
    if lease.lane.target:
        breaking.hear(turn, lease.lane.target, failed=False, took=one.took, epoch=lease.epoch)
    if one.then:
        turn.enqueuing.add(one.then, turn.rules, bounded=False)


def _stop(turn: Round, one: Failure | Release, lease: Lease) -> None:
    """The job has failed, or is given back."""
    if isinstance(one, Release):
        _release(turn, one)
        return
    row = _row(turn, one.id)
    turn.board.let_go(one.id)
    _leave(turn, row, turn.rules.failed(row, one, turn.now))
    if lease.lane.target and one.verdict == "target":
        breaking.hear(turn, lease.lane.target, failed=True, took=one.took, epoch=lease.epoch)


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
