"""Schedules of the PostgreSQL queue: since when each holds, and what became of its slots.

Whoever claims a slot locks the schedule's row first, so that each slot is one host's.
"""

import json
from collections.abc import Mapping, Sequence

from atlasd.contracts.queue import HELD, WITHOUT_JOB, Rules, ScheduleRow, SlotClaim
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.enqueuing import Enqueuing
from atlasd_plugins.queue_postgres.lanes import Lanes, Numbers
from atlasd_plugins.queue_postgres.link import Rows, Statement, Transaction

REMEMBERED = 100
"""Slots of a schedule that are kept for people to see."""


async def fire(
    turn: Transaction,
    claims: Sequence[SlotClaim],
    *,
    lanes: Lanes,
    numbers: Numbers,
    rules: Rules,
) -> Sequence[int]:
    """Claim slots and enqueue their jobs; see `QueueStore.fire`."""
    names = sorted({claim.schedule for claim in claims})
    text = json.dumps(names)
    clock, _, rows = await turn.ask(
        (sql.NOW, ()), (sql.ADD_SCHEDULES, (text,)), (sql.LOCK_SCHEDULES, (text,))
    )
    now = clock[0][0]
    await numbers.reserve(turn.ask, len(claims))
    enqueuing = Enqueuing(lanes, numbers, rules)
    known = {name: (slot, held) for name, slot, held in rows}
    fired: list[int] = []
    notes: list[Statement] = []
    for claim in claims:
        name, slot = claim.schedule, claim.slot
        last, held = known[name]
        if slot and slot <= last and slot != held:
            fired.append(0)
            continue
        job = 0
        if claim.job is not None:
            (made,) = await enqueuing.add(turn, (claim.job,), now)
            job = made.id
        if slot:
            notes.append((sql.NOTE_SLOT, (name, str(slot), str(job), claim.reason)))
            if claim.reason == HELD:
                held = slot
            elif slot == held:
                held = 0
        notes.append((sql.NOTE_FIRING, (name, str(slot), str(job), str(held))))
        known[name] = (max(last, slot), held)
        fired.append(job or WITHOUT_JOB)
    await enqueuing.write(turn, now)
    old = [(sql.FORGET_SLOTS, (name, str(REMEMBERED - 1))) for name in names]
    await turn.commit(*enqueuing.rest(now), *notes, *old)
    return fired


async def keep(
    turn: Transaction, digests: Mapping[str, str], gone: Sequence[str]
) -> Sequence[ScheduleRow]:
    """Note which schedules there are; see `QueueStore.keep_schedules`."""
    names = json.dumps(sorted(gone))
    *_, rows = await turn.ask(
        (sql.FORGET_SCHEDULES, (names,)),
        (sql.FORGET_SLOTS_OF, (names,)),
        (sql.KEEP_SCHEDULES, (json.dumps(sorted(digests.items())),)),
        (sql.SCHEDULE_ROWS, ()),
    )
    return rows_of(rows)


def rows_of(rows: Rows) -> Sequence[ScheduleRow]:
    """Schedules, from the columns of `sql.SCHEDULE_ROWS`."""
    return [ScheduleRow._make(one) for one in rows]
