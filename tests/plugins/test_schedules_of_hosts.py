"""Schedules of several hosts on one PostgreSQL: each run once, whoever is up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from atlasd.contracts.queue import ClaimAsk, Filter, Finish, NewJob, QueueStore
from atlasd.jobs.occurrences import Every
from atlasd.jobs.rules import QueueRules
from atlasd.jobs.schedules import Schedule
from atlasd.jobs.timetable import Timetable
from atlasd.testing import PlainContext
from atlasd_plugins.queue_postgres import open_store
from atlasd_plugins.queue_postgres.settings import PostgresSettings
from tests.postgres_server import HandWoundSchema

HOUR = 3_600_000


@pytest.fixture
async def stores(
    postgres_schema: HandWoundSchema, tmp_path: Path
) -> AsyncIterator[list[QueueStore]]:
    context = PlainContext(tmp_path)
    said = PostgresSettings.model_validate(postgres_schema.settings)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_store(said, context, QueueRules()))
            for _ in range(3)
        ]
    context.close()


def tables(stores: list[QueueStore], overlap: str = "allow") -> list[Timetable]:
    made = []
    for store in stores:
        schedule = Schedule(
            name="hourly", plan=Every(HOUR), words="every 1h", misfire="all", overlap=overlap,
            job=NewJob("reports", "report.make", "{}"),
        )  # fmt: skip
        one = Timetable(store, due_in=lambda _: None)
        one.follow({"hourly": schedule}, shared=True)
        made.append(one)
    return made


async def turn(hosts: list[Timetable]) -> None:
    await asyncio.gather(*(one.turn() for one in hosts))


async def test_each_run_is_one_hosts(
    stores: list[QueueStore], postgres_schema: HandWoundSchema
) -> None:
    hosts = tables(stores)
    await turn(hosts)
    for _ in range(8):
        await postgres_schema.advance(2 * HOUR + 1)
        await turn(hosts)
    assert sum(one.tally.fired.get("hourly", 0) for one in hosts) == 16
    slots = await stores[0].slots("hourly", 100)
    assert len(slots) == 16
    assert len({slot.job for slot in slots}) == 16
    assert len(await stores[0].select(Filter(), 100)) == 16


async def test_a_pause_holds_for_every_host(
    stores: list[QueueStore], postgres_schema: HandWoundSchema
) -> None:
    hosts = tables(stores)
    await turn(hosts)
    await hosts[0].pause("hourly", paused=True)
    await postgres_schema.advance(HOUR)
    await turn(hosts)
    assert await stores[0].select(Filter(), 100) == []
    await hosts[1].pause("hourly", paused=False)
    await postgres_schema.advance(HOUR)
    await turn(hosts)
    assert len(await stores[0].select(Filter(), 100)) == 1


async def test_what_one_host_held_back_another_fires(
    stores: list[QueueStore], postgres_schema: HandWoundSchema
) -> None:
    hosts = tables(stores, "buffer_one")
    await turn(hosts)
    for _ in range(3):
        await postgres_schema.advance(HOUR)
        await turn(hosts)
    ask = ClaimAsk(worker="w", queues=("reports",), limit=5, lease=HOUR)
    _, (job,) = await stores[2].exchange([], ask)
    await stores[2].exchange([Finish(job.id, job.token)], None)
    await postgres_schema.advance(1000)
    await turn(hosts[1:])
    reasons = [slot.reason for slot in await stores[0].slots("hourly", 10)]
    assert reasons == ["overlap", "", ""]
    assert len(await stores[0].select(Filter(), 100)) == 2
