"""What a store keeps of schedules' slots: each fires once."""

import asyncio

from atlasd.contracts.queue import JobState, QueueLimits, SlotClaim
from atlasd.testing.queue.bench import Bench, a_job


class Firing:
    """Slots of schedules."""

    async def test_a_slot_fires_once(self, bench: Bench) -> None:
        """Whoever comes second is told so, and enqueues nothing."""
        claim = SlotClaim("nightly", 1_000, a_job(args='{"scheduled_for":1}'))
        (number,) = await bench.store.fire([claim])
        assert (await bench.row(number)).args == '{"scheduled_for":1}'
        assert list(await bench.store.fire([claim])) == [0]
        assert len(await bench.rows()) == 1
        await bench.reopen()
        assert list(await bench.store.fire([claim])) == [0]

    async def test_slots_are_answered_in_order(self, bench: Bench) -> None:
        """Schedules and moments are told apart, also within one request."""
        await bench.store.fire([SlotClaim("a", 2, a_job())])
        claims = [
            SlotClaim(schedule, slot, a_job())
            for schedule, slot in (("a", 1), ("a", 2), ("b", 2), ("a", 1), ("a", 3))
        ]
        fired = await bench.store.fire(claims)
        assert [bool(number) for number in fired] == [True, False, True, False, True]
        assert len({*fired}) == 4
        assert len(await bench.rows()) == 4
        assert dict(await bench.store.slots()) == {"a": 3, "b": 2}

    async def test_many_at_once_fire_it_once(self, bench: Bench) -> None:
        """However many daemons there are."""
        claim = SlotClaim("nightly", 1_000, a_job())
        fired = await asyncio.gather(*(bench.store.fire([claim]) for _ in range(10)))
        assert sorted(bool(number) for (number,) in fired) == [False] * 9 + [True]
        assert len(await bench.rows()) == 1

    async def test_a_slot_fires_into_a_full_queue(self, bench: Bench) -> None:
        """It was scheduled before the queue filled up."""
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
        """Then there are no slots."""
        assert dict(await bench.store.slots()) == {}
        assert list(await bench.store.fire([])) == []
