"""What a store keeps of claims: order, priority, shares, limits of concurrency and rate."""

import asyncio

import pytest

from atlasd.contracts.queue import Finish, JobState, QueueLimits
from atlasd.testing.queue.bench import LEASE, Bench, a_job, ids

STEP = 60_000
"""Milliseconds that a step of priority is worth."""


class Claiming:
    """Whose turn it is."""

    async def test_a_claim_has_all_of_the_job_and_a_lease(self, bench: Bench) -> None:
        """What the worker is given is what the store has."""
        (number,) = await bench.put(
            args='{"n":1}', priority=2, fair_key="acme", target="api", max_attempts=4,
            expires_in=60_000, options='{"tags":["a"]}',
        )  # fmt: skip
        job = await bench.one(lease=12_345)
        row = await bench.row(number)
        assert row.state is JobState.RUNNING
        now = await bench.store.now()
        assert now <= job.lease_until <= now + 12_345
        shared = set(job._fields) & set(row._fields) - {"lease_until"}
        assert {name: getattr(job, name) for name in shared} == {
            name: getattr(row, name) for name in shared
        }
        assert (job.id, job.token, job.attempt) == (number, 1, 1)

    async def test_equal_jobs_go_by_age(self, bench: Bench) -> None:
        """Within a millisecond by their ids."""
        first = await bench.put(*[a_job()] * 5)
        await bench.advance(1)
        second = await bench.put(*[a_job()] * 5)
        assert ids(await bench.claim(7)) == (first + second)[:7]
        assert ids(await bench.claim(7)) == (first + second)[7:]

    async def test_the_urgent_go_first(self, bench: Bench) -> None:
        """0 before 9."""
        numbers = await bench.put(*(a_job(priority=priority) for priority in (9, 5, 0, 7, 2)))
        assert ids(await bench.claim()) == [numbers[one] for one in (2, 4, 1, 3, 0)]

    @pytest.mark.parametrize("priority", [1, 5, 9])
    async def test_waiting_makes_up_for_priority(self, bench: Bench, priority: int) -> None:
        """A job is overtaken by fresh urgent ones for so long, and not a moment longer."""
        (old,) = await bench.put(priority=priority)
        await bench.advance(priority * STEP - 1)
        (overtaking,) = await bench.put(priority=0)
        await bench.advance(2)
        (too_late,) = await bench.put(priority=0)
        assert ids(await bench.claim()) == [overtaking, old, too_late]

    async def test_strict_priority_knows_no_age(self, bench: Bench) -> None:
        """The least urgent wait for as long as there is anything else."""
        bench.rule(queues={"q": QueueLimits(strict=True)})
        (old,) = await bench.put(priority=9)
        await bench.advance(1_000 * STEP)
        (young,) = await bench.put(priority=8)
        assert ids(await bench.claim()) == [young, old]

    async def test_without_ageing_it_is_first_come_first_served(self, bench: Bench) -> None:
        """Priority means nothing then."""
        bench.rule(queues={"q": QueueLimits(aging=0)})
        (old,) = await bench.put(priority=9)
        await bench.advance(1)
        (young,) = await bench.put(priority=0)
        assert ids(await bench.claim()) == [old, young]

    async def test_only_what_was_asked_for_is_given(self, bench: Bench) -> None:
        """No other queue, and not more than the limit."""
        mine = await bench.put(*(a_job(queue=queue) for queue in ("a", "b", "a")))
        await bench.put(queue="c")
        assert len(await bench.claim(2, queues=("a", "b"))) == 2
        assert len(await bench.claim(9, queues=("a", "b"))) == 1
        rows = [row.id for row in await bench.rows(states=(JobState.RUNNING,))]
        assert rows == mine
        assert await bench.claim(queues=("nowhere",)) == []

    async def test_no_job_is_given_twice(self, bench: Bench) -> None:
        """Whoever asks at the same time."""
        numbers = await bench.put(*[a_job()] * 60)
        claims = [bench.claim(5, worker=f"w{number}") for number in range(20)]
        given = [job for jobs in await asyncio.gather(*claims) for job in jobs]
        assert sorted(ids(given)) == numbers

    async def test_a_paused_queue_gives_nothing(self, bench: Bench) -> None:
        """Others go on; what waits stays as it is, and what runs may finish."""
        first, second = await bench.put(a_job(), a_job())
        other = await bench.put(queue="other")
        job = await bench.one(limit=1)
        await bench.store.pause("q", paused=True)
        assert await bench.store.paused() == {"q"}
        assert ids(await bench.claim(queues=("q", "other"))) == other
        assert await bench.finish(job)
        assert await bench.state(second) == (JobState.AVAILABLE, "")
        await bench.store.pause("q", paused=False)
        assert await bench.store.paused() == frozenset()
        assert ids(await bench.claim()) == [second]
        assert job.id == first

    # --- shares

    async def test_a_crowd_of_one_key_keeps_nobody_out(self, bench: Bench) -> None:
        """One key has a hundred jobs, another comes later with five: they take turns."""
        await bench.put(*[a_job(fair_key="crowd")] * 100)
        await bench.advance(1_000)
        few = await bench.put(*[a_job(fair_key="few")] * 5)
        given: list[int] = []
        for _ in range(12):
            given += ids(await bench.claim(1))
        assert set(few) <= set(given)

    async def test_shares_go_by_weight(self, bench: Bench) -> None:
        """Three to one, however many are claimed at once."""
        bench.rule(queues={"q": QueueLimits(weights={"gold": 3.0})})
        await bench.put(*[a_job(fair_key=key) for _ in range(200) for key in ("gold", "tin")])
        for limit, times in ((1, 80), (16, 5)):
            keys = [job.fair_key for _ in range(times) for job in await bench.claim(limit)]
            assert len(keys) == 80
            assert 54 <= keys.count("gold") <= 66

    async def test_who_was_idle_has_no_credit(self, bench: Bench) -> None:
        """A key that comes after a long time shares evenly from then on."""
        await bench.put(*[a_job(fair_key="busy")] * 60)
        for _ in range(30):
            await bench.claim(1)
        await bench.put(*[a_job(fair_key="new")] * 30)
        keys = [job.fair_key for _ in range(20) for job in await bench.claim(1)]
        assert 8 <= keys.count("busy") <= 12

    # --- concurrency

    async def test_only_so_many_run_at_once(self, bench: Bench) -> None:
        """All workers together; who ends makes room for one, by whichever way."""
        bench.rule(queues={"q": QueueLimits(concurrency=3)})
        await bench.put(*[a_job()] * 10)
        jobs = await bench.claim(2) + await bench.claim(5, worker="v")
        assert len(jobs) == 3
        assert await bench.claim() == []
        await bench.finish(jobs[0])
        jobs += await bench.claim()
        assert len(jobs) == 4
        await bench.fail(jobs[1])
        await bench.release(jobs[2])
        assert await bench.store.lose("w", [jobs[3].id], why="connection") == 1
        assert len(await bench.claim()) == 3

    async def test_only_so_many_of_a_key_run_at_once(self, bench: Bench) -> None:
        """Other keys don't notice; jobs without a key are under no such limit."""
        bench.rule(queues={"q": QueueLimits(key_concurrency=1)})
        await bench.put(*[a_job(fair_key=key) for _ in range(3) for key in ("a", "b", "")])
        jobs = await bench.claim()
        assert sorted(job.fair_key for job in jobs) == ["", "", "", "a", "b"]
        await bench.finish(next(job for job in jobs if job.fair_key == "a"))
        assert [job.fair_key for job in await bench.claim()] == ["a"]

    async def test_a_finish_makes_room_for_its_own_claim(self, bench: Bench) -> None:
        """Both are one transaction, the finish first."""
        bench.rule(queues={"q": QueueLimits(concurrency=1)})
        first, second = await bench.put(a_job(), a_job())
        job = await bench.one()
        assert job.id == first
        again = await bench.claim(after=[Finish(job.id, job.token)])
        assert ids(again) == [second]

    # --- rate

    @pytest.mark.parametrize("burst", [1, 4])
    async def test_claims_keep_to_a_rate(self, bench: Bench, burst: int) -> None:
        """To the millisecond; a burst comes at once, and is earned again by waiting."""
        bench.rule(queues={"q": QueueLimits(rate=10.0, burst=burst)})
        await bench.put(*[a_job()] * 30)
        assert len(await bench.claim(20)) == burst
        assert await bench.claim(20) == []
        await bench.advance(99)
        assert await bench.claim(20) == []
        await bench.advance(1)
        assert len(await bench.claim(20)) == 1
        await bench.advance(60_000)
        assert len(await bench.claim(20)) == burst

    async def test_each_key_has_its_rate(self, bench: Bench) -> None:
        """One that has used its own up holds no other."""
        bench.rule(queues={"q": QueueLimits(key_rate=1.0, key_burst=2)})
        await bench.put(*[a_job(fair_key=key) for _ in range(5) for key in ("a", "b")])
        assert sorted(job.fair_key for job in await bench.claim(20)) == ["a", "a", "b", "b"]
        await bench.advance(1_000)
        assert sorted(job.fair_key for job in await bench.claim(20)) == ["a", "b"]

    async def test_rules_can_change_under_the_store(self, bench: Bench) -> None:
        """From the next claim on."""
        bench.rule(queues={"q": QueueLimits(concurrency=1)})
        await bench.put(*[a_job()] * 5)
        assert len(await bench.claim()) == 1
        bench.rule(queues={})
        assert len(await bench.claim(lease=LEASE)) == 4
