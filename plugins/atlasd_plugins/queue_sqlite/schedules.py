"""Schedules of the SQLite queue: since when each holds, and what became of its slots."""

from collections.abc import Mapping, Sequence

from atlasd.contracts.queue import HELD, WITHOUT_JOB, ScheduleRow, Slot, SlotClaim
from atlasd_plugins.queue_sqlite import sql
from atlasd_plugins.queue_sqlite.round import Round

REMEMBERED = 100
"""Slots of a schedule that are kept for people to see."""


def fire(turn: Round, claims: Sequence[SlotClaim]) -> Sequence[int]:
    """Claim slots and enqueue their jobs; see `QueueStore.fire`."""
    fired = [_claim(turn, claim) for claim in claims]
    for name in {claim.schedule for claim in claims}:
        turn.write().execute(sql.FORGET_SLOTS, (name, REMEMBERED - 1))
    return fired


def _claim(turn: Round, claim: SlotClaim) -> int:
    connection = turn.write()
    name, slot = claim.schedule, claim.slot
    last, held = connection.execute(sql.LAST_SLOT, (name,)).fetchone() or (0, 0)
    if slot and slot <= last and slot != held:
        return 0
    job = 0
    if claim.job is not None:
        (made,) = turn.enqueuing.add((claim.job,), turn.rules, bounded=False)
        job = made.id
    if slot:
        connection.execute(sql.NOTE_SLOT, (name, slot, job, claim.reason))
        if claim.reason == HELD:
            held = slot
        elif slot == held:
            held = 0
    connection.execute(sql.NOTE_FIRING, (name, slot, job, held))
    return job or WITHOUT_JOB


def keep(turn: Round, digests: Mapping[str, str], gone: Sequence[str]) -> Sequence[ScheduleRow]:
    """Note which schedules there are; see `QueueStore.keep_schedules`."""
    connection = turn.write()
    for name in gone:
        for statement in sql.FORGET_SCHEDULE:
            connection.execute(statement, (name,))
    connection.executemany(
        sql.KEEP_SCHEDULE, [(name, digest, turn.now) for name, digest in digests.items()]
    )
    return rows(turn)


def rows(turn: Round) -> Sequence[ScheduleRow]:
    """All that is remembered of schedules."""
    return [
        row._replace(paused=bool(row.paused))
        for row in map(ScheduleRow._make, turn.connection.execute(sql.SCHEDULE_ROWS))
    ]


def pause(turn: Round, schedule: str, *, paused: bool) -> None:
    """Have a schedule fire no more, or again."""
    turn.write().execute(sql.PAUSE_SCHEDULE, (schedule, paused, turn.now))


def slots(turn: Round, schedule: str, limit: int) -> Sequence[Slot]:
    """What became of its last slots."""
    return [Slot._make(one) for one in turn.connection.execute(sql.SLOTS, (schedule, limit))]
