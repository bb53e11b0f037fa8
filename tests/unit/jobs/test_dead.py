"""Operations on dead jobs, over a real queue."""

from typing import Any

import pytest

from atlasd.contracts.queue import ClaimAsk, Failure, NewJob
from atlasd.errors import AtlasError
from atlasd.jobs.engine import JobEngine
from tests.job_double import FakeJobs

Body = dict[str, Any]
ANY: Body = {
    "ids": (), "queue": None, "kind": None, "fingerprint": None, "target": None, "tag": None,
    "since": None, "before": None, "actor": "uid:0",
}  # fmt: skip


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


async def ask(there: FakeJobs, name: str, /, **fields: Any) -> Any:
    return await there._methods[name](**fields)


async def kill(jobs: FakeJobs, *made: NewJob) -> list[int]:
    async def work(engine: JobEngine) -> list[int]:
        ids = [one.id for one in await engine.store.enqueue(made)]
        queues = tuple({job.queue for job in made})
        claim = ClaimAsk(worker="w", queues=queues, limit=len(made), lease=30_000)
        _, given = await engine.store.exchange([], claim)
        failures = [Failure(j.id, j.token, "E", j.kind, verdict="bury") for j in given]
        await engine.store.exchange(failures, None)
        return ids

    return await jobs._ask(work)


def job(kind: str = "a", **rest: Any) -> NewJob:
    return NewJob("mail", kind, "{}", **rest)


async def test_filters_choose(jobs: FakeJobs) -> None:
    ids = await kill(
        jobs, job(), job("b"), job(target="bank"), job(options='{"tags":["x"]}'), job("c")
    )

    async def listed(**chosen: Any) -> list[int]:
        body = await ask(jobs, "dead.list", **{**ANY, "after": 0, "limit": 100, **chosen})
        return [one["id"] for one in body["jobs"]]

    assert await listed() == ids
    assert await listed(kind="b") == [ids[1]]
    assert await listed(target="bank") == [ids[2]]
    assert await listed(tag="x") == [ids[3]]
    assert await listed(ids=(ids[0], ids[4])) == [ids[0], ids[4]]
    assert await listed(after=ids[3]) == [ids[4]]
    assert await listed(limit=2) == ids[:2]
    assert await listed(queue="other") == []


async def test_a_dry_run_counts_by_group_and_changes_nothing(jobs: FakeJobs) -> None:
    ids = await kill(jobs, job(), job(), job("b"))
    for name in ("dead.requeue", "dead.purge"):
        more = {"limit": None} if name == "dead.requeue" else {}
        body = await ask(jobs, name, **ANY, dry_run=True, **more)
        assert (body["jobs"], body["dry_run"], body["ids"]) == (3, True, [])
        assert [(g["kind"], g["jobs"], g["error"]) for g in body["groups"]] == [
            ("a", 2, "E: a"), ("b", 1, "E: b"),
        ]  # fmt: skip
    body = await ask(jobs, "dead.requeue", **ANY, dry_run=False, limit=2)
    assert (body["jobs"], body["ids"]) == (2, ids[:2])
    assert (await ask(jobs, "job.show", id=ids[0], actor=""))["state"] == "available"
    assert (await ask(jobs, "dead.purge", **ANY, dry_run=False))["jobs"] == 1
    assert (await ask(jobs, "dead.groups", limit=5, actor=""))["groups"] == []


async def test_editing_leaves_it_dead_or_requeues_it(jobs: FakeJobs) -> None:
    (id,) = await kill(jobs, job())
    body = await ask(jobs, "dead.edit", id=id, args={"to": "x"}, requeue=False, actor="")
    assert (body["state"], body["args"]) == ("dead", {"to": "x"})
    body = await ask(jobs, "dead.edit", id=id, args={"to": "y"}, requeue=True, actor="")
    assert (body["state"], body["args"]) == ("available", {"to": "y"})
    with pytest.raises(AtlasError, match="only a dead job can be"):
        await ask(jobs, "dead.edit", id=id, args={}, requeue=False, actor="")


async def exported(jobs: FakeJobs) -> list[Body]:
    import json

    return [json.loads(line) async for line in await ask(jobs, "dead.export", **ANY)]


async def take_in(jobs: FakeJobs, lines: list[Body], **rest: Any) -> tuple[int, int]:
    asked = {"first_line": 1, "dry_run": False, "actor": "", **rest}
    body = await ask(jobs, "dead.import", jobs=lines, **asked)
    return body["jobs"], body["known"]


async def test_export_and_import_are_each_others_reverse(jobs: FakeJobs) -> None:
    await kill(jobs, *(job(f"k{n}") for n in range(5)))
    lines = await exported(jobs)
    assert await take_in(jobs, lines) == (0, 5), "they are all here"
    other = FakeJobs()
    assert await take_in(other, lines, dry_run=True) == (5, 0)
    assert await exported(other) == []
    assert await take_in(other, lines) == (5, 0)
    assert await take_in(other, lines) == (0, 5), "the same once more"
    there = await exported(other)
    assert [{**one, "id": 0} for one in there] == [{**one, "id": 0} for one in lines]


async def test_one_bad_line_and_none_is_taken_in(jobs: FakeJobs) -> None:
    await kill(jobs, job(), job())
    first, second = await exported(jobs)
    other = FakeJobs()
    with pytest.raises(AtlasError, match=r"^line 18\.priority: expected a whole number"):
        await take_in(other, [first, {**second, "priority": 77}], first_line=17)
    assert await exported(other) == []


async def test_a_span_that_ends_before_it_begins(jobs: FakeJobs) -> None:
    from datetime import UTC, datetime

    then = datetime(2026, 11, 23, tzinfo=UTC)
    with pytest.raises(AtlasError, match="since"):
        await ask(jobs, "dead.list", **{**ANY, "since": then, "before": then}, after=0, limit=1)
