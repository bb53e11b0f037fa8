"""What a store keeps of new jobs: every field, order, limits, repeated requests."""

import asyncio
import json

import pytest

from atlasd.contracts.queue import Enqueued, Filter, JobState, NewJob, QueueLimits
from atlasd.errors import AtlasError
from atlasd.testing.queue.bench import Bench, a_job, ids

DAY = 86_400_000


class Enqueuing:
    """New jobs."""

    async def test_a_job_is_kept_as_it_was_enqueued(self, bench: Bench) -> None:
        """Every field is there, with moments by the store's clock."""
        now = await bench.store.now()
        job = NewJob(
            "mail", "email.send", '{"to":"ops@example.org"}', delay=5_000, priority=3,
            max_attempts=7, fair_key="acme", target="smtp.example.org", unique_key="k",
            expires_in=60_000, options='{"tags":["a"]}',
        )  # fmt: skip
        (made,) = await bench.store.enqueue([job])
        assert made == Enqueued(made.id, JobState.SCHEDULED, "created")
        row = await bench.row(made.id)
        assert now <= row.created_at <= await bench.store.now()
        assert row.run_at == row.created_at + 5_000
        assert row.expires_at == row.created_at + 60_000
        assert row.rank_at == row.run_at + 3 * 60_000
        kept = ("queue", "kind", "args", "priority", "max_attempts", "fair_key", "target",
                "unique_key", "unique_until", "options")  # fmt: skip
        assert {name: getattr(row, name) for name in kept} == {
            name: getattr(job, name) for name in kept
        }
        assert (row.state, row.attempt, row.token, row.lost_count) == (made.state, 0, 0, 0)
        assert (row.errors, row.result, row.progress, row.requeued_from) == ("", "", "", "")

    async def test_a_batch_is_answered_in_order(self, bench: Bench) -> None:
        """Many jobs of several queues and kinds, each with its own answer."""
        jobs = [
            a_job(queue=f"q{number % 3}", kind=f"kind{number % 5}", args=f'{{"n":{number}}}')
            for number in range(700)
        ]
        made = await bench.store.enqueue(jobs)
        assert len(made) == len(jobs)
        rows = {row.id: row for row in await bench.rows()}
        assert len(rows) == len(jobs)
        for job, one in zip(jobs, made, strict=True):
            row = rows[one.id]
            assert (row.queue, row.kind, row.args) == (job.queue, job.kind, job.args)
        order = [one.id for one in made]
        assert order == sorted(order)

    async def test_nothing_can_be_enqueued(self, bench: Bench) -> None:
        """An empty batch is no mistake."""
        assert list(await bench.store.enqueue([])) == []

    async def test_what_is_due_is_available_and_the_rest_is_scheduled(self, bench: Bench) -> None:
        """By `run_at` or by `delay`."""
        now = await bench.store.now()
        made = await bench.store.enqueue(
            [a_job(), a_job(run_at=now - 1), a_job(delay=60_000), a_job(run_at=now + 60_000)]
        )
        assert [one.state for one in made] == [JobState.AVAILABLE] * 2 + [JobState.SCHEDULED] * 2
        rows = [await bench.row(one.id) for one in made]
        assert [row.state for row in rows] == [one.state for one in made]
        assert rows[1].run_at == now - 1
        assert rows[3].run_at == now + 60_000

    @pytest.mark.parametrize(
        "text",
        ["ünïcödé ключ 🚚", "quotes \" and \\ and ' and ;--", "line\nbreak\ttab", "%s ? $1 :x {}"],
    )
    async def test_texts_come_back_as_they_were(self, bench: Bench, text: str) -> None:
        """Nothing in a text means anything to the store."""
        args = json.dumps({"text": text}, ensure_ascii=False)
        (number,) = await bench.put(
            args=args, unique_key=text, options=json.dumps({"note": text}, ensure_ascii=False)
        )
        job = await bench.one()
        assert (job.args, json.loads(job.options)) == (args, {"note": text})
        assert (await bench.row(number)).unique_key == text
        await bench.finish(job, json.dumps([text]))
        assert json.loads((await bench.row(number)).result) == [text]

    async def test_large_arguments_are_whole(self, bench: Bench) -> None:
        """A mebibyte is a lot, and allowed."""
        args = json.dumps({"text": "x" * 1_048_000})
        await bench.put(args=args)
        assert (await bench.one()).args == args

    async def test_enqueued_at_once_each_has_an_id(self, bench: Bench) -> None:
        """Requests at the same time don't take each other's place."""
        made = await asyncio.gather(*(bench.put(a_job(), a_job()) for _ in range(50)))
        found = [number for numbers in made for number in numbers]
        assert len(set(found)) == 100
        assert sorted(found) == [row.id for row in await bench.rows()]

    async def test_an_id_is_never_given_twice(self, bench: Bench) -> None:
        """Not even when the last job is gone, nor by a store that was opened anew."""
        (first,) = await bench.put()
        assert await bench.store.purge(Filter(ids=(first,)), limit=10) == 1
        (second,) = await bench.put()
        assert second > first
        await bench.store.purge(Filter(ids=(second,)), limit=10)
        await bench.reopen()
        (third,) = await bench.put()
        assert third > second

    # --- limits

    async def test_a_full_queue_takes_all_of_a_batch_or_none(self, bench: Bench) -> None:
        """The refusal names the queue; the other queues of the batch get nothing either."""
        bench.rule(queues={"q": QueueLimits(size=3)})
        await bench.put(a_job(), a_job(delay=60_000))
        with pytest.raises(AtlasError) as caught:
            await bench.put(a_job(queue="other"), a_job(), a_job())
        assert caught.value.code == "job.queue_full"
        assert "q" in caught.value.message
        assert len(await bench.rows()) == 2
        await bench.put(a_job(queue="other"), a_job())
        assert len(await bench.rows()) == 4

    async def test_running_and_ended_jobs_fill_no_queue(self, bench: Bench) -> None:
        """Only what waits does."""
        bench.rule(queues={"q": QueueLimits(size=1)})
        await bench.put()
        job = await bench.one()
        await bench.put()
        with pytest.raises(AtlasError):
            await bench.put()
        await bench.finish(job)
        assert len(await bench.claim()) == 1
        await bench.put()

    # --- repeated requests

    async def test_a_repeated_request_has_the_answer_of_the_first_time(self, bench: Bench) -> None:
        """Whatever came of the job since, and also when two come at once."""
        enqueue = bench.store.enqueue
        first, again = await asyncio.gather(
            enqueue([a_job(), a_job(delay=9)], idempotency_key="order-1"),
            enqueue([a_job(), a_job(delay=9)], idempotency_key="order-1"),
        )
        assert list(first) == list(again)
        assert len(await bench.rows()) == 2
        for job in await bench.claim():
            await bench.finish(job)
        assert list(await enqueue([a_job()], idempotency_key="order-1")) == list(first)
        (other,) = await enqueue([a_job()], idempotency_key="order-2")
        assert other.id not in [one.id for one in first]

    async def test_a_key_is_forgotten_after_a_day(self, bench: Bench) -> None:
        """Not before."""
        enqueue = bench.store.enqueue
        (first,) = await enqueue([a_job(delay=9 * DAY)], idempotency_key="k")
        await bench.after(DAY - 1)
        (again,) = await enqueue([a_job()], idempotency_key="k")
        assert again.id == first.id
        await bench.after(2)
        (new,) = await enqueue([a_job()], idempotency_key="k")
        assert new.id != first.id

    async def test_a_refusal_is_not_remembered(self, bench: Bench) -> None:
        """The same request succeeds once there is room."""
        bench.rule(queues={"q": QueueLimits(size=1)})
        await bench.put()
        with pytest.raises(AtlasError):
            await bench.store.enqueue([a_job()], idempotency_key="k")
        assert len(await bench.claim()) == 1
        (made,) = await bench.store.enqueue([a_job()], idempotency_key="k")
        assert made.outcome == "created"
        assert ids(await bench.claim()) == [made.id]
