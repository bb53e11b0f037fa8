"""The timetable over a real queue, with a clock that is wound by hand."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.queue import ClaimAsk, Filter, Finish, JobState, NewJob, QueueStore, Slot
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd.jobs.occurrences import Every
from atlasd.jobs.rules import QueueRules
from atlasd.jobs.schedules import Schedule
from atlasd.jobs.timetable import REPLACED, Timetable
from atlasd.testing.context import PlainContext
from atlasd_plugins.queue_sqlite import open_store
from atlasd_plugins.queue_sqlite.store import SqliteQueue

HOUR = 3600
REPORT = NewJob("reports", "report.make", "{}")
Opened = Callable[[], Any]


@pytest.fixture
def clock() -> HandClock:
    return HandClock(wall=1_800_000_000 // HOUR * HOUR)


@pytest.fixture
async def opened(tmp_path: Path, clock: HandClock) -> AsyncIterator[Opened]:
    """Opens the queue anew, as a restart would."""
    async with AsyncExitStack() as stack:
        current: list[AsyncExitStack] = []

        async def again() -> QueueStore:
            if current:
                await current.pop().aclose()
            inner = await stack.enter_async_context(AsyncExitStack())
            current.append(inner)
            context = PlainContext(tmp_path, clock=clock)
            inner.callback(context.close)
            return await inner.enter_async_context(open_store(NoSettings(), context, QueueRules()))

        yield again


@pytest.fixture
async def queue(opened: Opened) -> QueueStore:
    store: QueueStore = await opened()
    return store


def hourly(name: str = "hourly", **rest: Any) -> Schedule:
    rest = {"plan": Every(HOUR * 1000), "words": "every 1h", "job": REPORT, **rest}
    return Schedule(name=name, **rest)


def table(store: QueueStore, *schedules: Schedule, shared: bool = False) -> Timetable:
    made = Timetable(store, due_in=lambda _: None)
    made.follow({one.name: one for one in schedules}, shared=shared)
    return made


async def jobs(store: QueueStore) -> list[JobState]:
    return [row.state for row in await store.select(Filter(), 1000)]


async def slots(store: QueueStore, name: str = "hourly") -> list[Slot]:
    return list(reversed(await store.slots(name, 1000)))


async def test_it_fires_when_it_is_due_and_says_when_next(
    queue: QueueStore, clock: HandClock
) -> None:
    times = table(queue, hourly())
    start = await queue.now()
    assert await times.turn() == start + HOUR * 1000
    assert await jobs(queue) == []
    clock.wind(HOUR - 1)
    assert await times.turn() == start + HOUR * 1000
    clock.wind(1.25)
    assert await times.turn() == start + 2 * HOUR * 1000
    assert await jobs(queue) == [JobState.AVAILABLE]
    assert await times.turn() == start + 2 * HOUR * 1000
    assert await jobs(queue) == [JobState.AVAILABLE]
    assert times.tally.fired == {"hourly": 1}
    assert times.tally.lateness == {"hourly": 250}


@pytest.mark.parametrize(
    ("misfire", "fired", "left"), [("skip", 0, 24), ("once", 1, 23), ("all", 24, 0)]
)
async def test_down_for_a_day(
    opened: Opened,
    clock: HandClock,
    caplog: pytest.LogCaptureFixture,
    misfire: str,
    fired: int,
    left: int,
) -> None:
    caplog.set_level(logging.WARNING, "atlasd.jobs")
    await table(await opened(), hourly(misfire=misfire)).turn()
    clock.wind(24 * HOUR + 600)
    store = await opened()
    times = table(store, hourly(misfire=misfire))
    await times.turn()
    assert len(await jobs(store)) == fired
    assert times.tally.left_out == ({("hourly", "misfire"): left} if left else {})
    told = [record.getMessage() for record in caplog.records]
    assert told == ([f"schedule hourly: {left} runs were missed and left out"] if left else [])
    store = await opened()
    await table(store, hourly(misfire=misfire)).turn()
    assert len(await jobs(store)) == fired, "another restart owes nothing"


async def test_a_deadline_after_a_day(opened: Opened, clock: HandClock) -> None:
    schedule = hourly(start_deadline=60_000)
    await table(await opened(), schedule).turn()
    clock.wind(24 * HOUR + 61)
    store = await opened()
    await table(store, schedule).turn()
    assert await jobs(store) == []
    assert {slot.reason for slot in await slots(store)} == {"deadline"}


async def test_a_new_or_changed_plan_owes_nothing_and_other_changes_cost_nothing(
    opened: Opened, clock: HandClock
) -> None:
    store = await opened()
    await table(store, hourly()).turn()
    clock.wind(HOUR)
    half = hourly(plan=Every(HOUR * 500), words="every 30m")
    store = await opened()
    await table(store, half).turn()
    assert await jobs(store) == [], "the plan was changed while nobody was there"
    clock.wind(HOUR)
    other_args = hourly(plan=Every(HOUR * 500), words="every 30m", job=REPORT._replace(priority=1))
    store = await opened()
    await table(store, other_args).turn()
    assert await jobs(store) == [JobState.AVAILABLE], "the last run is made up for"
    off = hourly(plan=Every(HOUR * 500), words="every 30m", enabled=False)
    await table(store, off).turn()
    clock.wind(HOUR)
    await table(store, other_args).turn()
    assert await jobs(store) == [JobState.AVAILABLE], "nothing is owed for the time switched off"


async def test_a_schedule_that_was_taken_away_begins_anew_when_it_comes_back(
    queue: QueueStore, clock: HandClock
) -> None:
    times = table(queue, hourly(), hourly("other"))
    await times.turn()
    times.follow({"other": hourly("other")}, shared=False)
    await times.turn()
    assert [row.schedule for row in await queue.schedules()] == ["other"]
    clock.wind(HOUR + 1)
    times.follow({"hourly": hourly()}, shared=False)
    await times.turn()
    assert await jobs(queue) == []


async def test_in_a_shared_store_the_schedules_of_others_are_left_alone(
    queue: QueueStore, clock: HandClock
) -> None:
    mine, theirs = table(queue, hourly(), shared=True), table(queue, hourly("b"), shared=True)
    await theirs.turn()
    await mine.turn()
    assert [row.schedule for row in await queue.schedules()] == ["b", "hourly"]
    mine.follow({}, shared=True)
    assert await mine.turn() == 0
    assert [row.schedule for row in await queue.schedules()] == ["b"]
    await queue.keep_schedules({}, gone=["b"])
    await theirs.turn()
    await theirs.turn()
    clock.wind(HOUR)
    await theirs.turn()
    assert theirs.tally.fired == {"b": 1}, "it is noted again, whoever took it away"


async def test_two_daemons_on_one_store_fire_once(queue: QueueStore, clock: HandClock) -> None:
    two = [table(queue, hourly(misfire="all"), shared=True) for _ in range(2)]
    await asyncio.gather(*(one.turn() for one in two))
    for _ in range(5):
        clock.wind(HOUR * 2)
        await asyncio.gather(*(one.turn() for one in two))
    assert len(await jobs(queue)) == 10
    assert sum(one.tally.fired.get("hourly", 0) for one in two) == 10
    assert [slot.job for slot in await slots(queue)] == list(range(1, 11))


async def test_a_pause_holds_over_a_restart_and_owes_nothing(
    opened: Opened, clock: HandClock
) -> None:
    store = await opened()
    times = table(store, hourly())
    await times.turn()
    await times.pause("hourly", paused=True)
    clock.wind(HOUR)
    store = await opened()
    times = table(store, hourly())
    assert await times.turn() == 0
    clock.wind(HOUR + 10)
    await times.pause("hourly", paused=False)
    start = await store.now()
    assert await times.turn() == start + (HOUR - 10) * 1000
    assert await jobs(store) == []
    clock.wind(HOUR)
    await times.turn()
    assert await jobs(store) == [JobState.AVAILABLE]


async def finish(store: QueueStore) -> None:
    """Have a worker finish what there is."""
    _, found = await store.exchange([], ask())
    await store.exchange([Finish(job.id, job.token) for job in found], None)


def ask() -> ClaimAsk:
    return ClaimAsk(worker="w", queues=("reports",), limit=10, lease=10**9)


async def test_skip_leaves_out_what_comes_too_early(queue: QueueStore, clock: HandClock) -> None:
    times = table(queue, hourly(overlap="skip"))
    await times.turn()
    for _ in range(3):
        clock.wind(HOUR)
        await times.turn()
    assert await jobs(queue) == [JobState.AVAILABLE]
    assert [slot.reason for slot in await slots(queue)] == ["", "overlap", "overlap"]
    await finish(queue)
    clock.wind(HOUR)
    await times.turn()
    assert await jobs(queue) == [JobState.COMPLETED, JobState.AVAILABLE]
    assert times.tally.left_out == {("hourly", "overlap"): 2}


async def test_buffer_one_fires_the_one_that_waited_when_the_job_has_ended(
    opened: Opened, clock: HandClock
) -> None:
    store = await opened()
    times = table(store, hourly(overlap="buffer_one"))
    await times.turn()
    for _ in range(3):
        clock.wind(HOUR)
        await times.turn()
    assert await jobs(store) == [JobState.AVAILABLE]
    assert [slot.reason for slot in await slots(store)] == ["", "held", "overlap"]
    assert await times.turn() == await store.now() + 1000
    await finish(store)
    clock.wind(1)
    store = await opened()
    times = table(store, hourly(overlap="buffer_one"))
    await times.turn()
    assert await jobs(store) == [JobState.COMPLETED, JobState.AVAILABLE]
    first, second, third = await slots(store)
    assert (first.job, second.job, third.reason) == (1, 2, "overlap")
    row = await store.get(2)
    assert row is not None
    assert f'"late_by":{(HOUR + 1) * 1000}' in row.options


async def test_replace_cancels_a_job_that_waits_and_fires_at_once(
    queue: QueueStore, clock: HandClock
) -> None:
    times = table(queue, hourly(overlap="replace"))
    await times.turn()
    clock.wind(HOUR)
    await times.turn()
    clock.wind(HOUR)
    assert await times.turn() == await queue.now(), "there is more to do at once"
    await times.turn()
    assert await jobs(queue) == [JobState.CANCELLED, JobState.AVAILABLE]
    first = await queue.get(1)
    assert first is not None
    assert first.reason == REPLACED


async def test_replace_asks_a_job_that_runs_to_end_and_waits_for_that(
    queue: QueueStore, clock: HandClock
) -> None:
    times = table(queue, hourly(overlap="replace"))
    await times.turn()
    clock.wind(HOUR)
    await times.turn()
    _, (running,) = await queue.exchange([], ask())
    for _ in range(2):
        clock.wind(HOUR)
        await times.turn()
        await times.turn()
    row = await queue.get(running.id)
    assert row is not None
    assert row.cancel_requested
    assert len(await jobs(queue)) == 1, "the two never run at once"
    assert [slot.reason for slot in await slots(queue)] == ["", "overlap", "held"]
    await queue.exchange([Finish(running.id, running.token)], None)
    clock.wind(1)
    await times.turn()
    assert len(await jobs(queue)) == 2
    assert [slot.job for slot in await slots(queue)] == [1, 0, 2]


async def test_run_now_is_beside_the_plan_but_counts_as_the_last_job(
    queue: QueueStore, clock: HandClock
) -> None:
    times = table(queue, hourly(overlap="skip", splay=600_000))
    await times.turn()
    clock.wind(60)
    assert await times.run_now("hourly") == 1
    row = await queue.get(1)
    assert row is not None
    assert row.state is JobState.AVAILABLE, "what is asked for now isn't put off"
    assert '"scheduled_for":"2027-01-15T08:01:00Z"' in row.options
    clock.wind(HOUR)
    await times.turn()
    assert [slot.reason for slot in await slots(queue)] == ["overlap"]
    with pytest.raises(AtlasError) as caught:
        await times.run_now("hurly")
    assert (caught.value.code, caught.value.hint) == ("schedule.unknown", "did you mean 'hourly'?")


async def test_a_job_that_is_put_off_waits_and_maintenance_hears_of_it(
    queue: QueueStore, clock: HandClock
) -> None:
    told: list[int] = []
    schedule = hourly(splay=600_000)
    times = Timetable(queue, due_in=told.append)
    times.follow({"hourly": schedule}, shared=False)
    await times.turn()
    clock.wind(HOUR)
    await times.turn()
    assert await jobs(queue) == [JobState.SCHEDULED]
    assert told == [schedule.put_off(await queue.now())]


async def test_a_clock_that_was_a_year_ahead_does_not_silence_a_schedule(
    queue: QueueStore, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    times = table(queue, hourly())
    await times.turn()
    right = clock.wall()
    clock.set_wall(right + 365 * 86400)
    await times.turn()
    assert len(await jobs(queue)) == 1
    clock.set_wall(right + 60)
    await times.turn()
    assert "has run ahead of the clock" in caplog.text
    await times.turn()
    clock.wind(HOUR)
    await times.turn()
    assert len(await jobs(queue)) == 2


async def test_a_clock_set_back_by_an_hour_fires_nothing_twice(
    queue: QueueStore, clock: HandClock
) -> None:
    times = table(queue, hourly())
    await times.turn()
    clock.wind(HOUR)
    await times.turn()
    clock.set_wall(clock.wall() - HOUR + 1)
    await times.turn()
    clock.wind(HOUR)
    await times.turn()
    assert len(await jobs(queue)) == 1
    clock.wind(HOUR)
    await times.turn()
    assert len(await jobs(queue)) == 2


async def test_what_is_due_together_shares_a_commit_and_fails_alone(
    queue: QueueStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(queue, SqliteQueue)
    times = table(queue, *(hourly(f"s{n}") for n in range(50)))
    await times.turn()
    clock.wind(HOUR)
    before = queue.group.tally.commits
    await times.turn()
    assert len(await jobs(queue)) == 50
    assert queue.group.tally.commits == before + 1
    clock.wind(HOUR)
    fire = queue.fire

    def picky(claims: Any) -> Any:
        if claims[0].schedule == "s0":
            raise AtlasError("job.store", "not now", hint="later")
        return fire(claims)

    monkeypatch.setattr(queue, "fire", picky)
    with pytest.raises(AtlasError, match="not now"):
        await times.turn()
    assert len(await jobs(queue)) == 99
    monkeypatch.undo()
    await times.turn()
    assert len(await jobs(queue)) == 100


async def test_a_plan_that_changes_in_the_middle_of_a_round_owes_nothing(
    queue: QueueStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = table(queue, hourly())
    await times.turn()
    clock.wind(HOUR - 60)
    often = hourly(plan=Every(60_000), words="every 1m", misfire="all")
    read = queue.schedules

    async def reloading() -> Any:
        times.follow({"hourly": often}, shared=False)
        return await read()

    monkeypatch.setattr(queue, "schedules", reloading)
    await times.turn()
    monkeypatch.undo()
    assert await times.turn() == await queue.now() + 60_000
    assert await jobs(queue) == []
    clock.wind(60)
    await times.turn()
    assert len(await jobs(queue)) == 1


async def test_it_runs_by_itself_and_a_store_in_trouble_is_tried_again(
    queue: QueueStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlasd.jobs.timetable.RETRY", 0.0)
    times = table(queue, hourly())
    reads = 0
    settled, woken = asyncio.Event(), asyncio.Event()
    read = queue.schedules

    async def failing() -> Any:
        nonlocal reads
        reads += 1
        if reads < 4:
            raise AtlasError("job.store", "the disk is full", hint="make room")
        if reads == 5:  # the fourth was for what there is to forget
            settled.set()
        if reads == 6:
            woken.set()
        return await read()

    monkeypatch.setattr(queue, "schedules", failing)
    running = asyncio.ensure_future(times.run())
    await settled.wait()
    await times.pause("hourly", paused=True)
    await woken.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert caplog.text.count("the disk is full (make room)") == 1
