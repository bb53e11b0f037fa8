import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.bus import Bus
from atlasd.core import journal as module
from atlasd.core.journal import SCHEMA, Journal, Read
from atlasd.events import CoreStarted, Event, InstanceMoved, StatusSaid
from atlasd.store import Store


def moved(service: str = "web", new: str = "running") -> InstanceMoved:
    return InstanceMoved(time=1.0, service=service, instance=0, old="starting", new=new)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "a.db", {"journal": SCHEMA})
    yield opened
    await opened.close()


async def load(store: Store) -> tuple[Journal, Bus]:
    journal = await Journal.load(store, report=pytest.fail)
    return journal, Bus(first=journal.next_seq, record=journal.record)


async def test_facts_can_be_read_at_once_and_outlive_the_daemon(store: Store) -> None:
    journal, bus = await load(store)
    bus.publish(moved())
    assert [e.seq for e in await journal.events()] == [1]
    await journal.flush()
    journal, bus = await load(store)
    bus.publish(moved(new="stopped"))
    events = await journal.events()
    assert [event.seq for event in events] == [1, 2]
    assert isinstance(events[0], InstanceMoved)
    assert events[0].new == "running"


async def test_how_far_services_was_read_is_kept_with_the_facts_themselves(store: Store) -> None:
    journal, bus = await load(store)
    journal.read = Read(identity="boot/1", seq=10)
    bus.publish(moved())
    # Neither is durable yet: a core that dies now reads the fact again.
    assert (await load(store))[0].read is None
    await journal.flush()
    assert (await load(store))[0].read == Read(identity="boot/1", seq=10)


async def test_reading_by_number_service_kind_and_count(store: Store) -> None:
    journal, bus = await load(store)
    for service in ("web", "db", "web"):
        bus.publish(moved(service))
    await journal.flush()
    journal, bus = await load(store)  # from here on the first three are on disk only
    bus.publish(StatusSaid(time=2.0, service="web", detail="busy"))
    bus.publish(CoreStarted(time=3.0, pid=1, version="0"))

    def seqs(events: list[Event]) -> list[int]:
        return [event.seq for event in events]

    assert seqs(await journal.events()) == [1, 2, 3, 4, 5]
    assert seqs(await journal.events(since=3)) == [3, 4, 5]
    assert seqs(await journal.events(since=5)) == [5]
    assert seqs(await journal.events(service="web")) == [1, 3, 4]
    assert seqs(await journal.events(service="web", limit=2)) == [3, 4]
    assert seqs(await journal.events(kinds={"transition"}, limit=2)) == [2, 3]
    assert seqs(await journal.events(kinds={"transition", "status"}, service="web")) == [1, 3, 4]
    assert seqs(await journal.events(limit=0)) == []


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(["web", "db", "job"]), max_size=60),
    st.integers(1, 20),
    st.integers(1, 10),
)
def test_pruning_keeps_the_newest_and_no_more_than_allowed(
    services: list[str], keep_all: int, keep_service: int
) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for script in SCHEMA:
        connection.executescript(script)
    for seq, service in enumerate(services, start=1):
        connection.execute(
            "INSERT INTO journal (seq, time, kind, service, body) VALUES (?, 0, 'x', ?, '{}')",
            (seq, service),
        )
    module._prune(connection, keep_all, keep_service)
    left = connection.execute("SELECT seq, service FROM journal ORDER BY seq").fetchall()
    connection.close()
    assert len(left) <= keep_all
    for name in set(services):
        mine = [seq for seq, service in left if service == name]
        assert len(mine) <= keep_service
        all_of_it = [seq for seq, s in enumerate(services, start=1) if s == name]
        assert mine == all_of_it[len(all_of_it) - len(mine) :]
    if services:
        assert len(services) in [seq for seq, _ in left]


async def test_a_cancelled_journal_writes_what_is_left(store: Store) -> None:
    journal, bus = await load(store)
    task = asyncio.create_task(journal.run())
    await asyncio.sleep(0)
    bus.publish(moved())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [e.seq for e in await (await load(store))[0].events()] == [1]


async def test_a_store_that_refuses_loses_nothing_and_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    journal = await Journal.load(store, report=told.append)
    monkeypatch.setattr(module, "FLUSH_AFTER", 0.0)
    refuse = sqlite3.OperationalError("disk full")

    def work(*_: object, **__: object) -> None:
        raise refuse

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", work)
        task = asyncio.create_task(journal.run())
        Bus(record=journal.record).publish(moved())
        async with asyncio.timeout(10):
            while not journal.failures:  # noqa: ASYNC110  another task counts them
                await asyncio.sleep(0)
    assert "disk full" in journal.failing
    assert "disk full" in told[0]
    await journal.flush()
    assert journal.failing == ""
    assert [e.seq for e in await (await load(store))[0].events()] == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
