"""The SQLite queue itself: one commit for many, what a crash leaves, what a full disk costs."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.queue import (
    ClaimAsk,
    Distribution,
    Failure,
    Filter,
    Finish,
    JobState,
    NewJob,
    Release,
    Row,
)
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd.jobs.rules import QueueRules
from atlasd.testing.context import PlainContext
from atlasd_plugins.queue_sqlite import open_store
from atlasd_plugins.queue_sqlite.store import SqliteQueue


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def queue(tmp_path: Path, clock: HandClock) -> AsyncIterator[SqliteQueue]:
    context = PlainContext(tmp_path, clock=clock)
    rules = QueueRules(chance=lambda: 0.0)
    async with open_store(NoSettings(), context, rules) as store:
        assert isinstance(store, SqliteQueue)
        yield store
    context.close()


def mail(**rest: object) -> NewJob:
    return NewJob("email", "email.send", '{"to":"ops@example.org"}')._replace(**rest)  # type: ignore[arg-type]


def ask(worker: str = "w", limit: int = 10, **rest: int) -> ClaimAsk:
    return ClaimAsk(worker=worker, queues=("email",), limit=limit, lease=30_000, **rest)


async def test_a_job_goes_its_way(queue: SqliteQueue) -> None:
    (made,) = await queue.enqueue([mail()])
    assert (made.state, made.outcome) == (JobState.AVAILABLE, "created")
    _, (job,) = await queue.exchange([], ask())
    assert (job.id, job.token, job.attempt) == (made.id, 1, 1)
    held, _ = await queue.exchange([Finish(job.id, job.token, '{"ok":1}')], None)
    assert held == [True]
    row = await queue.get(job.id)
    assert row is not None
    assert (row.state, row.result, row.worker) == (JobState.COMPLETED, '{"ok":1}', "")


async def test_requests_that_wait_together_share_a_commit(queue: SqliteQueue) -> None:
    before = queue.group.tally.commits
    await asyncio.gather(*(queue.enqueue([mail()]) for _ in range(64)))
    assert queue.group.tally.commits == before + 1


async def test_an_idle_worker_is_given_a_job_by_the_commit_that_makes_it(
    queue: SqliteQueue,
) -> None:
    waiting = asyncio.ensure_future(queue.exchange([], ask(wait=60_000)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    before = queue.group.tally.commits
    (made,) = await queue.enqueue([mail()])
    _, (job,) = await waiting
    assert job.id == made.id
    assert queue.group.tally.commits == before + 1


async def test_a_claim_that_was_given_up_takes_nothing(queue: SqliteQueue) -> None:
    waiting = asyncio.ensure_future(queue.exchange([], ask(wait=60_000)))
    await asyncio.sleep(0)
    waiting.cancel()
    (made,) = await queue.enqueue([mail()])
    row = await queue.get(made.id)
    assert row is not None
    assert row.state is JobState.AVAILABLE


async def test_a_failure_is_tried_again_later_and_a_token_grows(
    queue: SqliteQueue, clock: HandClock
) -> None:
    await queue.enqueue([mail()])
    _, (job,) = await queue.exchange([], ask())
    await queue.exchange([Failure(job.id, job.token, "ValueError", "no")], None)
    _, none = await queue.exchange([], ask())
    assert none == []
    due = await queue.maintain()
    assert due.next_due == await queue.now() + 5_000
    clock.wind(5.0)
    assert (await queue.maintain()).promoted == 1
    _, (again,) = await queue.exchange([], ask())
    assert (again.token, again.attempt) == (2, 2)
    held, _ = await queue.exchange([Finish(job.id, job.token)], None)
    assert held == [False], "the first claim's token is worth nothing any longer"


async def test_released_attempts_are_not_counted(queue: SqliteQueue) -> None:
    await queue.enqueue([mail()])
    _, (job,) = await queue.exchange([], ask())
    await queue.exchange([Release(job.id, job.token)], None)
    _, (again,) = await queue.exchange([], ask())
    assert (again.token, again.attempt) == (2, 1)


async def test_a_lease_that_ran_out_is_somebody_elses(queue: SqliteQueue, clock: HandClock) -> None:
    await queue.enqueue([mail()])
    _, (job,) = await queue.exchange([], ask())
    clock.wind(30.0)
    assert (await queue.maintain()).lost == 1
    clock.wind(1.0)
    await queue.maintain()
    _, (again,) = await queue.exchange([], ask("v"))
    assert (again.token, again.lost_count) == (2, 1)
    held, _ = await queue.exchange([Finish(job.id, job.token)], None)
    assert held == [False]


async def test_what_was_acknowledged_is_there_for_a_successor(
    queue: SqliteQueue, tmp_path: Path, clock: HandClock
) -> None:
    await queue.enqueue([mail(), mail(delay=1_000), mail(unique_key="k")])
    _, (job,) = await queue.exchange([], ask(limit=1))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("queue.db", "queue.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    context = PlainContext(copy, clock=clock)
    async with open_store(NoSettings(), context, QueueRules()) as successor:
        counts = {row.state: row.jobs for row in await successor.count()}
        assert counts == {JobState.AVAILABLE: 1, JobState.SCHEDULED: 1, JobState.RUNNING: 1}
        held, _ = await successor.exchange([Finish(job.id, job.token)], None)
        assert held == [True]
        (other,) = await successor.enqueue([mail(unique_key="k")])
        assert other.outcome == "existing"
    context.close()


async def test_a_disk_that_refuses_costs_nothing_that_was_acknowledged(
    queue: SqliteQueue,
) -> None:
    (kept,) = await queue.enqueue([mail()])
    connection = queue.group.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    big = json.dumps({"text": "x" * 400_000})
    with pytest.raises(AtlasError) as caught:
        await asyncio.gather(queue.enqueue([mail(args=big)]), queue.enqueue([mail(args=big)]))
    assert caught.value.code == "job.store"
    connection.execute("PRAGMA max_page_count = 1073741823")
    await queue.enqueue([mail()])
    assert {row.state: row.jobs for row in await queue.count()} == {JobState.AVAILABLE: 2}
    assert next(row.id for row in await queue.select(Filter(), 10)) == kept.id


async def test_the_log_of_the_database_stays_small(queue: SqliteQueue, tmp_path: Path) -> None:
    args = json.dumps({"text": "x" * 20_000})
    for _ in range(40):
        await queue.enqueue([mail(args=args)] * 50)
    assert (tmp_path / "queue.db").stat().st_size > 2**24
    assert (tmp_path / "queue.db-wal").stat().st_size < 2**25


async def test_an_id_is_never_given_twice(queue: SqliteQueue) -> None:
    (made,) = await queue.enqueue([mail()])
    assert await queue.purge(Filter(ids=(made.id,)), limit=10) == 1
    queue.group.broken = True  # memory is read anew, as after a failed commit
    (other,) = await queue.enqueue([mail()])
    assert other.id > made.id


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"something else entirely, for longer than a header" * 100)
    context = PlainContext(tmp_path)
    with pytest.raises(AtlasError) as caught:
        async with open_store(NoSettings(), context, QueueRules()):
            raise AssertionError("it was opened")
    context.close()
    assert caught.value.code == "job.store"
    assert path.read_bytes().startswith(b"something else")


def test_a_state_and_its_final_time_go_together(tmp_path: Path) -> None:
    from atlasd_plugins.queue_sqlite import connect

    connection = connect(tmp_path / "queue.db")
    insert = (
        "INSERT INTO jobs (lane, spec, state, rank_at, run_at, finalized_at)"
        " VALUES (1, 1, ?, 0, 0, ?)"
    )
    for state, final in (("completed", None), ("available", 5), ("asleep", None)):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(insert, (state, final))
    connection.close()


async def dead_row(queue: SqliteQueue, **rest: object) -> Row:
    (made,) = await queue.enqueue([mail(max_attempts=1, **rest)])
    _, (job,) = await queue.exchange([], ask())
    await queue.exchange([Failure(job.id, job.token, "ValueError", "no")], None)
    row = await queue.get(made.id)
    assert row is not None
    assert row.state is JobState.DEAD
    return row


async def test_a_dead_job_is_edited_and_others_are_not(queue: SqliteQueue) -> None:
    row = await dead_row(queue)
    (waits,) = await queue.enqueue([mail()])
    assert await queue.edit(row.id, args='{"to":"x"}')
    assert not await queue.edit(waits.id, args='{"to":"x"}')
    assert not await queue.edit(999, args="{}")
    edited, other = await queue.get(row.id), await queue.get(waits.id)
    assert edited is not None
    assert other is not None
    assert (edited.args, edited.state) == ('{"to":"x"}', JobState.DEAD)
    assert other.args == mail().args


async def test_what_is_restored_is_as_it_was_under_a_new_id(
    queue: SqliteQueue, clock: HandClock
) -> None:
    row = await dead_row(queue, fair_key="acme", target="bank")
    again = row._replace(unique_key="import:1")
    (made, strange) = await queue.restore([again, row._replace(queue="other", unique_key="x")])
    found = await queue.get(made)
    assert found == again._replace(id=made)
    assert strange == made + 1
    assert await queue.restore([again]) == [0], "the same once more"
    assert list(await queue.requeue(Filter(ids=(made,)), limit=1)) == [made]
    assert await queue.restore([again]) == [0], "though it has left the dead"
    clock.wind(86_401)
    (third,) = await queue.restore([again])
    assert third > strange
    count = {(one.queue, one.state): one.jobs for one in await queue.count()}
    assert count["email", JobState.DEAD] == 2
    assert count["other", JobState.DEAD] == 1


async def test_the_dead_of_a_span_of_time(queue: SqliteQueue, clock: HandClock) -> None:
    first = await dead_row(queue)
    clock.wind(10)
    second = await dead_row(queue)
    died = second.finalized_at
    assert [r.id for r in await queue.select(Filter(finalized_since=died), 9)] == [second.id]
    assert [r.id for r in await queue.select(Filter(finalized_before=died), 9)] == [first.id]


async def test_how_many_are_ahead(queue: SqliteQueue) -> None:
    made = await queue.enqueue([mail(priority=p) for p in (5, 1, 9, 5)] + [mail(fair_key="k")])
    ids = [one.id for one in made]
    assert [await queue.ahead(id, 100) for id in ids] == [1, 0, 3, 2, 0]
    assert await queue.ahead(ids[2], 2) == 2
    assert await queue.ahead(999, 2) == 0


async def test_commits_are_counted_by_size_and_time(queue: SqliteQueue) -> None:
    await asyncio.gather(*(queue.enqueue([mail()]) for _ in range(64)))
    await queue.enqueue([mail()])
    requests = queue.numbers()["atlasd_queue_commit_requests"]
    seconds = queue.numbers()["atlasd_queue_commit_seconds"]
    assert isinstance(requests, Distribution)
    assert isinstance(seconds, Distribution)
    assert (sum(requests.counts), requests.sum) == (2, 65.0)
    assert requests.counts[requests.bounds.index(100.0)] == 1
    assert sum(seconds.counts) == 2
    assert seconds.sum > 0
