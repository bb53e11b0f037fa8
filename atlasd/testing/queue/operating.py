"""What a store keeps of operators' actions: filters, cancel, requeue, purge, counts, groups."""

from typing import Any

import pytest

from atlasd.contracts.queue import Filter, Finish, JobState, QueueCount
from atlasd.testing.queue.bench import Bench, a_job


async def crowd(bench: Bench) -> dict[str, int]:
    """A job in each state, by a name for it."""
    done, discarded, buried, failed, running = await bench.put(
        *[a_job(max_attempts=2) for _ in range(5)]
    )
    jobs = await bench.claim()
    await bench.finish(jobs[0], "1")
    await bench.fail(jobs[1], "discard")
    await bench.fail(jobs[2], "bury")
    await bench.fail(jobs[3], retry_after=3_600_000)
    scheduled, available = await bench.put(a_job(delay=60_000), a_job())
    return {
        "completed": done, "cancelled": discarded, "dead": buried, "retrying": failed,
        "running": running, "scheduled": scheduled, "available": available,
    }  # fmt: skip


class Operating:
    """What people do with jobs."""

    @pytest.mark.parametrize(
        "which",
        [
            {"queue": "a"},
            {"kind": "email.send"},
            {"fair_key": "acme"},
            {"target": "api"},
            {"tag": "x"},
            {"states": (JobState.SCHEDULED,)},
            {"queue": "a", "kind": "email.send", "tag": "x"},
        ],
        ids="+".join,
    )
    async def test_a_filter_means_what_fits_it(self, bench: Bench, which: dict[str, Any]) -> None:
        """All that is said, and nothing but."""
        made: list[int] = []
        fitting: list[int] = []
        for queue in ("a", "b"):
            for kind in ("email.send", "email"):
                for tags in ('{"tags":["x","y"]}', '{"tags":["xy"]}', ""):
                    for rest in ({"fair_key": "acme"}, {"target": "api"}, {"delay": 60_000}):
                        job = a_job(queue=queue, kind=kind, options=tags, **rest)
                        made += await bench.put(job)
                        values: dict[str, Any] = {
                            "queue": queue, "kind": kind, "fair_key": rest.get("fair_key"),
                            "target": rest.get("target"), "tag": "x" if '"x"' in tags else None,
                            "states": (JobState.SCHEDULED,) if "delay" in rest else (),
                        }  # fmt: skip
                        if all(values[name] == value for name, value in which.items()):
                            fitting.append(made[-1])
        assert 0 < len(fitting) < len(made)
        assert [row.id for row in await bench.rows(**which)] == fitting
        picked = (fitting[0], made[-1], 1 << 40)
        expected = sorted({fitting[0]} | ({made[-1]} & set(fitting)))
        assert [row.id for row in await bench.rows(**which, ids=picked)] == expected

    async def test_a_filter_goes_by_the_end_and_by_the_failure(self, bench: Bench) -> None:
        """When a job ended, and how."""
        first, second = await bench.put(a_job(), a_job())
        jobs = await bench.claim()
        await bench.fail(jobs[0], "bury", error="KeyError")
        await bench.advance(1_000)
        await bench.fail(jobs[1], "bury")
        rows = await bench.rows()
        assert rows[0].fingerprint != rows[1].fingerprint
        assert [row.id for row in await bench.rows(fingerprint=rows[0].fingerprint)] == [first]
        end = rows[1].finalized_at
        assert [row.id for row in await bench.rows(finalized_before=end)] == [first]
        assert [row.id for row in await bench.rows(finalized_before=end + 1)] == [first, second]
        assert [row.id for row in await bench.rows(finalized_since=end)] == [second]
        assert [row.id for row in await bench.rows(finalized_since=end + 1)] == []

    async def test_a_list_comes_page_by_page(self, bench: Bench) -> None:
        """By id, without a gap or a repetition."""
        numbers = await bench.put(*[a_job()] * 25)
        found: list[int] = []
        while page := await bench.store.select(Filter(after=found[-1] if found else 0), 10):
            assert len(page) <= 10
            found += [row.id for row in page]
        assert found == numbers

    async def test_what_is_not_there_is_nothing(self, bench: Bench) -> None:
        """No job, no rows, no breakers, no mistake."""
        assert await bench.store.get(1 << 40) is None
        assert list(await bench.store.select(Filter(queue="nowhere"), 10)) == []
        assert list(await bench.store.breakers()) == []
        assert list(await bench.store.dead(10)) == []
        assert list(await bench.store.count()) == []
        assert await bench.store.cancel(Filter(ids=(1 << 40,)), reason="user", limit=9) == 0
        assert list(await bench.store.requeue(Filter(ids=(1 << 40,)), limit=9)) == []
        assert await bench.store.purge(Filter(ids=(1 << 40,)), limit=9) == 0

    # --- cancel

    async def test_what_waits_is_cancelled_at_once(self, bench: Bench) -> None:
        """What runs is asked to end, and what has ended stays as it was."""
        made = await crowd(bench)
        before = {name: await bench.row(number) for name, number in made.items()}
        assert await bench.store.cancel(Filter(queue="q"), reason="user", limit=99) == 4
        for name in ("retrying", "scheduled", "available"):
            assert await bench.state(made[name]) == (JobState.CANCELLED, "user")
        running = before["running"]._replace(cancel_requested=True)
        assert await bench.row(made["running"]) == running
        for name in ("completed", "cancelled", "dead"):
            assert await bench.row(made[name]) == before[name]
        assert await bench.claim() == []

    async def test_a_limit_counts_only_what_can_be_cancelled(self, bench: Bench) -> None:
        """Ended jobs before it don't use it up."""
        await crowd(bench)
        done = [await bench.store.cancel(Filter(), reason="user", limit=2) for _ in range(2)]
        assert done == [2, 2]

    # --- requeue

    @pytest.mark.parametrize("name", ["completed", "cancelled", "dead"])
    async def test_what_has_ended_can_run_again(self, bench: Bench, name: str) -> None:
        """With a fresh budget of attempts; its history stays."""
        made = await crowd(bench)
        await bench.advance(1_000)
        before = await bench.row(made[name])
        assert list(await bench.store.requeue(Filter(ids=(made[name],)), limit=1)) == [made[name]]
        row = await bench.row(made[name])
        assert (row.state, row.attempt, row.lost_count) == (JobState.AVAILABLE, 0, 0)
        assert (row.token, row.errors, row.created_at) == (
            before.token, before.errors, before.created_at,
        )  # fmt: skip
        assert (row.requeued_from, row.result, row.args) == (name, "", before.args)
        assert row.run_at == await bench.store.now()
        await bench.finish(next(job for job in await bench.claim() if job.id != made["available"]))
        again = await bench.row(made[name])
        assert (again.state, again.requeued_from) == (JobState.COMPLETED, name)

    async def test_a_requeued_job_has_all_its_attempts(self, bench: Bench) -> None:
        """As many as a new one."""
        (number,) = await bench.put(max_attempts=2)
        for _ in range(2):
            for _ in range(2):
                await bench.fail(await bench.one())
                await bench.after(3_600_000)
            assert await bench.state(number) == (JobState.DEAD, "exhausted")
            await bench.store.requeue(Filter(ids=(number,)), limit=1)

    async def test_a_requeued_job_does_not_expire(self, bench: Bench) -> None:
        """Its time was over before; somebody wants it now."""
        (number,) = await bench.put(expires_in=1_000)
        await bench.after(1_000)
        await bench.store.requeue(Filter(ids=(number,)), limit=1)
        await bench.after(60_000)
        assert (await bench.one()).id == number

    async def test_it_can_run_with_other_arguments(self, bench: Bench) -> None:
        """The new ones, from then on."""
        (number,) = await bench.put(args='{"to":"nobody"}')
        await bench.fail(await bench.one(), "bury")
        await bench.store.requeue(Filter(ids=(number,)), args='{"to":"ops"}', limit=1)
        assert (await bench.one()).args == '{"to":"ops"}'

    async def test_what_has_not_ended_cannot_be_requeued(self, bench: Bench) -> None:
        """And counts for no limit."""
        made = await crowd(bench)
        ended = [made[name] for name in ("completed", "cancelled", "dead")]
        waiting = [made[name] for name in ("retrying", "running", "scheduled", "available")]
        before = [await bench.row(number) for number in waiting]
        which = Filter(ids=tuple(waiting))
        assert list(await bench.store.requeue(which, limit=9)) == []
        assert [await bench.row(number) for number in waiting] == before
        found = [list(await bench.store.requeue(Filter(), limit=2)) for _ in range(2)]
        assert found == [ended[:2], ended[2:]]

    # --- dead letters from hand to hand

    async def test_a_dead_job_can_be_edited(self, bench: Bench) -> None:
        """It stays dead; no other job can be."""
        dead, waits = await bench.put(a_job(), a_job())
        await bench.fail(await bench.one(limit=1), "bury")
        before, other = await bench.row(dead), await bench.row(waits)
        assert await bench.store.edit(dead, args='{"to":"x"}')
        assert not await bench.store.edit(waits, args='{"to":"x"}')
        assert not await bench.store.edit(1 << 40, args="{}")
        assert await bench.row(dead) == before._replace(args='{"to":"x"}')
        assert await bench.row(waits) == other

    async def test_what_is_restored_is_as_it_was_under_a_new_id(self, bench: Bench) -> None:
        """The same import a second time takes nothing in."""
        (number,) = await bench.put(fair_key="acme", target="bank", options='{"tags":["a"]}')
        await bench.fail(await bench.one(), "bury")
        row = await bench.row(number)
        again, other = row._replace(unique_key="import:1"), row._replace(queue="other")
        made, strange = await bench.store.restore([again, other])
        assert len({number, made, strange}) == 3
        assert await bench.row(made) == again._replace(id=made)
        assert await bench.row(strange) == other._replace(id=strange)
        assert list(await bench.store.restore([again])) == [0]
        assert list(await bench.store.requeue(Filter(ids=(made,)), limit=1)) == [made]
        assert list(await bench.store.restore([again])) == [0], "though it has left the dead"
        job = await bench.one()
        assert (job.id, job.token) == (made, row.token + 1)
        await bench.advance(86_400_001)
        (third,) = await bench.store.restore([again])
        assert third > strange
        found = {(one.queue, one.state): one.jobs for one in await bench.store.count()}
        assert (found["q", JobState.DEAD], found["other", JobState.DEAD]) == (2, 1)
        await bench.store.purge(Filter(), limit=99)

    # --- purge

    async def test_whatever_does_not_run_can_be_deleted(self, bench: Bench) -> None:
        """What runs stays, and ends as if nothing had been."""
        made = await crowd(bench)
        jobs = await bench.rows(states=(JobState.RUNNING,))
        assert await bench.store.purge(Filter(queue="q"), limit=99) == 6
        assert [row.id for row in await bench.rows()] == [made["running"]]
        assert await bench.claim() == []
        assert await bench.settle(Finish(jobs[0].id, jobs[0].token)) == [True]

    async def test_a_purge_goes_by_its_filter_and_limit(self, bench: Bench) -> None:
        """No other queue, no other state; the running don't count."""
        await bench.put(*[a_job(queue="other")] * 3, *[a_job()] * 5)
        await bench.claim(2)
        which = Filter(queue="q", states=(JobState.RUNNING, JobState.AVAILABLE))
        assert [await bench.store.purge(which, limit=2) for _ in range(3)] == [2, 1, 0]
        assert await bench.numbers() == {JobState.AVAILABLE: 3, JobState.RUNNING: 2}

    # --- counts

    async def test_it_says_how_many_are_ahead(self, bench: Bench) -> None:
        """In the same lane, by rank."""
        numbers = await bench.put(*(a_job(priority=one) for one in (5, 1, 9, 5)), a_job(target="t"))
        ahead = [await bench.store.ahead(number, 99) for number in numbers]
        assert ahead == [1, 0, 3, 2, 0]
        assert await bench.store.ahead(numbers[2], 2) == 2
        assert await bench.store.ahead(1 << 40, 2) == 0

    async def test_jobs_are_counted_by_queue_and_state(self, bench: Bench) -> None:
        """And how long the first in line of each queue has been waiting."""
        now = await bench.store.now()
        await bench.put(a_job(), a_job())
        await bench.advance(500)
        await bench.put(a_job(queue="r"), a_job(queue="r", delay=60_000), a_job())
        counts = [one for one in await bench.store.count() if one.jobs]
        assert sorted(counts) == [
            QueueCount("q", JobState.AVAILABLE, 3, now),
            QueueCount("r", JobState.AVAILABLE, 1, now + 500),
            QueueCount("r", JobState.SCHEDULED, 1, 0),
        ]
        assert len(await bench.claim(2)) == 2
        found = {(one.queue, one.state): one for one in await bench.store.count()}
        assert found["q", JobState.AVAILABLE].oldest == now + 500
        assert found["q", JobState.RUNNING].jobs == 2

    async def test_the_dead_are_grouped_by_how_they_died(self, bench: Bench) -> None:
        """The largest group first; with an example, and since when."""
        start = await bench.store.now()
        for error, message in (
            ("KeyError", "'a'"), ("ValueError", "no"), ("ValueError", "no"), ("ValueError", "no"),
        ):  # fmt: skip
            await bench.put(kind="email.send")
            await bench.fail(await bench.one(), "bury", error=error, message=message)
            await bench.advance(1_000)
        await bench.put(kind="email.send")
        await bench.fail(await bench.one(), "discard")
        many, one = await bench.store.dead(10)
        assert (many.jobs, many.queue, many.kind, many.reason) == (3, "q", "email.send", "buried")
        assert many.error == "ValueError: no"
        assert (many.first, many.last) == (start + 1_000, start + 3_000)
        assert (one.jobs, one.error) == (1, "KeyError: 'a'")
        assert list(await bench.store.dead(1)) == [many]
        rows = await bench.rows(fingerprint=many.fingerprint, states=(JobState.DEAD,))
        assert len(rows) == 3
