"""Claims: the lanes that have jobs, whose turn it is by the rules, and the rows that are taken."""

import json

from atlasd.contracts.queue import UNTIL_CLAIMED, ClaimAsk, Claimed, JobState, Lane
from atlasd_plugins.queue_sqlite import breaking, sql
from atlasd_plugins.queue_sqlite.board import Lease
from atlasd_plugins.queue_sqlite.round import Round


def claim(turn: Round, ask: ClaimAsk) -> tuple[list[Claimed], int]:
    """The jobs that a worker is given; and when to ask again when there are none, 0: unknown."""
    board = turn.board
    lanes = board.with_jobs(ask.queues)
    if not lanes:
        return [], 0
    for lane in lanes:
        breaker = board.breakers.get(lane.target) if lane.target else None
        if breaker is not None:
            breaking.keep(turn, breaker, turn.rules.tick(breaker, turn.now))
        if not lane.head and len(lanes) > 1:
            (lane.head,) = turn.connection.execute(sql.HEAD, (lane.id,)).fetchone()
    rates = dict(board.turns.rates)
    picks, wake = turn.rules.pick(
        lanes,
        ask.limit,
        turn.now,
        paused=board.paused,
        breakers=board.breakers,
        running=board.running,
        turns=board.turns,
    )
    if board.turns.rates != rates:
        turn.write().executemany(
            "INSERT OR REPLACE INTO turns VALUES (?, ?)",
            [(k, v) for k, v in board.turns.rates.items() if rates.get(k) != v],
        )
    found: list[tuple[int, Claimed]] = []
    for pick in picks:
        _take(turn, ask, board.lanes[pick.lane], pick.jobs, found)
    # Within a lane they come in order; among lanes of equal turn the rank decides.
    if len(picks) > 1:
        found.sort(key=lambda one: one[0])
    return [job for _, job in found], wake


def _take(
    turn: Round, ask: ClaimAsk, lane: Lane, count: int, found: list[tuple[int, Claimed]]
) -> None:
    board = turn.board
    until = turn.now + ask.lease
    mono = turn.mono + ask.lease
    breaker = board.breakers.get(lane.target) if lane.target else None
    epoch = breaker.epoch if breaker is not None else 0
    rows = turn.connection.execute(sql.HEADS, (lane.id, turn.now, count + 1)).fetchall()
    next_rank = rows.pop()[1] if len(rows) > count else 0
    queue, fair_key, target, worker = lane.queue, lane.fair_key, lane.target, ask.worker
    specs, leases = board.specs, board.leases
    ids, freed = [], False
    for (
        job, rank, spec, token, attempt, run_at, lost, expires, plain, unique_until, created, args,
        options,
    ) in rows:  # fmt: skip
        kind, priority, most = specs[spec]
        token += 1  # noqa: PLW2901  the row has what was before the claim
        found.append(
            (
                rank,
                Claimed(
                    job, token, attempt + 1, until, queue, kind, args, priority, run_at,
                    created, most, lost, expires or 0, fair_key, target, options,
                ),
            )
        )  # fmt: skip
        if unique_until == UNTIL_CLAIMED:
            plain = freed = True  # noqa: PLW2901
        leases[job] = Lease(token, worker, lane, mono, epoch, plain)
        ids.append(job)
    board.begin(lane, len(ids))
    text = json.dumps(ids)
    turn.write().execute(sql.CLAIM, (text,))
    if freed:
        turn.write().execute(sql.FREE_AT_CLAIM, (text,))
    board.move(lane, JobState.AVAILABLE, JobState.RUNNING, len(ids))
    lane.head = next_rank
