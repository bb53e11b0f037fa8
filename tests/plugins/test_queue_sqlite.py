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
