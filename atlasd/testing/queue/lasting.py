"""What a store keeps over its end and its next beginning, and what is shared by several."""

import asyncio

import pytest

from atlasd.contracts.queue import Filter, Held, JobState, QueueLimits, SlotClaim
from atlasd.testing.queue.bench import LEASE, LIMIT, Bench, a_job, ids
from atlasd.testing.queue.breaking import half_open, opened


class Lasting:
    """Closed and opened again."""

    async def test_it_says_what_its_jobs_survive(self, bench: Bench) -> None:
        """People read it where they look at their queues."""
        assert bench.store.durable
        for name, value in bench.store.numbers().items():
            assert isinstance(value, float) or not name.endswith("_total")

    async def test_everything_is_there_again(self, bench: Bench) -> None:
        """Jobs of every state, as they were."""
        await bench.put(*[a_job(fair_key=f"k{number}", max_attempts=1) for number in range(6)])
        jobs = await bench.claim()
        await bench.finish(jobs[0], '{"ok":1}')
        await bench.fail(jobs[1], "bury")
        await bench.fail(jobs[2], "discard")
        await bench.release(jobs[3])
        await bench.put(a_job(delay=60_000, unique_key="k", expires_in=90_000, options='{"o":1}'))
        before = await bench.rows()
        counts = sorted(await bench.store.count())
        await bench.reopen()
        after = await bench.rows()
        ended = JobState.COMPLETED, JobState.CANCELLED, JobState.DEAD
        assert {row.state for row in before if row.state in ended} == set(ended)
        for old, new in zip(before, after, strict=True):
            # Who held it is known by the token; when the lease ends may begin anew.
            assert new._replace(worker=old.worker, lease_until=old.lease_until) == old
        assert sorted(await bench.store.count()) == counts

    async def test_who_held_a_job_still_does(self, bench: Bench) -> None:
        """The token is what counts; who isn't heard of again loses it in the end."""
        await bench.put(*[a_job()] * 3)
        jobs = await bench.claim()
        await bench.reopen()
        assert await bench.claim() == []
        assert await bench.finish(jobs[0])
        held = [Held(id=jobs[1].id, token=jobs[1].token)]
        assert (await bench.store.extend("new name", held, 10 * LEASE)).lost == ()
        assert (await bench.after(2 * LEASE)).lost == 1
        assert await bench.finish(jobs[1])
        assert await bench.finish(jobs[2]) is False

    async def test_keys_and_slots_and_answers_are_remembered(self, bench: Bench) -> None:
        """Nothing that was promised once is forgotten."""
        (unique,) = await bench.put(unique_key="k")
        (first,) = await bench.store.enqueue([a_job()], idempotency_key="order-1")
        await bench.store.fire([SlotClaim("nightly", 7, a_job())])
        await bench.store.pause("q", paused=True)
        await bench.reopen()
        (again,) = await bench.store.enqueue([a_job(unique_key="k")])
        assert (again.id, again.outcome) == (unique, "existing")
        (other,) = await bench.store.enqueue([a_job()], idempotency_key="order-1")
        assert other.id == first.id
        assert [row.slot for row in await bench.store.schedules()] == [7]
        assert await bench.store.paused() == {"q"}
        assert await bench.claim() == []

    async def test_limits_are_not_forgotten(self, bench: Bench) -> None:
        """Neither what runs, nor a rate, nor an open breaker."""
        bench.rule(queues={"r": QueueLimits(rate=1.0), "c": QueueLimits(concurrency=1)})
        await bench.put(*[a_job(queue=queue) for _ in range(2) for queue in ("r", "c")])
        assert len(await bench.claim(queues=("r", "c"))) == 2
        await opened(bench)
        before = await bench.store.breakers()
        await bench.reopen()
        assert await bench.claim(queues=("r", "c", "q")) == []
        assert list(await bench.store.breakers()) == list(before)
        await bench.advance(1_000)
        assert [job.queue for job in await bench.claim(queues=("r", "c"))] == ["r"]

    async def test_a_cancelled_job_is_still_asked_to_end(self, bench: Bench) -> None:
        """The worker hears of it though the store was opened anew."""
        (number,) = await bench.put()
        job = await bench.one()
        await bench.store.cancel(Filter(ids=(number,)), reason="user", limit=1)
        await bench.reopen()
        answer = await bench.store.extend("w", [Held(id=number, token=job.token)], LEASE)
        assert answer.cancel == (number,)

    async def test_who_waits_when_it_is_closed_is_answered(self, bench: Bench) -> None:
        """With nothing; and nothing of the store's goes on afterwards."""
        before = asyncio.all_tasks()
        claim = await bench.begun(bench.claim(wait=60_000))
        await bench.close()
        async with asyncio.timeout(LIMIT):
            assert await claim == []
        await asyncio.sleep(0)
        assert {task for task in asyncio.all_tasks() if not task.done()} <= before
        await bench.open()


class Sharing:
    """One store, opened by several hosts."""

    @pytest.fixture
    async def other(self, bench: Bench) -> "Bench":
        """A second opening of the same store."""
        if not bench.kind.shared:
            pytest.skip("it is not shared by hosts")
        return bench.twin()

    async def test_hosts_share_the_jobs_and_none_is_given_twice(
        self, bench: Bench, other: Bench
    ) -> None:
        """What one enqueues the other may claim, finish, or find."""
        async with other:
            numbers = await bench.put(*[a_job()] * 60)
            claims = [one.claim(5) for _ in range(8) for one in (bench, other)]
            given = [job for jobs in await asyncio.gather(*claims) for job in jobs]
            assert sorted(ids(given)) == numbers
            assert await other.finish(given[0])
            assert await bench.finish(given[0]) is False

    async def test_a_job_wakes_who_waits_at_another_host(self, bench: Bench, other: Bench) -> None:
        """Soon: hosts tell each other."""
        async with other:
            claim = await other.begun(other.claim(wait=60_000))
            numbers = await bench.put()
            async with asyncio.timeout(LIMIT):
                assert ids(await claim) == numbers

    async def test_limits_hold_for_all_hosts_together(self, bench: Bench, other: Bench) -> None:
        """Concurrency, rate, pauses."""
        async with other:
            for one in (bench, other):
                one.rule(queues={"c": QueueLimits(concurrency=2), "r": QueueLimits(rate=1.0)})
            await bench.put(*[a_job(queue=queue) for _ in range(5) for queue in ("c", "r", "p")])
            for queue, most in (("c", 2), ("r", 1)):
                claims = [one.claim(5, queues=(queue,)) for one in (bench, other)]
                assert sum(map(len, await asyncio.gather(*claims))) == most
            await bench.store.pause("p", paused=True)
            assert await other.store.paused() == {"p"}
            assert await other.claim(queues=("p",)) == []

    async def test_one_probe_for_all_hosts_together(self, bench: Bench, other: Bench) -> None:
        """And no attempt is burnt while the breaker is open, at any of them."""
        async with other:
            numbers = await half_open(bench)
            other.rule(circuit=bench.rules.circuit)
            claims = [one.claim() for _ in range(4) for one in (bench, other)]
            given = [job for jobs in await asyncio.gather(*claims) for job in jobs]
            assert ids(given) == numbers[:1]
            assert [(await other.row(number)).attempt for number in numbers] == [1, 0, 0]

    async def test_a_slot_fires_once_for_all_hosts_together(
        self, bench: Bench, other: Bench
    ) -> None:
        """Whoever comes first."""
        async with other:
            claim = SlotClaim("nightly", 1_000, a_job())
            fired = await asyncio.gather(
                *(one.store.fire([claim]) for _ in range(5) for one in (bench, other))
            )
            assert sorted(bool(number) for (number,) in fired) == [False] * 9 + [True]
