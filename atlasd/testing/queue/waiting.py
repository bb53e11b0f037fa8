"""What a store keeps of claims that wait: they are answered as soon as there is a job."""

import asyncio

import pytest

from atlasd.contracts.queue import Filter, Finish, JobState, QueueLimits, SlotClaim
from atlasd.testing.queue.bench import LIMIT, Bench, a_job, ids

LONG = 60_000
"""Milliseconds that a claim waits in vain, were it not answered before."""


class Waiting:
    """Long polls."""

    async def test_a_new_job_wakes_who_waits(self, bench: Bench) -> None:
        """At once."""
        claim = await bench.begun(bench.claim(wait=LONG))
        assert not claim.done()
        numbers = await bench.put()
        assert ids(await claim) == numbers

    @pytest.mark.parametrize("way", ["due", "resume", "requeue", "release", "room", "fire"])
    async def test_whatever_makes_a_job_ready_wakes_who_waits(self, bench: Bench, way: str) -> None:
        """There are more ways than to enqueue one."""
        bench.rule(queues={"q": QueueLimits(concurrency=1)})
        (number,) = await bench.put(delay=5_000 if way == "due" else 0)
        if way == "resume":
            await bench.store.pause("q", paused=True)
        job = None
        if way in ("requeue", "release", "room", "fire"):
            job = await bench.one()
        if way in ("requeue", "fire"):
            assert job is not None
            await bench.finish(job)
        if way == "room":
            (number,) = await bench.put()
        claim = await bench.begun(bench.claim(worker="v", wait=LONG))
        assert not claim.done()
        match way:
            case "due":
                await bench.after(5_000)
            case "resume":
                await bench.store.pause("q", paused=False)
            case "requeue":
                await bench.store.requeue(Filter(ids=(number,)), limit=1)
            case "release":
                assert job is not None
                await bench.release(job)
            case "fire":
                (number,) = await bench.store.fire([SlotClaim("nightly", 1, a_job())])
            case _:
                assert job is not None
                await bench.finish(job)
        assert ids(await claim) == [number]

    async def test_the_time_of_a_rate_wakes_who_waits(self, bench: Bench) -> None:
        """Nothing else has to happen."""
        bench.rule(queues={"q": QueueLimits(rate=10.0)})
        numbers = await bench.put(*[a_job()] * 2)
        await bench.one()
        claim = await bench.begun(bench.claim(wait=LONG))
        assert not claim.done()
        await bench.advance(100)
        assert ids(await claim) == numbers[1:]

    async def test_in_vain_it_is_answered_after_its_time(self, bench: Bench) -> None:
        """With nothing."""
        assert await bench.claim(wait=30) == []

    async def test_what_is_settled_does_not_wait(self, bench: Bench) -> None:
        """It is done though there is nothing to be claimed yet."""
        (number,) = await bench.put()
        job = await bench.one()
        claim = await bench.begun(bench.claim(wait=LONG, after=[Finish(job.id, job.token)]))
        assert not claim.done()
        assert await bench.state(number) == (JobState.COMPLETED, "")
        numbers = await bench.put()
        assert ids(await claim) == numbers

    async def test_one_job_wakes_one(self, bench: Bench) -> None:
        """Who has waited longest; the others go on waiting."""
        first = await bench.begun(bench.claim(worker="a", wait=LONG))
        second = await bench.begun(bench.claim(worker="b", wait=LONG))
        elsewhere = await bench.begun(bench.claim(worker="c", queues=("other",), wait=LONG))
        numbers = await bench.put()
        assert ids(await first) == numbers
        await bench.row(numbers[0])
        assert not second.done()
        assert not elsewhere.done()
        more = await bench.put(queue="other")
        assert ids(await elsewhere) == more
        bench.store.nudge("b")
        assert await second == []

    async def test_a_nudge_answers_a_worker(self, bench: Bench) -> None:
        """And nobody else."""
        mine = await bench.begun(bench.claim(worker="mine", wait=LONG))
        other = await bench.begun(bench.claim(worker="other", wait=LONG))
        bench.store.nudge("mine")
        async with asyncio.timeout(LIMIT):
            assert await mine == []
        assert not other.done()
        bench.store.nudge("other")
        assert await other == []

    async def test_a_nudge_reaches_a_claim_that_was_just_sent(self, bench: Bench) -> None:
        """A worker that drains doesn't wait for its own last claim."""
        claim = asyncio.ensure_future(bench.claim(worker="w", wait=LONG))
        await asyncio.sleep(0)
        bench.store.nudge("w")
        async with asyncio.timeout(LIMIT / 2):
            assert await claim == []

    async def test_who_has_gone_takes_nothing(self, bench: Bench) -> None:
        """A claim that was given up leaves the job to others."""
        claim = await bench.begun(bench.claim(wait=LONG))
        claim.cancel()
        await asyncio.wait({claim})
        (number,) = await bench.put()
        assert await bench.state(number) == (JobState.AVAILABLE, "")
        assert (await bench.one(worker="v")).id == number
