"""What operators and schedules do to the PostgreSQL queue, each in a transaction of its own."""

import json
from collections.abc import Sequence

from atlasd.contracts.queue import BreakerRow, Filter, JobState, Rules, SlotClaim
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.enqueuing import Enqueuing
from atlasd_plugins.queue_postgres.lanes import Lanes, Numbers
from atlasd_plugins.queue_postgres.leaving import lost
from atlasd_plugins.queue_postgres.link import Transaction
from atlasd_plugins.queue_postgres.query import row_of, selecting
from atlasd_plugins.queue_postgres.settling import FINAL, keeping

LOCK = "FOR UPDATE OF j"


async def lose(turn: Transaction, rules: Rules, worker: str, ids: Sequence[int], why: str) -> int:
    """See `QueueStore.lose`."""
    found, clock = await turn.ask((sql.HELD_BY, (sql.array(list(ids)), worker)), (sql.NOW, ()))
    rows = [row_of(one) for one in found]
    await lost(turn, rules, rows, clock[0][0], why=why)
    return len(rows)


async def cancel(turn: Transaction, which: Filter, reason: str, limit: int) -> int:
    """See `QueueStore.cancel`."""
    found, clock = await turn.ask(selecting(which, limit, lock=LOCK), (sql.NOW, ()))
    rows = [row_of(one) for one in found]
    waiting = [r.id for r in rows if r.state in (JobState.SCHEDULED, JobState.AVAILABLE)]
    running = [row.id for row in rows if row.state is JobState.RUNNING]
    if waiting:
        await turn.rows(sql.END, str(clock[0][0]), reason, sql.array(waiting))
    if running:
        await turn.rows(sql.ASK_CANCEL, sql.array(running))
    return len(waiting) + len(running)


async def requeue(
    turn: Transaction, rules: Rules, which: Filter, args: str, limit: int
) -> Sequence[int]:
    """See `QueueStore.requeue`."""
    found, clock = await turn.ask(selecting(which, limit, lock=LOCK), (sql.NOW, ()))
    now = clock[0][0]
    rows = [row for row in map(row_of, found) if row.state in FINAL]
    again = [[row.id, now, rules.rank(row.queue, row.priority, now), args or None] for row in rows]
    if again:
        await turn.rows(sql.REQUEUE, json.dumps(again))
    return [row.id for row in rows]


async def purge(turn: Transaction, which: Filter, limit: int) -> int:
    """See `QueueStore.purge`."""
    (found,) = await turn.ask(selecting(which, limit, lock=LOCK))
    ids = [row.id for row in map(row_of, found) if row.state is not JobState.RUNNING]
    if ids:
        await turn.rows(sql.DELETE, sql.array(ids))
    return len(ids)


async def set_breaker(turn: Transaction, target: str, state: str) -> BreakerRow:
    """See `QueueStore.set_breaker`."""
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


async def fire(
    turn: Transaction,
    claims: Sequence[SlotClaim],
    *,
    lanes: Lanes,
    numbers: Numbers,
    rules: Rules,
) -> Sequence[int]:
    """See `QueueStore.fire`: who inserts the slot enqueues the job, in the same transaction."""
    ((now,),) = await turn.rows(sql.NOW)
    await numbers.reserve(turn.ask, len(claims))
    enqueuing = Enqueuing(lanes, numbers, rules)
    fired = dict.fromkeys(range(len(claims)), 0)
    # In order, so that two hosts that fire the same slots do not wait for each other in turn.
    for index in sorted(fired, key=lambda i: (claims[i].schedule, claims[i].slot)):
        claim = claims[index]
        if not await turn.rows(sql.TAKE_SLOT, claim.schedule, str(claim.slot)):
            continue
        (job,) = await enqueuing.add(turn, (claim.job,), now)
        fired[index] = job.id
        await turn.rows(sql.NAME_SLOT, claim.schedule, str(claim.slot), str(job.id))
    await enqueuing.write(turn, now)
    await turn.ask(*enqueuing.rest(now))
    return list(fired.values())

