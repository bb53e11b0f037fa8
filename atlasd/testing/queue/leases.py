"""What a store keeps of leases: they end, are prolonged, are taken back, and cancelled jobs end."""

import json

import pytest

from atlasd.contracts.queue import Filter, Held, JobState
from atlasd.testing.queue.bench import LEASE, Bench, a_job

FIRST_RETRY = 250
"""Milliseconds until a job that lost its worker for the first time may run again."""


class Leases:
    """Jobs and their workers."""

    async def test_a_lease_that_ran_out_is_taken_back(self, bench: Bench) -> None:
        """Not a moment before; the job comes again soon, and the first worker is too late."""
        (number,) = await bench.put()
        job = await bench.one()
        assert (await bench.after(LEASE - 1)).lost == 0
        assert (await bench.after(1)).lost == 1
        row = await bench.row(number)
        assert (row.state, row.lost_count, row.attempt) == (JobState.SCHEDULED, 1, 1)
        assert json.loads(row.errors)[-1]["error"] == "worker_lost"
        assert await bench.finish(job) is False
        await bench.after(FIRST_RETRY)
        again = await bench.one(worker="v")
        assert (again.id, again.token, again.lost_count) == (number, 2, 1)
        assert await bench.finish(job) is False
        assert await bench.finish(again)

    async def test_a_heartbeat_prolongs_it(self, bench: Bench) -> None:
        """Each by the time that it names, from its moment on."""
        (number,) = await bench.put()
        job = await bench.one()
        for _ in range(3):
            await bench.after(LEASE - 10)
            answer = await bench.store.extend("w", [Held(id=number, token=job.token)], LEASE)
            assert (answer.lost, answer.cancel) == ((), ())
        assert (await bench.after(LEASE - 1)).lost == 0
        assert (await bench.after(1)).lost == 1

    async def test_a_heartbeat_can_be_about_many(self, bench: Bench) -> None:
        """What is not held, or by another token, is told; the rest is prolonged."""
        await bench.put(*[a_job()] * 4)
        jobs = await bench.claim()
        await bench.finish(jobs[1])
        await bench.advance(LEASE - 10)
        held = [Held(id=job.id, token=job.token) for job in jobs[:2]]
        held += [Held(id=jobs[2].id, token=jobs[2].token + 1), Held(id=1 << 40, token=1)]
        answer = await bench.store.extend("w", held, LEASE)
        assert set(answer.lost) == {jobs[1].id, jobs[2].id, 1 << 40}
        assert (await bench.after(10)).lost == 2  # the one that wasn't named, and the mistaken one
        assert (await bench.row(jobs[0].id)).state is JobState.RUNNING

    async def test_progress_is_kept(self, bench: Bench) -> None:
        """The last report; a heartbeat without one leaves it alone."""
        (number,) = await bench.put()
        job = await bench.one()
        for progress in ('{"done":1}', '{"done":2}', ""):
            held = Held(id=number, token=job.token, progress=progress)
            await bench.store.extend("w", [held], LEASE)
        assert json.loads((await bench.row(number)).progress) == {"done": 2}

    async def test_a_worker_that_is_gone_holds_nothing(self, bench: Bench) -> None:
        """Only its own is taken, and only what it still holds."""
        numbers = await bench.put(*[a_job()] * 4)
        mine = await bench.claim(2, worker="w")
        others = await bench.claim(2, worker="v")
        await bench.finish(mine[0])
        assert await bench.store.lose("w", [*numbers, 1 << 40], why="connection") == 1
        assert await bench.store.lose("w", numbers, why="connection") == 0
        assert await bench.store.lose("w", [], why="connection") == 0
        row = await bench.row(mine[1].id)
        assert (row.state, row.lost_count) == (JobState.SCHEDULED, 1)
        assert await bench.finish(mine[1]) is False
        assert [await bench.finish(job) for job in others] == [True, True]

    async def test_a_lease_belongs_to_whoever_prolongs_it(self, bench: Bench) -> None:
        """A worker that comes back under another name has its token to show for it."""
        (number,) = await bench.put()
        job = await bench.one(worker="before")
        await bench.store.extend("after", [Held(id=number, token=job.token)], LEASE)
        assert await bench.store.lose("before", [number], why="connection") == 0
        assert (await bench.row(number)).worker == "after"
        assert await bench.store.lose("after", [number], why="connection") == 1

    async def test_a_job_that_kills_its_workers_is_dead_at_last(self, bench: Bench) -> None:
        """After five, whatever attempts are left."""
        (number,) = await bench.put(max_attempts=100)
        for lost in range(1, 6):
            assert (await bench.row(number)).state is JobState.AVAILABLE
            await bench.one()
            await bench.store.lose("w", [number], why="connection")
            assert (await bench.row(number)).lost_count == lost
            await bench.after(60_000)
        assert await bench.state(number) == (JobState.DEAD, "worker_lost")

    # --- cancelling what runs

    async def test_a_running_job_is_asked_to_end(self, bench: Bench) -> None:
        """With the next heartbeat; others aren't."""
        number, other = await bench.put(a_job(), a_job(kind="other"))
        jobs = await bench.claim()
        which = Filter(kind="work")
        assert await bench.store.cancel(which, reason="user", limit=10) == 1
        assert (await bench.row(number)).cancel_requested
        held = [Held(id=job.id, token=job.token) for job in jobs]
        for _ in range(2):
            answer = await bench.store.extend("w", held, LEASE)
            assert (answer.lost, answer.cancel) == ((), (number,))
        assert not (await bench.row(other)).cancel_requested

    @pytest.mark.parametrize("way", ["fail", "release", "snooze", "lose", "lease"])
    async def test_a_job_that_is_to_be_cancelled_ends_so(self, bench: Bench, way: str) -> None:
        """However its worker lets go of it."""
        (number,) = await bench.put()
        job = await bench.one()
        await bench.store.cancel(Filter(ids=(number,)), reason="user", limit=1)
        match way:
            case "fail":
                await bench.fail(job)
            case "release":
                await bench.release(job)
            case "snooze":
                await bench.release(job, delay=1_000)
            case "lose":
                await bench.store.lose("w", [number], why="connection")
            case _:
                await bench.after(LEASE)
        assert await bench.state(number) == (JobState.CANCELLED, "user")
        await bench.after(3_600_000)
        assert await bench.claim() == []

    async def test_a_job_that_is_done_before_it_is_cancelled_is_done(self, bench: Bench) -> None:
        """What was asked for came too late."""
        (number,) = await bench.put()
        job = await bench.one()
        await bench.store.cancel(Filter(ids=(number,)), reason="user", limit=1)
        assert await bench.finish(job)
        assert await bench.state(number) == (JobState.COMPLETED, "")
