"""Schedules in the SQLite queue: each slot once, and what outlives a restart."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.queue import HELD, WITHOUT_JOB, NewJob, QueueStore, Slot, SlotClaim
from atlasd.contracts.settings import NoSettings
from atlasd.jobs.rules import QueueRules
from atlasd.testing.context import PlainContext
from atlasd_plugins.queue_sqlite import connect, open_store, sql

REPORT = NewJob("reports", "report.make", "{}")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def queue(tmp_path: Path, clock: HandClock) -> AsyncIterator[QueueStore]:
    context = PlainContext(tmp_path, clock=clock)
    async with open_store(NoSettings(), context, QueueRules()) as store:
        yield store
    context.close()


async def test_a_slot_is_fired_once_and_only_forwards(queue: QueueStore) -> None:
    (job,) = await queue.fire([SlotClaim("nightly", 1000, REPORT)])
    row = await queue.get(job)
    assert row is not None
    assert (row.queue, row.kind) == ("reports", "report.make")
    again = [SlotClaim("nightly", slot, REPORT) for slot in (1000, 999, 2000)]
    taken, earlier, later = await queue.fire(again)
    assert (taken, earlier, later > job) == (0, 0, True)
    (kept,) = await queue.schedules()
    assert (kept.schedule, kept.slot, kept.job) == ("nightly", 2000, later)
    assert await queue.slots("nightly", 10) == [
        Slot("nightly", 2000, later, ""), Slot("nightly", 1000, job, ""),
    ]  # fmt: skip
    assert len(await queue.slots("nightly", 1)) == 1


async def test_a_slot_may_be_claimed_for_nothing(queue: QueueStore) -> None:
    (job, none) = await queue.fire(
        [SlotClaim("nightly", 1000, REPORT), SlotClaim("nightly", 2000, None, "overlap")]
    )
    assert none == WITHOUT_JOB
    assert await queue.fire([SlotClaim("nightly", 2000, REPORT)]) == [0]
    (kept,) = await queue.schedules()
    assert (kept.slot, kept.job) == (2000, job)
    assert (await queue.slots("nightly", 1))[0] == Slot("nightly", 2000, 0, "overlap")


async def test_a_held_slot_is_fired_once_though_others_came_after_it(queue: QueueStore) -> None:
    await queue.fire(
        [SlotClaim("nightly", 1000, None, HELD), SlotClaim("nightly", 2000, None, "overlap")]
    )
    (kept,) = await queue.schedules()
    assert (kept.slot, kept.held) == (2000, 1000)
    (job,) = await queue.fire([SlotClaim("nightly", 1000, REPORT)])
    assert await queue.fire([SlotClaim("nightly", 1000, REPORT)]) == [0]
    (kept,) = await queue.schedules()
    assert (kept.slot, kept.held, kept.job) == (2000, 0, job)
    assert (await queue.slots("nightly", 9))[-1] == Slot("nightly", 1000, job, "")


async def test_beside_the_plan_no_slot_is_taken(queue: QueueStore) -> None:
    first, second = await queue.fire([SlotClaim("nightly", 0, REPORT)] * 2)
    assert second > first
    (kept,) = await queue.schedules()
    assert (kept.slot, kept.job) == (0, second)
    assert await queue.slots("nightly", 10) == []


async def test_a_changed_plan_begins_now_and_an_equal_one_goes_on(
    queue: QueueStore, clock: HandClock
) -> None:
    start = await queue.now()
    (kept,) = await queue.keep_schedules({"nightly": "a"})
    assert (kept.digest, kept.since, kept.paused) == ("a", start, False)
    await queue.fire([SlotClaim("nightly", start + 1, None, HELD)])
    clock.wind(60.0)
    (kept,) = await queue.keep_schedules({"nightly": "a"})
    assert (kept.since, kept.held) == (start, start + 1)
    (kept,) = await queue.keep_schedules({"nightly": "b"})
    assert (kept.digest, kept.since, kept.held) == ("b", start + 60_000, 0)
    kept, other = await queue.keep_schedules({"other": "c"})
    assert (kept.schedule, other.schedule) == ("nightly", "other")
    (other,) = await queue.keep_schedules({"other": "c"}, gone=["nightly"])
    assert other.schedule == "other"
    assert await queue.slots("nightly", 10) == []


async def test_what_a_wrong_clock_claimed_is_no_bar_to_a_new_beginning(
    queue: QueueStore,
) -> None:
    now = await queue.now()
    for step, begin in enumerate(
        (
            lambda: queue.keep_schedules({"nightly": "b"}),
            lambda: queue.pause_schedule("nightly", paused=True),
            lambda: queue.pause_schedule("nightly", paused=False),
        )
    ):
        await queue.fire([SlotClaim("nightly", now + 10**10 + step, REPORT)])
        await begin()  # type: ignore[no-untyped-call]
        (kept,) = await queue.schedules()
        assert kept.slot == (now if step != 1 else now + 10**10 + step)


async def test_a_pause_outlives_the_store_and_owes_nothing(
    tmp_path: Path, clock: HandClock
) -> None:
    for step in range(3):
        context = PlainContext(tmp_path, clock=clock)
        async with open_store(NoSettings(), context, QueueRules()) as store:
            start = await store.now()
            (kept,) = await store.keep_schedules({"nightly": "a"})
            assert kept.paused is (step == 1)
            await store.pause_schedule("nightly", paused=step == 0)
            (kept,) = await store.schedules()
            assert kept.since == (start if step != 2 else start - 60_000)
            clock.wind(60.0)
        context.close()


async def test_the_slots_that_are_remembered_are_bounded(queue: QueueStore) -> None:
    for start in (1, 151):
        await queue.fire([SlotClaim("often", start + n, None, "late") for n in range(150)])
    kept = await queue.slots("often", 1000)
    assert [kept[0].slot, kept[-1].slot, len(kept)] == [300, 201, 100]


def test_a_queue_from_before_schedules_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    number, schema = sql.STEPS[0]
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"{schema}; PRAGMA user_version = {number};")
        old.execute("INSERT INTO slots VALUES ('nightly', 1000, 7), ('nightly', 2000, 8)")
        old.commit()
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT schedule, slot FROM schedules").fetchall() == [
            ("nightly", 2000)
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (sql.VERSION,)
