"""What a store keeps of outcomes: finished, failed, given back, refused."""

import json

import pytest

from atlasd.contracts.queue import Failure, Filter, Finish, JobState, QueueLimits, Release
from atlasd.testing.queue.bench import Bench, a_job, ids

HOUR = 3_600_000


class Settling:
    """What becomes of jobs that are held."""

    async def test_a_finished_job_is_completed(self, bench: Bench) -> None:
        """With its result, and the moment."""
        (number,) = await bench.put()
        job = await bench.one()
        await bench.advance(500)
        assert await bench.finish(job, '{"sent":true}')
        row = await bench.row(number)
        assert (row.state, row.reason, row.result) == (JobState.COMPLETED, "", '{"sent":true}')
        assert row.finalized_at == row.created_at + 500
        assert (row.attempt, row.token) == (1, 1)
        assert await bench.claim() == []

    async def test_a_failed_job_is_tried_again_later(self, bench: Bench) -> None:
        """When its retry policy says, with the failure noted."""
        (number,) = await bench.put(max_attempts=3)
        job = await bench.one()
        await bench.fail(job, frames=("shop.mail:send",))
        row = await bench.row(number)
        assert (row.state, row.attempt, row.finalized_at) == (JobState.SCHEDULED, 1, 0)
        assert row.run_at == row.created_at + 5_000
        assert row.rank_at == bench.rules.rank("q", 5, row.run_at)
        (error,) = json.loads(row.errors)
        assert (error["error"], error["message"], error["attempt"]) == ("ValueError", "no", 1)
        assert error["frames"] == ["shop.mail:send"]
        assert row.fingerprint
        await bench.after(4_999)
        assert await bench.claim() == []
        await bench.after(1)
        again = await bench.one()
        assert (again.id, again.attempt, again.token) == (number, 2, 2)

    async def test_a_job_is_dead_when_its_attempts_are_used_up(self, bench: Bench) -> None:
        """Not before."""
        (number,) = await bench.put(max_attempts=3)
        for attempt in (1, 2, 3):
            job = await bench.one()
            assert job.attempt == attempt
            await bench.fail(job)
            await bench.after(HOUR)
        assert await bench.state(number) == (JobState.DEAD, "exhausted")
        assert len(json.loads((await bench.row(number)).errors)) == 3
        assert await bench.claim() == []

    @pytest.mark.parametrize(
        ("verdict", "state", "reason"),
        [
            ("discard", JobState.CANCELLED, "discarded"),
            ("bury", JobState.DEAD, "buried"),
            ("retry", JobState.SCHEDULED, ""),
            ("target", JobState.SCHEDULED, ""),
        ],
    )
    async def test_a_verdict_decides(
        self, bench: Bench, verdict: str, state: JobState, reason: str
    ) -> None:
        """Whatever attempts are left."""
        (number,) = await bench.put()
        assert await bench.fail(await bench.one(), verdict)
        assert await bench.state(number) == (state, reason)

    async def test_it_is_not_tried_before_it_was_asked_to(self, bench: Bench) -> None:
        """`retry_after` is longer than the policy's delay, or means nothing."""
        (number,) = await bench.put()
        await bench.fail(await bench.one(), retry_after=60_000)
        row = await bench.row(number)
        assert row.run_at == await bench.store.now() + 60_000
        await bench.after(60_000)
        await bench.fail(await bench.one(), retry_after=1)
        assert (await bench.row(number)).run_at == await bench.store.now() + 10_000

    async def test_the_last_failures_are_remembered(self, bench: Bench) -> None:
        """Twenty of them."""
        (number,) = await bench.put(max_attempts=30)
        for _ in range(23):
            await bench.fail(await bench.one())
            await bench.after(HOUR)
        errors = json.loads((await bench.row(number)).errors)
        assert [error["attempt"] for error in errors] == list(range(4, 24))

    async def test_a_job_that_is_given_back_has_lost_no_attempt(self, bench: Bench) -> None:
        """It has its old place in line again."""
        first, second = await bench.put(a_job(), a_job())
        before = await bench.row(first)
        job = await bench.one(limit=1)
        await bench.advance(10)
        assert await bench.release(job)
        assert await bench.row(first) == before._replace(token=1)
        jobs = await bench.claim()
        assert ids(jobs) == [first, second]
        assert (jobs[0].attempt, jobs[0].token) == (1, 2)

    async def test_a_job_can_be_put_off(self, bench: Bench) -> None:
        """It comes again after the delay, as the same attempt."""
        (number,) = await bench.put()
        await bench.release(await bench.one(), delay=7_000)
        assert await bench.state(number) == (JobState.SCHEDULED, "")
        await bench.after(6_999)
        assert await bench.claim() == []
        await bench.after(1)
        again = await bench.one()
        assert (again.id, again.attempt) == (number, 1)

    # --- tokens

    async def test_a_token_only_grows(self, bench: Bench) -> None:
        """Over every way back, the requeue of an ended job included."""
        (number,) = await bench.put(max_attempts=100)
        tokens = []
        for round_ in range(3):
            job = await bench.one()
            tokens.append(job.token)
            await bench.release(job)
            job = await bench.one()
            tokens.append(job.token)
            await bench.fail(job)
            await bench.after(HOUR)
            job = await bench.one()
            tokens.append(job.token)
            await bench.store.lose("w", [number], why="connection")
            await bench.after(HOUR)
            job = await bench.one()
            tokens.append(job.token)
            await (bench.finish(job) if round_ else bench.fail(job, "bury"))
            assert list(await bench.store.requeue(Filter(ids=(number,)), limit=1)) == [number]
        assert tokens == list(range(1, 13))

    @pytest.mark.parametrize("settlement", [Finish, Failure, Release])
    async def test_an_outdated_token_changes_nothing(
        self, bench: Bench, settlement: type[Finish | Failure | Release]
    ) -> None:
        """Neither while another holds the job, nor while nobody does, nor when it has ended."""

        async def refused() -> None:
            before = await bench.row(number)
            for token in {0, before.token - 1, before.token + 1, 99} | (
                {before.token} if before.state is not JobState.RUNNING else set()
            ):
                late = (
                    Failure(number, token, "ValueError")
                    if settlement is Failure
                    else settlement(number, token)  # type: ignore[call-arg]
                )
                assert await bench.settle(late) == [False]
            assert await bench.row(number) == before

        (number,) = await bench.put()
        await refused()
        await bench.one()
        await refused()
        await bench.store.lose("w", [number], why="connection")
        await refused()
        await bench.after(HOUR)
        job = await bench.one(worker="v")
        await refused()
        await bench.finish(job)
        await refused()

    async def test_a_second_finish_counts_for_nothing(self, bench: Bench) -> None:
        """Also within one request."""
        (number,) = await bench.put()
        job = await bench.one()
        first, second = Finish(number, job.token, "1"), Finish(number, job.token, "2")
        assert await bench.settle(first, second) == [True, False]
        assert (await bench.row(number)).result == "1"

    async def test_what_is_lost_spoils_nothing_else(self, bench: Bench) -> None:
        """Each settlement has its own answer, in order."""
        numbers = await bench.put(*[a_job()] * 4)
        jobs = await bench.claim()
        held = await bench.settle(
            Finish(jobs[0].id, jobs[0].token),
            Finish(jobs[1].id, jobs[1].token + 1),
            Failure(jobs[2].id, jobs[2].token, "ValueError"),
            Finish(1 << 40, 1),
            Release(jobs[3].id, jobs[3].token),
        )
        assert held == [True, False, True, False, True]
        states = [(await bench.row(number)).state for number in numbers]
        assert states == [
            JobState.COMPLETED, JobState.RUNNING, JobState.SCHEDULED, JobState.AVAILABLE,
        ]  # fmt: skip

    # --- what comes after

    async def test_what_comes_after_is_enqueued_with_the_finish(self, bench: Bench) -> None:
        """Also into a full queue: the job that is done cannot be undone."""
        bench.rule(queues={"q": QueueLimits(size=1)})
        (number,) = await bench.put()
        job = await bench.one()
        await bench.put()
        then = (a_job(args='{"n":1}'), a_job(args='{"n":2}', delay=60_000))
        assert await bench.settle(Finish(job.id, job.token, then=then)) == [True]
        rows = await bench.rows()
        assert [(row.state, row.args) for row in rows] == [
            (JobState.COMPLETED, "{}"),
            (JobState.AVAILABLE, "{}"),
            (JobState.AVAILABLE, '{"n":1}'),
            (JobState.SCHEDULED, '{"n":2}'),
        ]
        assert rows[0].id == number

    async def test_nothing_comes_after_a_lost_lease(self, bench: Bench) -> None:
        """The other run will say it."""
        await bench.put()
        job = await bench.one()
        late = Finish(job.id, job.token + 1, then=(a_job(),))
        assert await bench.settle(late, late) == [False, False]
        assert len(await bench.rows()) == 1

    async def test_what_comes_after_can_be_claimed_at_once(self, bench: Bench) -> None:
        """By the very request that says it."""
        await bench.put()
        job = await bench.one()
        finish = Finish(job.id, job.token, then=(a_job(kind="next"),))
        (after,) = await bench.claim(after=[finish])
        assert after.kind == "next"
