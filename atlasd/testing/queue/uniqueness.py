"""What a store keeps of unique keys: who has one, and when it is free again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from atlasd.contracts.queue import UNTIL_CLAIMED, UNTIL_FINISHED, Filter, JobState
from atlasd.testing.queue.bench import LEASE, Bench, a_job

WINDOW = 600_000
"""Milliseconds; longer than whatever the tests let pass before they mean it to end."""


async def _scheduled(bench: Bench, until: int) -> int:
    (number,) = await bench.put(unique_key="k", unique_until=until, delay=60_000)
    return number


async def _available(bench: Bench, until: int) -> int:
    (number,) = await bench.put(unique_key="k", unique_until=until)
    return number


async def _running(bench: Bench, until: int) -> int:
    number = await _available(bench, until)
    await bench.one()
    return number


async def _retrying(bench: Bench, until: int) -> int:
    number = await _available(bench, until)
    await bench.fail(await bench.one())
    return number


async def _lost(bench: Bench, until: int) -> int:
    number = await _available(bench, until)
    await bench.one()
    await bench.store.lose("w", [number], why="connection")
    return number


async def _finished(bench: Bench) -> None:
    await bench.finish(await bench.one())


async def _discarded(bench: Bench) -> None:
    await bench.fail(await bench.one(), "discard")


async def _buried(bench: Bench) -> None:
    await bench.fail(await bench.one(), "bury")


async def _exhausted(bench: Bench) -> None:
    while jobs := await bench.claim():
        await bench.fail(jobs[0])
        await bench.after(60_000)


async def _killed(bench: Bench) -> None:
    while await bench.claim():
        await bench.after(LEASE)
        await bench.after(60_000)


async def _cancelled(bench: Bench) -> None:
    await bench.store.cancel(Filter(queue="q"), reason="user", limit=10)


async def _cancelled_running(bench: Bench) -> None:
    job = await bench.one()
    await _cancelled(bench)
    await bench.release(job)


async def _expired(bench: Bench) -> None:
    await bench.after(100_000)


async def _purged(bench: Bench) -> None:
    await bench.store.purge(Filter(queue="q"), limit=10)


HOLDING = (_scheduled, _available, _running, _retrying, _lost)
WAITING = (_scheduled, _available, _retrying)
WAYS_OUT = (
    _finished, _discarded, _buried, _exhausted, _killed, _cancelled, _cancelled_running, _expired,
    _purged,
)  # fmt: skip


def named(way: Callable[..., object]) -> str:
    """What a case is called."""
    return way.__name__.strip("_")


class Uniqueness:
    """Unique keys."""

    @pytest.mark.parametrize("until", [UNTIL_FINISHED, WINDOW], ids=["finished", "window"])
    @pytest.mark.parametrize("way", HOLDING, ids=named)
    async def test_a_key_is_held_in_every_state_before_the_last(
        self, bench: Bench, way: Callable[[Bench, int], Awaitable[int]], until: int
    ) -> None:
        """The retry wait is one of them."""
        number = await way(bench, until)
        (other,) = await bench.store.enqueue([a_job(unique_key="k")])
        row = await bench.row(number)
        assert (other.id, other.state, other.outcome) == (number, row.state, "existing")
        assert len(await bench.rows()) == 1

    @pytest.mark.parametrize("way", WAYS_OUT, ids=named)
    async def test_a_key_is_free_after_every_way_out(
        self, bench: Bench, way: Callable[[Bench], Awaitable[None]]
    ) -> None:
        """Nothing else has to happen for it."""
        (number,) = await bench.put(unique_key="k", max_attempts=3, expires_in=90_000)
        await way(bench)
        (other,) = await bench.store.enqueue([a_job(unique_key="k")])
        assert (other.outcome, other.id != number) == ("created", True)

    @pytest.mark.parametrize("way", HOLDING, ids=named)
    async def test_a_key_until_the_claim_is_free_with_the_claim(
        self, bench: Bench, way: Callable[[Bench, int], Awaitable[int]]
    ) -> None:
        """And never taken again, whatever becomes of the job."""
        number = await way(bench, UNTIL_CLAIMED)
        claimed = (await bench.row(number)).attempt > 0
        (other,) = await bench.store.enqueue([a_job(unique_key="k", unique_until=UNTIL_CLAIMED)])
        assert other.outcome == ("created" if claimed else "existing")

    async def test_a_window_is_longer_than_its_job(self, bench: Bench) -> None:
        """The key is free when the window ends, not when the job does."""
        (number,) = await bench.put(unique_key="k", unique_until=WINDOW)
        await bench.finish(await bench.one())
        await bench.after(WINDOW - 1)
        (other,) = await bench.store.enqueue([a_job(unique_key="k", unique_until=WINDOW)])
        assert (other.id, other.state, other.outcome) == (number, JobState.COMPLETED, "existing")
        await bench.after(1)
        (other,) = await bench.store.enqueue([a_job(unique_key="k", unique_until=WINDOW)])
        assert (other.id != number, other.outcome) == (True, "created")

    async def test_a_job_is_kept_for_as_long_as_its_window(self, bench: Bench) -> None:
        """Retention doesn't free its key."""
        day = 86_400_000
        (number,) = await bench.put(unique_key="k", unique_until=3 * day)
        await bench.finish(await bench.one())
        await bench.after(2 * day)
        (other,) = await bench.store.enqueue([a_job(unique_key="k", unique_until=day)])
        assert other.id == number
        await bench.after(2 * day)
        assert await bench.store.get(number) is None

    async def test_a_window_goes_on_for_a_job_that_is_requeued(self, bench: Bench) -> None:
        """There are never two within one window."""
        (number,) = await bench.put(unique_key="k", unique_until=WINDOW)
        await bench.fail(await bench.one(), "bury")
        await bench.store.requeue(Filter(ids=(number,)), limit=1)
        (other,) = await bench.store.enqueue([a_job(unique_key="k", unique_until=WINDOW)])
        assert (other.id, other.state) == (number, JobState.AVAILABLE)

    async def test_a_requeued_job_takes_nobodys_key(self, bench: Bench) -> None:
        """Its key may be another's by now."""
        (first,) = await bench.put(unique_key="k")
        await bench.finish(await bench.one())
        (second,) = await bench.put(unique_key="k")
        assert list(await bench.store.requeue(Filter(ids=(first,)), limit=1)) == [first]
        (third,) = await bench.store.enqueue([a_job(unique_key="k")])
        assert third.id == second
        assert len(await bench.claim()) == 2

    # --- conflicts

    @pytest.mark.parametrize("way", HOLDING, ids=named)
    async def test_reject_says_whose_the_key_is(
        self, bench: Bench, way: Callable[[Bench, int], Awaitable[int]]
    ) -> None:
        """And changes nothing."""
        number = await way(bench, UNTIL_FINISHED)
        before = await bench.row(number)
        job = a_job(unique_key="k", on_conflict="reject", args='{"n":2}')
        (other,) = await bench.store.enqueue([job])
        assert (other.id, other.state, other.outcome) == (number, before.state, "rejected")
        assert await bench.row(number) == before

    @pytest.mark.parametrize("way", HOLDING, ids=named)
    async def test_replace_args_has_the_waiting_job_run_with_the_new_ones(
        self, bench: Bench, way: Callable[[Bench, int], Awaitable[int]]
    ) -> None:
        """A running one goes on with its own."""
        number = await way(bench, UNTIL_FINISHED)
        before = await bench.row(number)
        waits = before.state is not JobState.RUNNING
        job = a_job(unique_key="k", on_conflict="replace_args", args='{"n":2}', options='{"o":1}')
        (other,) = await bench.store.enqueue([job])
        assert (other.id, other.state) == (number, before.state)
        assert other.outcome == ("replaced" if waits else "existing")
        changed = before._replace(args='{"n":2}', options='{"o":1}') if waits else before
        assert await bench.row(number) == changed

    @pytest.mark.parametrize("way", HOLDING, ids=named)
    async def test_move_run_at_moves_the_waiting_job(
        self, bench: Bench, way: Callable[[Bench, int], Awaitable[int]]
    ) -> None:
        """Later or earlier; its place in line goes by its own priority."""
        number = await way(bench, UNTIL_FINISHED)
        before = await bench.row(number)
        waits = before.state is not JobState.RUNNING
        later = a_job(unique_key="k", on_conflict="move_run_at", delay=90_000, priority=0)
        (other,) = await bench.store.enqueue([later])
        assert other.id == number
        if not waits:
            assert (other.state, other.outcome) == (JobState.RUNNING, "existing")
            assert await bench.row(number) == before
            return
        assert (other.state, other.outcome) == (JobState.SCHEDULED, "moved")
        run_at = await bench.store.now() + 90_000
        rank = bench.rules.rank("q", before.priority, run_at)
        assert await bench.row(number) == before._replace(
            state=JobState.SCHEDULED, run_at=run_at, rank_at=rank
        )
        await bench.after(89_999)
        assert await bench.claim() == []
        sooner = a_job(unique_key="k", on_conflict="move_run_at")
        (other,) = await bench.store.enqueue([sooner])
        assert (other.id, other.state, other.outcome) == (number, JobState.AVAILABLE, "moved")
        assert (await bench.one()).id == number

    async def test_within_a_batch_the_first_has_the_key(self, bench: Bench) -> None:
        """Each is answered."""
        made = await bench.store.enqueue(
            [a_job(unique_key="k"), a_job(), a_job(unique_key="k"), a_job(unique_key="other")]
        )
        assert [one.outcome for one in made] == ["created", "created", "existing", "created"]
        assert made[2].id == made[0].id

    async def test_of_many_at_once_one_has_the_key(self, bench: Bench) -> None:
        """However they come together."""
        made = await asyncio.gather(
            *(bench.store.enqueue([a_job(unique_key="k"), a_job()]) for _ in range(20))
        )
        outcomes = [one[0].outcome for one in made]
        assert sorted(outcomes) == ["created"] + ["existing"] * 19
        assert len({one[0].id for one in made}) == 1
        assert len(await bench.rows()) == 21

    async def test_without_a_key_nothing_collides(self, bench: Bench) -> None:
        """And keys are told apart to the letter."""
        made = await bench.store.enqueue(
            [a_job(), a_job(), *(a_job(unique_key=key) for key in ("k", "K", "k ", " k", "ḱ"))]
        )
        assert {one.outcome for one in made} == {"created"}

    async def test_what_falls_due_keeps_its_key(self, bench: Bench) -> None:
        """Promotion of one collides with nobody, and holds nobody else up."""
        await bench.put(a_job(unique_key="a", delay=5), a_job(unique_key="b", delay=5))
        assert (await bench.after(5)).promoted == 2
        made = await bench.store.enqueue([a_job(unique_key="a"), a_job(unique_key="b")])
        assert [one.outcome for one in made] == ["existing", "existing"]
        assert len(await bench.claim()) == 2
