"""The PostgreSQL queue itself: its clock, its commits, and several hosts on one database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from atlasd.contracts.queue import (
    BreakerRow,
    ClaimAsk,
    Claimed,
    Failure,
    Filter,
    Finish,
    Held,
    JobState,
    NewJob,
    QueueLimits,
    Release,
    SlotClaim,
)
from atlasd.errors import AtlasError
from atlasd.jobs.circuit import CircuitPolicy
from atlasd.jobs.rules import QueueRules
from atlasd.testing import PlainContext
from atlasd_plugins.queue_postgres import link, migrations, open_store
from atlasd_plugins.queue_postgres.settings import PostgresSettings
from atlasd_plugins.queue_postgres.store import PostgresQueue
from tests.postgres_server import HandWoundSchema

Opener = Callable[..., Awaitable[PostgresQueue]]


@pytest.fixture
def database(postgres_schema: HandWoundSchema) -> HandWoundSchema:
    return postgres_schema


@pytest.fixture
async def opened(database: HandWoundSchema, tmp_path: Path) -> AsyncIterator[Opener]:
    context = PlainContext(tmp_path)
    async with AsyncExitStack() as stack:

        async def opener(rules: QueueRules | None = None, **settings: object) -> PostgresQueue:
            said = PostgresSettings.model_validate({**database.settings, **settings})
            store = await stack.enter_async_context(
                open_store(said, context, rules or QueueRules(chance=lambda: 0.0))
            )
            assert isinstance(store, PostgresQueue)
            return store

        yield opener
    context.close()


@pytest.fixture
async def queue(opened: Opener) -> PostgresQueue:
    return await opened()


def mail(**rest: object) -> NewJob:
    return NewJob("email", "email.send", '{"to":"ops@example.org"}')._replace(**rest)  # type: ignore[arg-type]


def ask(worker: str = "w", limit: int = 10, **rest: int) -> ClaimAsk:
    return ClaimAsk(worker=worker, queues=("email",), limit=limit, lease=30_000, **rest)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  what it waits for tells nobody
            await asyncio.sleep(0.002)


async def test_a_job_goes_its_way(queue: PostgresQueue) -> None:
    (made,) = await queue.enqueue([mail()])
    assert (made.state, made.outcome) == (JobState.AVAILABLE, "created")
    _, (job,) = await queue.exchange([], ask())
    assert (job.id, job.token, job.attempt) == (made.id, 1, 1)
    held, _ = await queue.exchange([Finish(job.id, job.token, '{"ok":1}')], None)
    assert held == [True]
    row = await queue.get(job.id)
    assert row is not None
    assert (row.state, row.result, row.worker) == (JobState.COMPLETED, '{"ok":1}', "")


async def test_requests_that_wait_together_share_a_commit(queue: PostgresQueue) -> None:
    await queue.enqueue([mail()])
    before = queue.tally.commits
    await asyncio.gather(*(queue.enqueue([mail()]) for _ in range(64)))
    assert queue.tally.commits == before + 1


async def test_an_idle_worker_is_given_a_job_by_the_commit_that_makes_it(
    queue: PostgresQueue,
) -> None:
    await queue.enqueue([])
    waiting = asyncio.ensure_future(queue.exchange([], ask(wait=60_000)))
    await until(lambda: bool(queue._waiting))
    (made,) = await queue.enqueue([mail()])
    _, (job,) = await waiting
    assert job.id == made.id


async def test_a_claim_that_was_given_up_takes_nothing(queue: PostgresQueue) -> None:
    waiting = asyncio.ensure_future(queue.exchange([], ask(wait=60_000)))
    await asyncio.sleep(0)
    waiting.cancel()
    (made,) = await queue.enqueue([mail()])
    row = await queue.get(made.id)
    assert row is not None
    assert row.state is JobState.AVAILABLE


async def test_a_failure_is_tried_again_later_and_a_token_grows(
    queue: PostgresQueue, database: HandWoundSchema
) -> None:
    await queue.enqueue([mail()])
    _, (job,) = await queue.exchange([], ask())
    await queue.exchange([Failure(job.id, job.token, "ValueError", "no")], None)
    _, none = await queue.exchange([], ask())
    assert none == []
    await database.advance(4_999)
    assert (await queue.maintain()).promoted == 0
    await database.advance(1)
    assert (await queue.maintain()).promoted == 1
    _, (again,) = await queue.exchange([], ask())
    assert (again.token, again.attempt) == (2, 2)
    held, _ = await queue.exchange([Finish(job.id, job.token)], None)
    assert held == [False], "the first claim's token is worth nothing any longer"


async def test_released_attempts_are_not_counted(queue: PostgresQueue) -> None:
    await queue.enqueue([mail()])
    _, (job,) = await queue.exchange([], ask())
    await queue.exchange([Release(job.id, job.token)], None)
    _, (again,) = await queue.exchange([], ask())
    assert (again.token, again.attempt) == (2, 1)


async def test_a_lease_that_ran_out_is_somebody_elses(
    opened: Opener, database: HandWoundSchema
) -> None:
    dead, alive = await opened(), await opened()
    await dead.enqueue([mail()])
    _, (job,) = await dead.exchange([], ask("dead"))
    await database.advance(20_000)
    assert (await dead.extend("dead", [Held(id=job.id, token=job.token)], 30_000)).lost == ()
    await database.advance(20_000)
    assert (await alive.maintain()).lost == 0
    await database.advance(10_000)
    assert (await alive.maintain()).lost == 1
    await database.advance(1_000)
    assert (await alive.maintain()).promoted == 1
    _, (again,) = await alive.exchange([], ask("alive"))
    assert (again.token, again.lost_count) == (2, 1)
    held, _ = await dead.exchange([Finish(job.id, job.token)], None)
    assert held == [False]
    assert (await dead.extend("dead", [Held(id=job.id, token=1)], 30_000)).lost == (job.id,)


async def test_many_at_once_come_out_whole(queue: PostgresQueue) -> None:
    nasty = '{"text":"tab\\\\t \\" \\u00e9 é ☃ \\n"}'
    jobs = [mail(args=nasty, kind=f"k{n % 7}", priority=n % 10) for n in range(300)]
    jobs[7] = mail(args='{"a":\t1,\n"b":2}', kind="back\\slash", options='{"tags":["x"]}')
    made = await queue.enqueue(jobs)
    assert [one.outcome for one in made] == ["created"] * 300
    rows = await queue.select(Filter(), 1000)
    assert [row.id for row in rows] == sorted(one.id for one in made)
    by_id = {row.id: row for row in rows}
    for one, job in zip(made, jobs, strict=True):
        row = by_id[one.id]
        assert (row.kind, row.args, row.priority, row.options) == (
            job.kind, job.args, job.priority, job.options,
        )  # fmt: skip
    _, claimed = await queue.exchange([], ask(limit=300))
    assert [job.priority for job in claimed] == sorted(job.priority for job in jobs)
    assert [row.id for row in await queue.select(Filter(tag="x"), 10)] == [made[7].id]


async def test_a_job_that_the_database_refuses_fails_alone(queue: PostgresQueue) -> None:
    good, bad, other = await asyncio.gather(
        queue.enqueue([mail()]),
        queue.enqueue([mail(fair_key="nul\x00")]),
        queue.enqueue([mail(args='{"half": "\ud800"}')] * 40),
        return_exceptions=True,
    )
    assert isinstance(bad, AtlasError)
    assert bad.code == "job.invalid"
    assert isinstance(other, AtlasError)
    assert not isinstance(good, BaseException)
    assert len(await queue.select(Filter(), 100)) == 1


async def test_unique_keys(queue: PostgresQueue, database: HandWoundSchema) -> None:
    (first,) = await queue.enqueue([mail(unique_key="k")])
    twice = await queue.enqueue([mail(unique_key="k"), mail(unique_key="l"), mail(unique_key="l")])
    assert [one.outcome for one in twice] == ["existing", "created", "existing"]
    (moved,) = await queue.enqueue([mail(unique_key="k", on_conflict="move_run_at", delay=5_000)])
    assert (moved.id, moved.outcome, moved.state) == (first.id, "moved", JobState.SCHEDULED)
    (changed,) = await queue.enqueue(
        [mail(unique_key="k", on_conflict="replace_args", args='{"n":2}')]
    )
    assert changed.outcome == "replaced"
    (not_taken,) = await queue.enqueue([mail(unique_key="k", on_conflict="reject")])
    assert not_taken.outcome == "rejected"
    await database.advance(5_000)
    assert (await queue.maintain()).promoted == 1
    _, jobs = await queue.exchange([], ask())
    assert '{"n":2}' in [job.args for job in jobs]
    await queue.exchange([Finish(job.id, job.token) for job in jobs], None)
    (free,) = await queue.enqueue([mail(unique_key="k")])
    assert free.outcome == "created"


async def test_the_same_idempotency_key_gives_the_same_answer(
    opened: Opener, database: HandWoundSchema
) -> None:
    one, other = await opened(), await opened()
    answers = await asyncio.gather(
        *(
            host.enqueue([mail(), mail()], idempotency_key="order-7")
            for host in (one, other, one, other)
        )
    )
    assert len({tuple(answer) for answer in answers}) == 1
    assert len(await one.select(Filter(), 10)) == 2
    await database.advance(86_400_001)
    (late,) = await asyncio.gather(other.enqueue([mail()], idempotency_key="order-7"))
    assert late[0].id not in {made.id for made in answers[0]}


async def test_a_full_queue_says_so_and_takes_nothing(opened: Opener) -> None:
    queue = await opened(QueueRules(queues={"email": QueueLimits(size=3)}))
    results = await asyncio.gather(
        queue.enqueue([mail(), mail()]),
        queue.enqueue([mail(), mail()]),
        queue.enqueue([mail(delay=1000)]),
        return_exceptions=True,
    )
    assert isinstance(results[1], AtlasError)
    assert results[1].code == "job.queue_full"
    assert results[1].details == {"queue": "email", "waiting": 2, "size": 3}
    assert len(await queue.select(Filter(), 10)) == 3


async def test_two_hosts_never_claim_the_same_job(opened: Opener) -> None:
    one, other = await opened(), await opened()
    await one.enqueue([mail() for _ in range(400)])
    found: list[int] = []

    async def drain(host: PostgresQueue, name: str) -> None:
        while True:
            _, jobs = await host.exchange([], ask(name, limit=7))
            if not jobs:
                return
            found.extend(job.id for job in jobs)
            await host.exchange([Finish(job.id, job.token) for job in jobs], None)

    await asyncio.gather(drain(one, "a"), drain(other, "b"), drain(one, "c"), drain(other, "d"))
    assert len(found) == len(set(found)) == 400


async def test_limits_hold_over_all_hosts(opened: Opener, database: HandWoundSchema) -> None:
    rules = QueueRules(
        queues={"email": QueueLimits(concurrency=5, key_concurrency=2)}, chance=lambda: 0.0
    )
    hosts = [await opened(rules), await opened(rules)]
    await hosts[0].enqueue([mail(fair_key=key) for key in "abcd" for _ in range(20)])
    answers = await asyncio.gather(
        *(hosts[n % 2].exchange([], ask(f"w{n}", limit=3)) for n in range(8))
    )
    jobs = [job for _, given in answers for job in given]
    assert len(jobs) == 5
    assert max(sum(job.fair_key == key for job in jobs) for key in "abcd") <= 2
    await hosts[1].exchange([Finish(jobs[0].id, jobs[0].token)], None)
    _, more = await hosts[0].exchange([], ask(limit=9))
    assert len(more) == 1


async def test_a_rate_holds_over_all_hosts(opened: Opener, database: HandWoundSchema) -> None:
    rules = QueueRules(queues={"email": QueueLimits(rate=10.0, burst=2)}, chance=lambda: 0.0)
    hosts = [await opened(rules), await opened(rules)]
    await hosts[0].enqueue([mail() for _ in range(50)])
    given = 0
    for _ in range(10):
        answers = await asyncio.gather(*(host.exchange([], ask(limit=9)) for host in hosts))
        given += sum(len(jobs) for _, jobs in answers)
        await database.advance(100)
    assert given == 2 + 9


async def test_fair_keys_share(queue: PostgresQueue) -> None:
    await queue.enqueue([mail(fair_key="big") for _ in range(200)])
    await queue.enqueue([mail(fair_key="small") for _ in range(5)])
    seen = []
    for _ in range(4):
        _, jobs = await queue.exchange([], ask(limit=10))
        seen += [job.fair_key for job in jobs]
    assert seen.count("small") == 5


async def test_a_breaker_is_shared_and_lets_out_one_probe(
    opened: Opener, database: HandWoundSchema
) -> None:
    rules = QueueRules(circuit=CircuitPolicy(minimum_calls=4), chance=lambda: 0.0)
    one, other = await opened(rules), await opened(rules)
    await one.enqueue([mail(target="bank", max_attempts=2) for _ in range(30)])
    _, jobs = await one.exchange([], ask(limit=4))
    await one.exchange(
        [Failure(job.id, job.token, "Refused", verdict="target") for job in jobs], None
    )
    (row,) = await other.breakers()
    assert (row.target, row.state) == ("bank", "open")
    for host in (one, other):
        _, none = await host.exchange([], ask())
        assert none == []
    waiting = await other.select(Filter(states=(JobState.AVAILABLE,)), 100)
    assert {job.attempt for job in waiting} == {0}
    await database.advance(row.open_until - await one.now())
    answers = await asyncio.gather(
        *(host.exchange([], ask(f"w{n}")) for n in range(3) for host in (one, other))
    )
    probes: Sequence[Claimed] = [job for _, given in answers for job in given]
    assert len(probes) == 1
    for _ in range(3):
        await other.exchange([Finish(probes[0].id, probes[0].token, took=5)], None)
        _, probes = await one.exchange([], ask())
        if len(probes) > 1:
            break
        assert len(probes) == 1
    (row,) = await one.breakers()
    assert row.state == "closed"


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not committed"])
@pytest.mark.parametrize("way", ["alone", "with a claim", "in bulk", "finish"])
async def test_an_answer_that_is_lost_with_the_connection_is_found_again(
    queue: PostgresQueue,
    database: HandWoundSchema,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    committed: bool,
) -> None:
    await queue.enqueue([mail(queue="other")])
    send, lost = link._send, 0

    async def losing(
        connection: "psycopg.AsyncConnection[tuple[object, ...]]",
        statements: Sequence[link.Statement],
    ) -> list[link.Rows]:
        nonlocal lost
        if not lost and (statements[-1] == link.COMMIT or "hosts" in statements[-1][0]):
            lost += 1
            if committed:
                await send(connection, statements)
            await connection.close()
            raise psycopg.OperationalError("the connection is lost")
        return await send(connection, statements)

    waiting = None
    jobs: Sequence[Claimed] = ()
    count = 40 if way == "in bulk" else 1
    if way == "with a claim":
        waiting = asyncio.ensure_future(queue.exchange([], ask(wait=60_000)))
        await until(lambda: bool(queue._waiting))
    if way == "finish":
        await queue.enqueue([mail()])
        _, jobs = await queue.exchange([], ask())
    monkeypatch.setattr(link, "_send", losing)
    if way == "finish":
        held, _ = await queue.exchange([Finish(job.id, job.token) for job in jobs], None)
        assert held == [True]
        assert database.sql("SELECT state FROM jobs WHERE token = 1") == [("completed",)]
    else:
        made = await queue.enqueue([mail()] * count)
        assert [one.state for one in made] == [JobState.AVAILABLE] * count
        if waiting is None:
            _, jobs = await queue.exchange([], ask(limit=100))
        else:
            _, jobs = await waiting
        assert sorted(job.id for job in jobs) == [one.id for one in made]
        assert database.sql("SELECT count(*) FROM jobs WHERE kind = 'email.send'") == [(count + 1,)]
        held, _ = await queue.exchange([Finish(job.id, job.token) for job in jobs], None)
        assert held == [True] * count
    assert lost == 1


async def test_what_became_of_it_is_not_known_where_the_database_stays_away(
    queue: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.enqueue([mail()])

    async def gone(
        connection: "psycopg.AsyncConnection[tuple[object, ...]]", _statements: object
    ) -> list[link.Rows]:
        await connection.close()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(link, "_send", gone)
    with pytest.raises(AtlasError) as caught:
        await queue.enqueue([mail()])
    assert caught.value.code == "job.unsure"
    monkeypatch.undo()
    await queue.enqueue([mail()])
    assert len(await queue.select(Filter(), 10)) == 2


async def test_a_slot_fires_once_over_all_hosts(opened: Opener) -> None:
    hosts = [await opened(), await opened()]
    claims = [SlotClaim("nightly", slot, mail()) for slot in (1000, 2000, 3000)]
    fired = await asyncio.gather(*(host.fire(claims) for host in hosts))
    for mine, theirs in zip(*fired, strict=True):
        assert sorted((bool(mine), bool(theirs))) == [False, True]
    assert len(await hosts[0].select(Filter(), 10)) == 3
    assert [slot.slot for slot in await hosts[1].slots("nightly", 10)] == [3000, 2000, 1000]
    (row,) = await hosts[1].schedules()
    assert (row.schedule, row.slot) == ("nightly", 3000)


async def test_a_job_wakes_a_worker_of_another_host(opened: Opener) -> None:
    one, other = await opened(poll=60.0), await opened(poll=60.0)
    waiting = asyncio.ensure_future(other.exchange([], ask(wait=60_000)))
    await until(lambda: bool(other._waiting) and other._hints.listening)
    (made,) = await one.enqueue([mail()])
    async with asyncio.timeout(20):
        _, (job,) = await waiting
    assert job.id == made.id


async def test_pause_cancel_requeue_purge(queue: PostgresQueue) -> None:
    made = await queue.enqueue([mail() for _ in range(3)])
    await queue.pause("email", paused=True)
    assert await queue.paused() == {"email"}
    _, none = await queue.exchange([], ask())
    assert none == []
    await queue.pause("email", paused=False)
    _, (job,) = await queue.exchange([], ask(limit=1))
    assert await queue.cancel(Filter(queue="email"), reason="user", limit=10) == 3
    extended = await queue.extend("w", [Held(id=job.id, token=job.token)], 30_000)
    assert extended.cancel == (job.id,)
    assert await queue.lose("w", [job.id], why="connection") == 1
    counts = {(row.queue, row.state): row.jobs for row in await queue.count()}
    assert counts == {("email", JobState.CANCELLED): 3}
    again = await queue.requeue(Filter(ids=(made[1].id,)), args='{"n":1}', limit=5)
    assert again == [made[1].id]
    row = await queue.get(made[1].id)
    assert row is not None
    assert (row.state, row.args, row.requeued_from) == (
        JobState.AVAILABLE, '{"n":1}', "cancelled",
    )  # fmt: skip
    assert await queue.purge(Filter(states=(JobState.CANCELLED,)), limit=10) == 2


async def test_dead_jobs_are_grouped(queue: PostgresQueue) -> None:
    await queue.enqueue([mail(max_attempts=1) for _ in range(3)])
    _, jobs = await queue.exchange([], ask())
    await queue.exchange([Failure(job.id, job.token, "ValueError", "no") for job in jobs], None)
    (group,) = await queue.dead(10)
    assert (group.jobs, group.reason, group.error) == (3, "exhausted", "ValueError: no")


async def test_what_expired_or_is_old_goes(queue: PostgresQueue, database: HandWoundSchema) -> None:
    await queue.enqueue([mail(expires_in=1_000), mail()])
    await database.advance(1_000)
    assert (await queue.maintain()).expired == 1
    _, (job,) = await queue.exchange([], ask())
    await queue.exchange([Finish(job.id, job.token)], None)
    await database.advance(7 * 86_400_000)
    assert (await queue.maintain()).pruned == 2
    assert await queue.count() == []


async def test_a_state_and_its_final_time_go_together(
    queue: PostgresQueue, database: HandWoundSchema
) -> None:
    await queue.enqueue([mail()])
    for state, final in (("completed", "NULL"), ("available", "5"), ("asleep", "NULL")):
        with pytest.raises(psycopg.errors.CheckViolation):
            database.sql(f"UPDATE jobs SET state = '{state}', finalized_at = {final}")


async def test_what_it_survives_is_read_from_the_server(queue: PostgresQueue) -> None:
    assert queue.durable == "a crash of atlasd alone: the server has fsync off"


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgres//ops:hunter2@db/queue", "expected a connection string"),
        ("postgresql://ops:hunter2@127.0.0.1:1/queue", "cannot be reached"),
        ("host=/nowhere password=hunter2 user=ops", "cannot be reached"),
    ],
)
async def test_a_database_that_is_not_there_is_named_without_its_password(
    dsn: str, words: str, tmp_path: Path
) -> None:
    settings = PostgresSettings(dsn=dsn, patience=0.0)
    context = PlainContext(tmp_path)
    with pytest.raises(AtlasError) as caught:
        async with open_store(settings, context, QueueRules()):
            raise AssertionError("it was opened")
    context.close()
    assert caught.value.code == "job.store"
    assert words in caught.value.message
    assert "hunter2" not in f"{caught.value!r} {caught.value.message} {caught.value.hint}"


async def test_a_schema_of_a_newer_version_is_left_alone(
    opened: Opener, database: HandWoundSchema
) -> None:
    await opened()
    database.sql("UPDATE version SET version = 999")
    try:
        with pytest.raises(AtlasError, match="has version 999"):
            await opened()
    finally:
        database.sql(f"UPDATE version SET version = {migrations.VERSION}")


def test_the_row_of_a_breaker_is_what_the_statement_reads() -> None:
    from atlasd_plugins.queue_postgres import sql

    assert tuple(sql.BREAKER.split(", ")) == BreakerRow._fields
