"""What operators do with jobs and queues of PostgreSQL, each in a transaction of its own."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from atlasd.contracts.queue import JOB_FINAL, BreakerRow, Filter, JobState, Row, Rules
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.flight import IDEMPOTENCY
from atlasd_plugins.queue_postgres.lanes import Lanes, Numbers
from atlasd_plugins.queue_postgres.leaving import lost
from atlasd_plugins.queue_postgres.link import Transaction
from atlasd_plugins.queue_postgres.query import row_of, selecting
from atlasd_plugins.queue_postgres.settling import keeping

JOB_OPEN = frozenset(JobState) - JOB_FINAL
JOB_IDLE = frozenset(JobState) - {JobState.RUNNING}


async def lose(turn: Transaction, rules: Rules, worker: str, ids: Sequence[int], why: str) -> int:
    """Take these jobs from a worker that is gone; how many it still held."""
    found, clock = await turn.ask((sql.HELD_BY, (sql.array(list(ids)), worker)), (sql.NOW, ()))
    rows = [row_of(one) for one in found]
    await lost(turn, rules, rows, clock[0][0], why=why)
    return len(rows)


async def cancel(turn: Transaction, which: Filter, reason: str, limit: int) -> int:
    """Cancel jobs that wait, and ask running ones to end; how many."""
    rows, now = await _those(turn, which, JOB_OPEN, limit)
    waiting = [row.id for row in rows if row.state is not JobState.RUNNING]
    running = [row.id for row in rows if row.state is JobState.RUNNING]
    if waiting:
        await turn.rows(sql.END, str(now), reason, sql.array(waiting))
    if running:
        await turn.rows(sql.ASK_CANCEL, sql.array(running))
    return len(rows)


async def requeue(
    turn: Transaction, rules: Rules, which: Filter, args: str, limit: int
) -> Sequence[int]:
    """Make final jobs available again; their ids."""
    rows, now = await _those(turn, which, JOB_FINAL, limit)
    again = [[row.id, now, rules.rank(row.queue, row.priority, now), args or None] for row in rows]
    if again:
        await turn.rows(sql.REQUEUE, json.dumps(again))
    return [row.id for row in rows]


async def purge(turn: Transaction, which: Filter, limit: int) -> int:
    """Delete jobs that do not run; how many."""
    rows, _ = await _those(turn, which, JOB_IDLE, limit)
    if rows:
        await turn.rows(sql.DELETE, sql.array([row.id for row in rows]))
    return len(rows)


async def _those(
    turn: Transaction, which: Filter, able: Collection[JobState], limit: int
) -> tuple[Sequence[Row], int]:
    """The jobs that are meant and that it can be done to, locked; and the moment."""
    states = tuple(state for state in which.states or able if state in able)
    if not states:
        return (), 0
    found, clock = await turn.ask(
        selecting(replace(which, states=states), limit, lock="FOR UPDATE OF j"), (sql.NOW, ())
    )
    return [row_of(one) for one in found], clock[0][0]


async def restore(
    turn: Transaction, rows: Sequence[Row], *, lanes: Lanes, numbers: Numbers
) -> Sequence[int]:
    """Take in final jobs from elsewhere; their new ids, 0 for one that was taken in before."""
    keys = [row.unique_key for row in rows if row.unique_key]
    ((now,),) = await turn.rows(sql.NOW)
    known = {
        key for (key,) in await turn.rows(sql.KNOWN_KEYS, json.dumps(keys), str(now - IDEMPOTENCY))
    }
    await numbers.reserve(turn.ask, len(rows))
    ids, new, noted = [], [], []
    for row in rows:
        if row.unique_key in known:
            ids.append(0)
            continue
        (number,) = numbers.take(1)
        ids.append(number)
        lane = lanes.by_key[row.queue, row.fair_key, row.target].id
        new.append(
            [
                number, lane, row.state.value, row.rank_at, row.run_at, row.created_at,
                row.attempt, row.max_attempts, row.priority, row.token, row.lost_count,
                row.finalized_at, row.unique_key or None, row.unique_until, row.kind, row.args,
                row.options, row.reason, row.fingerprint, row.requeued_from, row.errors,
                row.progress, row.result,
            ]
        )  # fmt: skip
        if row.unique_key:
            known.add(row.unique_key)
            noted.append([row.unique_key, json.dumps([[number, row.state.value, "existing"]])])
    await turn.ask(
        (sql.RESTORE, (json.dumps(new),)), (sql.NOTE_KEYS, (json.dumps(noted), str(now)))
    )
    return ids


async def set_breaker(turn: Transaction, target: str, state: str) -> BreakerRow:
    """Put a breaker into a state; what was counted before is forgotten."""
    names = json.dumps([target])
    _, rows, clock = await turn.ask(
        (sql.ADD_BREAKERS, (names,)), (sql.LOCK_BREAKERS, (names,)), (sql.NOW, ())
    )
    before = BreakerRow._make(rows[0])
    after = before._replace(
        state=state, epoch=before.epoch + 1, trips=0, successes=0, open_until=0,
        buckets="{}", changed_at=clock[0][0],
    )  # fmt: skip
    await turn.ask(keeping(before.epoch, after))
    return after
