"""Queues as operators see them, over a real queue."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from atlasd.contracts.queue import ClaimAsk, Finish, NewJob, QueueLimits
from atlasd.errors import AtlasError
from atlasd.jobs import lookout as looking
from atlasd.jobs import queues, watching
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.rules import QueueRules
from atlasd.jobs.verdict import QueueHealth
from tests.job_double import FakeJobs


@pytest.fixture
def jobs() -> FakeJobs:
    made = FakeJobs()
    made.rules = QueueRules(
        queues={"mail": QueueLimits(concurrency=4, rate=5.0, aging=30_000, max_wait=60_000)},
        otherwise=QueueLimits(strict=True),
    )
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK", 0.01)
    monkeypatch.setattr(queues, "WATCH", 0.01)


async def ask(there: FakeJobs, name: str, /, **fields: Any) -> Any:
    return await there._methods[name](actor="uid:0", **fields)


async def engine_of(jobs: FakeJobs) -> JobEngine:
    async def itself(engine: JobEngine) -> JobEngine:
        return engine

    return await jobs._ask(itself)


async def enqueue(jobs: FakeJobs, queue: str = "mail", count: int = 1, **rest: Any) -> list[int]:
    engine = await engine_of(jobs)
    made = await engine.store.enqueue([NewJob(queue, "a", "{}", **rest)] * count)
    return [one.id for one in made]


async def test_a_queue_with_all_that_is_known(jobs: FakeJobs) -> None:
    await enqueue(jobs, count=3)
    engine = await engine_of(jobs)
    session = engine.open_session("host/1", 8)
    session.queues = ("mail",)
    engine.lookout.visited("http/curl", ["mail"])
    claim = ClaimAsk(worker=session.worker, queues=("mail",), limit=1, lease=30_000)
    _, (job,) = await engine.exchange(session, [], claim)
    await engine.exchange(session, [Finish(job.id, job.token)], None)
    body = await ask(jobs, "queue.show", queue="mail")
    assert (body["available"], body["completed"], body["finished_per_minute"]) == (2, 1, 1)
    assert body["workers_asking"] == [
        {"worker": "host/1", "concurrency": 8, "held": 0},
        {"worker": "http/curl", "concurrency": None, "held": None},
    ]
    assert body["limits"]["concurrency"] == 4
    assert body["wait_bounds"][:2] == [0.0, 30.0]
    assert body["survives"] == "power loss"
    await enqueue(jobs, "other")
    other = await ask(jobs, "queue.show", queue="other")
    assert other["wait_bounds"][:2] == [0.0, None]


async def test_an_unknown_queue_is_told_from_its_neighbours(jobs: FakeJobs) -> None:
    await enqueue(jobs)
    with pytest.raises(AtlasError, match="no queue 'mial'") as caught:
        await ask(jobs, "queue.show", queue="mial")
    assert caught.value.hint == "did you mean 'mail'?"


async def test_verdicts_come_and_go(jobs: FakeJobs) -> None:
    await enqueue(jobs)
    engine = await engine_of(jobs)
    now = [0.0]
    lookout = looking.Lookout(
        engine.store, engine.measures, engine.sessions, monotonic=lambda: now[0],
        wall=lambda: now[0],
    )  # fmt: skip
    moves: list[tuple[str, str, str]] = []

    def moved(queue: str, before: QueueHealth | None, after: QueueHealth) -> None:
        moves.append((queue, before.word if before else "", after.word))

    async def look(passed: float) -> str:
        now[0] += passed
        await lookout.look(jobs.rules.limits, moved)
        return lookout.found["mail"].word if "mail" in lookout.found else "gone"

    assert [await look(5), await look(30), await look(31)] == ["ok", "ok", "stalled"]
    assert "no worker asks" in lookout.found["mail"].reason
    claim = ClaimAsk(worker="w", queues=("mail",), limit=1, lease=30_000)
    _, (job,) = await engine.store.exchange([], claim)
    engine.measures.given([job], 30_000)
    assert [await look(5), await look(29), await look(5)] == ["stalled", "stalled", "ok"]
    await engine.store.exchange([Finish(job.id, job.token)], None)
    from atlasd.contracts.queue import Filter

    await engine.store.purge(Filter(), limit=10)
    assert await look(1) == "gone"
    assert moves == [("mail", "ok", "stalled"), ("mail", "stalled", "ok")]


async def test_workers_without_a_connection_are_forgotten(jobs: FakeJobs) -> None:
    engine = await engine_of(jobs)
    now = [0.0]
    lookout = looking.Lookout(engine.store, engine.measures, {}, monotonic=lambda: now[0])
    lookout.visited("curl", ["mail"])
    lookout.visited("curl", [])
    assert [one.said for one in lookout.workers("mail")] == ["curl"]
    now[0] = looking.SILENCE + 1
    await lookout.look(jobs.rules.limits, lambda *_: None)
    assert lookout.workers("mail") == []


async def heard(stream: Any, times: int) -> list[Any]:
    return [await asyncio.wait_for(anext(stream), 20) for _ in range(times)]


async def test_a_watched_job_is_told_when_something_happens(jobs: FakeJobs) -> None:
    (id,) = await enqueue(jobs)
    engine = await engine_of(jobs)
    session = engine.open_session("w", 1)
    stream = await ask(jobs, "job.watch", id=id, follow=True)
    (first,) = await heard(stream, 1)
    coming = asyncio.ensure_future(heard(stream, 1))
    while not engine._listeners:  # noqa: ASYNC110  nothing tells that somebody listens
        await asyncio.sleep(0)
    claim = ClaimAsk(worker=session.worker, queues=("mail",), limit=1, lease=30_000)
    _, (job,) = await engine.exchange(session, [], claim)
    (second,) = await coming
    await engine.exchange(session, [Finish(job.id, job.token, "7")], None)
    (third,) = await heard(stream, 1)
    states = [one["state"] for one in (first, second, third)]
    assert states == ["available", "running", "completed"]
    assert third["result"] == 7
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert not engine._listeners


async def test_a_watched_job_that_is_deleted(jobs: FakeJobs) -> None:
    from atlasd.contracts.queue import Filter

    (id,) = await enqueue(jobs)
    engine = await engine_of(jobs)
    stream = await ask(jobs, "job.watch", id=id, follow=True)
    await heard(stream, 1)
    await engine.store.purge(Filter(ids=(id,)), limit=1)
    (last,) = await heard(stream, 1)
    assert last["gone"]


@pytest.mark.parametrize(("name", "key"), [("job.watch", "id"), ("queue.watch", "queue")])
async def test_without_follow_there_is_one_line(jobs: FakeJobs, name: str, key: str) -> None:
    (id,) = await enqueue(jobs)
    fields = {key: id if key == "id" else "mail"}
    lines = [one async for one in await ask(jobs, name, follow=False, **fields)]
    assert len(lines) == 1


async def test_watching_ends_with_an_empty_queue(jobs: FakeJobs) -> None:
    (id,) = await enqueue(jobs)
    stream = await ask(jobs, "queue.watch", queue="mail", follow=True)
    await heard(stream, 1)
    await ask(jobs, "job.cancel", id=id)
    (last,) = await heard(stream, 1)
    assert (last["available"], last["cancelled"]) == (0, 1)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_purging_takes_what_waits_and_a_dry_run_nothing(jobs: FakeJobs) -> None:
    await enqueue(jobs, count=3)
    await enqueue(jobs, delay=60_000)
    counted = await ask(jobs, "queue.purge", queue="mail", state=(), dry_run=True)
    assert counted == {"jobs": 4, "dry_run": True}
    assert (await ask(jobs, "queue.purge", queue="mail", state=("scheduled",), dry_run=False))[
        "jobs"
    ] == 1
    assert (await ask(jobs, "queue.purge", queue="mail", state=(), dry_run=False))["jobs"] == 3


@pytest.mark.parametrize("wanted", ["forced_open", "disabled", "metrics_only", "closed"])
async def test_breakers_are_forced_and_misspelt_ones_are_not(jobs: FakeJobs, wanted: str) -> None:
    await enqueue(jobs, target="bank")
    with pytest.raises(AtlasError) as caught:
        await ask(jobs, "breaker.set", target="bnak", state=wanted, new=False)
    assert caught.value.code == "breaker.unknown"
    body = await ask(jobs, "breaker.set", target="bank", state=wanted, new=False)
    assert body["state"] == wanted
    with pytest.raises(AtlasError) as caught:
        await ask(jobs, "breaker.show", target="bnak")
    assert caught.value.hint == "did you mean 'bank'?"
    assert (await ask(jobs, "breaker.show", target="bank"))["state"] == wanted
    assert (await ask(jobs, "breaker.set", target="shop", state=wanted, new=True))["target"]


REASONS: list[tuple[str, dict[str, Any], Callable[[JobEngine], Any]]] = [
    ("paused", {}, lambda engine: engine.store.pause("mail", paused=True)),
    ("breaker", {"target": "b"}, lambda engine: engine.store.set_breaker("b", "forced_open")),
    ("scheduled", {"delay": 60_000}, lambda engine: engine.store.now()),
    ("no_worker", {}, lambda engine: engine.store.now()),
]


@pytest.mark.parametrize(("reason", "job", "do"), REASONS, ids=[r for r, _, _ in REASONS])
async def test_a_job_is_explained_by_what_is(
    jobs: FakeJobs, reason: str, job: dict[str, Any], do: Callable[[JobEngine], Any]
) -> None:
    (id,) = await enqueue(jobs, **job)
    await do(await engine_of(jobs))
    assert (await ask(jobs, "job.explain", id=id))["reason"] == reason


async def test_rates_and_limits_explain_what_a_worker_leaves(jobs: FakeJobs) -> None:
    ids = await enqueue(jobs, count=6)
    engine = await engine_of(jobs)
    engine.open_session("w", 1).queues = ("mail",)
    body = await ask(jobs, "job.explain", id=ids[5])
    assert body["reason"] == "rate"
    assert "5 jobs rank before it" in body["detail"]
    jobs.rules = QueueRules(queues={"mail": QueueLimits(concurrency=1)})
    claim = ClaimAsk(worker="w", queues=("mail",), limit=1, lease=30_000)
    await engine.store.exchange([], claim)
    assert (await ask(jobs, "job.explain", id=ids[5]))["reason"] == "concurrency"
    jobs.rules = QueueRules()
    assert (await ask(jobs, "job.explain", id=ids[5]))["reason"] == "waiting"
