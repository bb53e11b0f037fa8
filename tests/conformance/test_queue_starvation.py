"""At full load, for thousands of turns: nobody waits longer than was said, and shares are fair.

Each turn of a second one worker ends a job and takes the next, and as much fresh work comes in: the
queue never empties. The clock is wound by hand.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.queue import Claimed, Finish, QueueLimits, QueueStoreType
from atlasd.testing.context import PlainContext
from atlasd.testing.descriptors import load_module
from atlasd.testing.memory_queue import memory_store
from atlasd.testing.queue.bench import Bench, a_job
from atlasd_plugins import queue_postgres, queue_sqlite
from tests.postgres_server import HandWoundSchema

TURN = 1_000
"""Milliseconds."""
AGING = 20_000
LOW = 30
"""Jobs of each low priority that are there from the beginning."""


async def opened(
    kind: QueueStoreType, folder: Path, turns: int
) -> AsyncIterator[tuple[Bench, int]]:
    clock = HandClock()

    async def advance(milliseconds: int) -> None:
        clock.wind(milliseconds / 1000)

    context = PlainContext(folder / "state", clock=clock)
    async with Bench(kind, {}, context, advance) as bench:
        yield bench, turns
    context.close()


@pytest.fixture(params=["memory", "sqlite"])
async def at_work(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Bench, int]]:
    """A store, and for how many turns it is worked."""
    kinds: dict[str, tuple[Callable[[], QueueStoreType], int]] = {
        "memory": (memory_store, 300),  # which is made for few jobs
        "sqlite": (lambda: load_module(queue_sqlite, QueueStoreType, "sqlite"), 1_500),
    }
    kind, turns = kinds[request.param]
    async for found in opened(kind(), tmp_path, turns):
        yield found


@pytest.fixture
async def on_postgres(
    postgres_schema: HandWoundSchema, tmp_path: Path
) -> AsyncIterator[tuple[Bench, int]]:
    kind = load_module(queue_postgres, QueueStoreType, "postgres")
    context = PlainContext(tmp_path / "state")
    async with Bench(kind, postgres_schema.settings, context, postgres_schema.advance) as bench:
        yield bench, 300
    context.close()


async def nobody_starves(bench: Bench, turns: int) -> None:
    """Priorities 3, 6 and 9 wait beside fresh urgent work that alone would fill every turn."""
    bench.rule(queues={"q": QueueLimits(aging=AGING)})
    low = (3, 6, 9)
    made = {
        number: priority
        for priority in low
        for number in await bench.put(*[a_job(priority=priority)] * LOW)
    }
    began = await bench.store.now()
    waits: dict[int, int] = {}
    urgent = 0
    job: Claimed | None = None
    for _ in range(turns):
        await bench.put(a_job(priority=0))
        (job,) = await bench.claim(1, after=[Finish(job.id, job.token)] if job else [])
        wait = job.lease_until - 30_000 - job.run_at
        if job.id in made:
            waits[job.id] = job.lease_until - 30_000 - began
        else:
            urgent = max(urgent, wait)
        await bench.advance(TURN)
    for number, priority in made.items():
        bound = bench.rules.bound("q", priority)
        assert bound == priority * AGING
        # What waits before it comes on top: every low job of the same rank or a smaller one.
        ahead = LOW * sum(1 for other in low if other <= priority) * TURN
        if bound + ahead <= (turns - 1) * TURN:
            assert waits[number] <= bound + ahead, (number, priority, waits[number])
    assert waits, "some of them were to have their turn"
    assert urgent <= LOW * len(low) * TURN + TURN, "nor do the urgent ones wait for ever"


async def shares_are_fair(bench: Bench, turns: int) -> None:
    """Four customers with endless work, one of which has three shares; a fifth comes late."""
    bench.rule(queues={"q": QueueLimits(weights={"gold": 3.0})})
    keys = ("gold", "a", "b", "c")
    for key in keys:
        await bench.put(*[a_job(fair_key=key)] * turns)
    begun: Counter[str] = Counter()
    job: Claimed | None = None
    late: list[int] = []
    for turn in range(turns):
        if turn == turns // 2:
            late += await bench.put(*[a_job(fair_key="late")] * 5)
        (job,) = await bench.claim(1, after=[Finish(job.id, job.token)] if job else [])
        begun[job.fair_key] += 1
        if begun["late"] == 5 and late:
            assert turn - turns // 2 <= 5 * 7 + 7, "who comes late waits for nobody's backlog"
            late = []
        await bench.advance(TURN)
    assert not late, "the late one had its turns"
    for key in keys:
        share = (3 if key == "gold" else 1) / 6 * turns
        assert abs(begun[key] - share) <= 0.03 * turns + 1, begun


async def test_nobody_starves(at_work: tuple[Bench, int]) -> None:
    await nobody_starves(*at_work)


async def test_shares_are_fair(at_work: tuple[Bench, int]) -> None:
    await shares_are_fair(*at_work)


async def test_nobody_starves_on_postgres(on_postgres: tuple[Bench, int]) -> None:
    await nobody_starves(*on_postgres)


async def test_shares_are_fair_on_postgres(on_postgres: tuple[Bench, int]) -> None:
    await shares_are_fair(*on_postgres)
