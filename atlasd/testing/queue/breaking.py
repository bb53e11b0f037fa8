"""What a store keeps of circuit breakers: they park jobs instead of burning their attempts."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from atlasd.contracts.queue import BreakerRow, Claimed, Finish, JobState
from atlasd.jobs.circuit import CircuitPolicy
from atlasd.testing.queue.bench import Bench, a_job, ids

OPEN_FOR = 10_000
LONGEST = OPEN_FOR * 11 // 10
"""Milliseconds after which a breaker that opened once is half open for sure."""
POLICY = CircuitPolicy(minimum_calls=4, open_for=OPEN_FOR, successes=2)


async def breaker_of(bench: Bench, target: str = "api") -> BreakerRow:
    """The breaker of a target."""
    return next(row for row in await bench.store.breakers() if row.target == target)


async def opened(bench: Bench, jobs: int = 3) -> list[int]:
    """A breaker that has just opened, and jobs of its target that wait."""
    bench.rule(circuit=POLICY)
    await bench.put(*[a_job(target="api")] * 4)
    for job in await bench.claim():
        await bench.fail(job, "target", retry_after=3_600_000)
    return await bench.put(*[a_job(target="api")] * jobs)


async def half_open(bench: Bench, jobs: int = 3) -> list[int]:
    """A breaker whose open time is over."""
    numbers = await opened(bench, jobs)
    await bench.advance(LONGEST)
    return numbers


class Breaking:
    """Circuit breakers of targets."""

    async def test_a_failing_target_opens_its_breaker(self, bench: Bench) -> None:
        """Its jobs wait with all their attempts; those of other targets and of none go on."""
        numbers = await opened(bench)
        assert (await breaker_of(bench)).state == "open"
        others = await bench.put(a_job(target="other"), a_job())
        assert sorted(ids(await bench.claim())) == others
        await bench.after(OPEN_FOR * 9 // 10 - 1)
        assert await bench.claim() == []
        for number in numbers:
            row = await bench.row(number)
            assert (row.state, row.attempt, row.token) == (JobState.AVAILABLE, 0, 0)

    async def test_a_handlers_own_mistakes_open_nothing(self, bench: Bench) -> None:
        """Only what is blamed on the target counts, and only beside enough calls."""
        bench.rule(circuit=POLICY)
        await bench.put(*[a_job(target="api")] * 10)
        jobs = await bench.claim()
        for job in jobs[:7]:
            await bench.fail(job)
        for job in jobs[7:]:
            await bench.fail(job, "target")
        await bench.put(target="api")
        assert len(await bench.claim()) == 1

    async def test_successes_count_against_failures(self, bench: Bench) -> None:
        """Below the ratio it stays closed."""
        bench.rule(circuit=POLICY)
        await bench.put(*[a_job(target="api")] * 10)
        for number, job in enumerate(await bench.claim()):
            await (bench.fail(job, "target") if number > 6 else bench.finish(job))
        row = await breaker_of(bench)
        assert row.state == "closed"
        (counts,) = json.loads(row.buckets).values()
        assert counts == [10, 3, 0]

    async def test_a_slow_target_opens_its_breaker(self, bench: Bench) -> None:
        """Though its calls succeed."""
        bench.rule(circuit=CircuitPolicy(minimum_calls=4, slow_after=100))
        await bench.put(*[a_job(target="api")] * 5)
        for job in await bench.claim():
            await bench.finish(job, took=101)
        assert (await breaker_of(bench)).state == "open"

    async def test_after_a_while_one_probe_at_a_time_is_let_through(self, bench: Bench) -> None:
        """All workers together; enough of them close it."""
        numbers = await half_open(bench)
        first = await bench.one()
        assert first.id == numbers[0]
        assert await bench.claim(worker="v") == []
        assert (await breaker_of(bench)).state == "half_open"
        await bench.finish(first)
        second = await bench.one()
        assert await bench.claim() == []
        await bench.finish(second)
        assert (await breaker_of(bench)).state == "closed"
        assert ids(await bench.claim()) == numbers[2:]

    async def test_many_ask_and_one_is_let_through(self, bench: Bench) -> None:
        """At the same moment, too."""
        numbers = await half_open(bench, jobs=10)
        claims = [bench.claim(5, worker=f"w{number}") for number in range(10)]
        given = [job for jobs in await asyncio.gather(*claims) for job in jobs]
        assert ids(given) == numbers[:1]

    async def test_a_failed_probe_opens_it_again_for_longer(self, bench: Bench) -> None:
        """Twice as long."""
        await half_open(bench)
        await bench.fail(await bench.one(), "target", retry_after=3_600_000)
        row = await breaker_of(bench)
        assert (row.state, row.trips) == ("open", 2)
        await bench.advance(LONGEST)
        assert await bench.claim() == []
        await bench.advance(LONGEST)
        assert len(await bench.claim()) == 1

    @pytest.mark.parametrize("way", ["lose", "lease", "release"])
    async def test_a_probe_that_ends_unsaid_lets_another_through(
        self, bench: Bench, way: str
    ) -> None:
        """A prober that crashed keeps nobody out."""
        numbers = await half_open(bench)
        job = await bench.one()
        if way == "lose":
            await bench.store.lose("w", [job.id], why="connection")
        elif way == "lease":
            await bench.after(30_000)
        else:
            await bench.release(job)
        again = await bench.one()
        assert again.id in numbers
        await bench.finish(again)
        assert (await breaker_of(bench)).successes == 1

    async def test_what_began_before_says_nothing_of_now(self, bench: Bench) -> None:
        """Results of an older epoch neither close nor reopen it."""
        bench.rule(circuit=POLICY)
        await bench.put(*[a_job(target="api")] * 10)
        jobs = await bench.claim()
        await self._fail(bench, jobs[:4])
        await bench.put(target="api")
        await bench.advance(LONGEST)
        before = await breaker_of(bench)
        assert before.state == "half_open"
        assert await bench.claim() == [], "six of its calls are still under way: no probe beside"
        await bench.finish(jobs[4])
        await bench.finish(jobs[5])
        await self._fail(bench, jobs[6:])
        after = await breaker_of(bench)
        assert (after.state, after.successes, after.epoch) == ("half_open", 0, before.epoch)

    @staticmethod
    async def _fail(bench: Bench, jobs: Sequence[Claimed]) -> None:
        for job in jobs:
            await bench.fail(job, "target", retry_after=3_600_000)

    # --- by operators

    async def test_forced_open_nothing_goes_through(self, bench: Bench) -> None:
        """For as long as nobody closes it, whatever time passes."""
        (number,) = await bench.put(target="api")
        row = await bench.store.set_breaker("api", "forced_open")
        assert (row.target, row.state) == ("api", "forced_open")
        await bench.advance(86_400_000)
        assert await bench.claim() == []
        closed = await bench.store.set_breaker("api", "closed")
        assert closed.epoch > row.epoch
        job = await bench.one()
        assert (job.id, job.attempt) == (number, 1)

    async def test_disabled_it_counts_nothing(self, bench: Bench) -> None:
        """And lets everything through."""
        bench.rule(circuit=POLICY)
        await bench.store.set_breaker("api", "disabled")
        await bench.put(*[a_job(target="api")] * 9)
        await self._fail(bench, (await bench.claim())[:8])
        row = await breaker_of(bench)
        assert (row.state, row.buckets) == ("disabled", "{}")

    async def test_for_metrics_only_it_counts_and_lets_through(self, bench: Bench) -> None:
        """What it would have opened for can be seen."""
        bench.rule(circuit=POLICY)
        await bench.store.set_breaker("api", "metrics_only")
        await bench.put(*[a_job(target="api")] * 8)
        await self._fail(bench, await bench.claim())
        row = await breaker_of(bench)
        assert row.state == "metrics_only"
        assert [counts[:2] for counts in json.loads(row.buckets).values()] == [[8, 8]]
        await bench.put(target="api")
        assert len(await bench.claim()) == 1

    async def test_closed_by_hand_it_begins_anew(self, bench: Bench) -> None:
        """What was counted is forgotten, and calls of before count for nothing."""
        bench.rule(circuit=POLICY)
        await bench.put(*[a_job(target="api")] * 9)
        jobs = await bench.claim()
        await self._fail(bench, jobs[:4])
        assert (await breaker_of(bench)).state == "open"
        await bench.store.set_breaker("api", "closed")
        await self._fail(bench, jobs[4:])
        row = await breaker_of(bench)
        assert (row.state, row.trips, row.buckets) == ("closed", 0, "{}")

    async def test_breakers_of_targets_are_apart(self, bench: Bench) -> None:
        """Also within one request."""
        bench.rule(circuit=POLICY)
        await bench.put(*[a_job(target=target) for _ in range(4) for target in ("good", "bad")])
        jobs = await bench.claim()
        for job in jobs:
            if job.target == "bad":
                await bench.fail(job, "target")
        good = [Finish(job.id, job.token) for job in jobs if job.target == "good"]
        assert await bench.settle(*good) == [True] * 4
        states = {row.target: row.state for row in await bench.store.breakers()}
        assert states == {"bad": "open", "good": "closed"}
