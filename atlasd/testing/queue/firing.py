"""What a store keeps of schedules: each slot fires once, plans and pauses are remembered."""

import asyncio

from atlasd.contracts.queue import (
    HELD,
    WITHOUT_JOB,
    JobState,
    QueueLimits,
    ScheduleRow,
    Slot,
    SlotClaim,
)
from atlasd.testing.queue.bench import Bench, a_job


async def nightly(bench: Bench) -> ScheduleRow:
    """What is remembered of the one schedule that there is."""
    (row,) = await bench.store.schedules()
    return row


class Firing:
    """Schedules and their slots."""

    async def test_a_slot_fires_once(self, bench: Bench) -> None:
        """Whoever comes second is told so, and enqueues nothing."""
        claim = SlotClaim("nightly", 1_000, a_job(args='{"scheduled_for":1}'))
        (number,) = await bench.store.fire([claim])
        assert (await bench.row(number)).args == '{"scheduled_for":1}'
        assert list(await bench.store.fire([claim])) == [0]
        assert len(await bench.rows()) == 1
        await bench.reopen()
        assert list(await bench.store.fire([claim])) == [0]
        assert list(await bench.store.slots("nightly", 9)) == [Slot("nightly", 1_000, number, "")]

    async def test_slots_are_claimed_in_order(self, bench: Bench) -> None:
        """What isn't later than the last is taken; schedules are apart."""
        first, *_ = await bench.store.fire([SlotClaim("a", 2, a_job())])
        claims = [
            SlotClaim(schedule, slot, a_job())
            for schedule, slot in (("a", 1), ("a", 2), ("b", 2), ("b", 1), ("a", 3))
        ]
        fired = await bench.store.fire(claims)
        assert [bool(number) for number in fired] == [False, False, True, False, True]
        assert len({*fired}) == 3
        assert [row.id for row in await bench.rows()] == sorted({first, fired[2], fired[4]})
        rows = {row.schedule: (row.slot, row.job) for row in await bench.store.schedules()}
        assert rows == {"a": (3, fired[4]), "b": (2, fired[2])}
        assert [one.slot for one in await bench.store.slots("a", 9)] == [3, 2]
        assert [one.slot for one in await bench.store.slots("a", 1)] == [3]

    async def test_many_at_once_fire_it_once(self, bench: Bench) -> None:
        """However many daemons there are."""
        claim = SlotClaim("nightly", 1_000, a_job())
        fired = await asyncio.gather(*(bench.store.fire([claim]) for _ in range(10)))
        assert sorted(bool(number) for (number,) in fired) == [False] * 9 + [True]
        assert len(await bench.rows()) == 1

    async def test_a_slot_may_be_claimed_for_nothing(self, bench: Bench) -> None:
        """Then nobody fires it later, and the reason is remembered."""
        job, none = await bench.store.fire(
            [SlotClaim("nightly", 1_000, a_job()), SlotClaim("nightly", 2_000, None, "overlap")]
        )
        assert none == WITHOUT_JOB
        assert list(await bench.store.fire([SlotClaim("nightly", 2_000, a_job())])) == [0]
        row = await nightly(bench)
        assert (row.slot, row.job) == (2_000, job)
        (last,) = await bench.store.slots("nightly", 1)
        assert last == Slot("nightly", 2_000, 0, "overlap")

    async def test_a_held_slot_fires_once_though_others_came_after_it(self, bench: Bench) -> None:
        """Its turn comes when the schedule's last job has ended."""
        await bench.store.fire(
            [SlotClaim("nightly", 1_000, None, HELD), SlotClaim("nightly", 2_000, None, "overlap")]
        )
        row = await nightly(bench)
        assert (row.slot, row.held) == (2_000, 1_000)
        (job,) = await bench.store.fire([SlotClaim("nightly", 1_000, a_job())])
        assert list(await bench.store.fire([SlotClaim("nightly", 1_000, a_job())])) == [0]
        row = await nightly(bench)
        assert (row.slot, row.held, row.job) == (2_000, 0, job)
        slots = await bench.store.slots("nightly", 9)
        assert slots[-1] == Slot("nightly", 1_000, job, "")

    async def test_beside_the_plan_no_slot_is_taken(self, bench: Bench) -> None:
        """By hand it may be fired as often as somebody likes."""
        first, second = await bench.store.fire([SlotClaim("nightly", 0, a_job())] * 2)
        assert second > first > 0
        row = await nightly(bench)
        assert (row.slot, row.job) == (0, second)
        assert list(await bench.store.slots("nightly", 9)) == []

    async def test_a_slot_fires_into_a_full_queue(self, bench: Bench) -> None:
        """It was planned before the queue filled up."""
        bench.rule(queues={"q": QueueLimits(size=1)})
        await bench.put()
        (number,) = await bench.store.fire([SlotClaim("nightly", 1, a_job())])
        assert await bench.state(number) == (JobState.AVAILABLE, "")

    async def test_a_slots_job_keeps_to_its_unique_key(self, bench: Bench) -> None:
        """The slot is taken, and the job that has the key stands for it."""
        (number,) = await bench.put(unique_key="k")
        fired = await bench.store.fire([SlotClaim("nightly", 1, a_job(unique_key="k"))])
        assert list(fired) == [number]
        assert list(await bench.store.fire([SlotClaim("nightly", 1, a_job())])) == [0]
        assert len(await bench.rows()) == 1

    async def test_nothing_has_fired_yet(self, bench: Bench) -> None:
        """Then there is nothing to tell."""
        assert list(await bench.store.schedules()) == []
        assert list(await bench.store.slots("nightly", 9)) == []
        assert list(await bench.store.fire([])) == []

    async def test_a_changed_plan_begins_now_and_an_equal_one_goes_on(self, bench: Bench) -> None:
        """Nothing is owed for the time before; what is gone is forgotten."""
        keep = bench.store.keep_schedules
        start = await bench.store.now()
        (row,) = await keep({"nightly": "a"})
        assert (row.digest, row.since, row.paused) == ("a", start, False)
        await bench.store.fire([SlotClaim("nightly", start + 1, None, HELD)])
        await bench.advance(60_000)
        (row,) = await keep({"nightly": "a"})
        assert (row.since, row.held) == (start, start + 1)
        (row,) = await keep({"nightly": "b"})
        assert (row.digest, row.since, row.held) == ("b", start + 60_000, 0)
        row, other = await keep({"other": "c"})
        assert (row.schedule, other.schedule) == ("nightly", "other")
        (other,) = await keep({"other": "c"}, gone=["nightly"])
        assert other.schedule == "other"
        assert list(await bench.store.slots("nightly", 9)) == []

    async def test_a_pause_outlives_the_store_and_owes_nothing(self, bench: Bench) -> None:
        """From its end on the schedule works again, as if it began."""
        start = await bench.store.now()
        for step in range(3):
            (row,) = await bench.store.keep_schedules({"nightly": "a"})
            assert row.paused is (step == 1)
            await bench.store.pause_schedule("nightly", paused=step == 0)
            assert (await nightly(bench)).since == (start if step == 0 else start + 60_000)
            await bench.advance(60_000)
            await bench.reopen()

    async def test_what_a_wrong_clock_claimed_is_no_bar_to_a_new_beginning(
        self, bench: Bench
    ) -> None:
        """A slot far ahead would otherwise keep a schedule from firing for as long."""
        far = await bench.store.now() + 10**10
        await bench.store.fire([SlotClaim("nightly", far, a_job())])
        await bench.store.keep_schedules({"nightly": "b"})
        assert (await nightly(bench)).slot == await bench.store.now()
        await bench.store.fire([SlotClaim("nightly", far, a_job())])
        await bench.store.pause_schedule("nightly", paused=True)
        assert (await nightly(bench)).slot == far
        await bench.store.pause_schedule("nightly", paused=False)
        assert (await nightly(bench)).slot == await bench.store.now()

    async def test_the_slots_that_are_remembered_are_bounded(self, bench: Bench) -> None:
        """The last hundred or so."""
        for start in (1, 301):
            claims = [SlotClaim("often", start + n, None, "late") for n in range(300)]
            await bench.store.fire(claims)
        slots = [one.slot for one in await bench.store.slots("often", 1_000)]
        assert slots == list(range(600, 600 - len(slots), -1))
        assert 100 <= len(slots) <= 300
