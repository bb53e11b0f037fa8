import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.bus import Bus, Subscription
from atlasd.clock import HandClock
from atlasd.events import Event, EventsLost, PluginFailed, StatusSaid


def fact(number: int) -> StatusSaid:
    return StatusSaid(time=float(number), service="web", detail=str(number))


def numbers(events: list[Event]) -> list[float]:
    return [event.time for event in events if not isinstance(event, EventsLost)]


async def drain(subscription: Subscription) -> list[Event]:
    subscription.close()
    return [event async for event in subscription]


async def test_facts_come_in_order_and_numbered() -> None:
    bus = Bus(HandClock(), first=41)
    subscription = bus.subscribe("test")
    for number in range(3):
        bus.publish(fact(number))
    events = await drain(subscription)
    assert numbers(events) == [0, 1, 2]
    assert [event.seq for event in events] == [41, 42, 43]


async def test_a_reader_gets_only_the_kinds_that_it_asked_for() -> None:
    bus = Bus()
    subscription = bus.subscribe("test", kinds=["plugin-failed"])
    bus.publish(fact(1))
    bus.publish(PluginFailed(time=2.0, plugin="x"))
    assert [event.kind for event in await drain(subscription)] == ["plugin-failed"]


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    bus = Bus(HandClock())
    slow, quick = bus.subscribe("slow", limit=2), bus.subscribe("quick")
    for number in range(5):
        bus.publish(fact(number))
    lost, *rest = await drain(slow)
    assert isinstance(lost, EventsLost)
    assert lost.count == 3
    assert "slow" in lost.detail
    assert numbers(rest) == [3, 4]
    assert (slow.dropped, bus.dropped) == (3, 3)
    assert numbers(await drain(quick)) == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(1, 5))
def test_what_is_read_and_what_is_lost_add_up(bursts: list[int], limit: int) -> None:
    async def scenario() -> None:
        bus = Bus(HandClock())
        subscription = bus.subscribe("test", limit=limit)
        published = read = lost = 0
        last = -1.0
        for burst in bursts:
            for _ in range(burst):
                bus.publish(fact(published))
                published += 1
            if burst:
                event = await subscription.get()
                if isinstance(event, EventsLost):
                    lost += event.count
                else:
                    assert event.time > last
                    last = event.time
                    read += 1
        for event in await drain(subscription):
            if isinstance(event, EventsLost):
                lost += event.count
            else:
                assert event.time > last
                last = event.time
                read += 1
        assert read + lost == published
        assert subscription.dropped == lost

    asyncio.run(scenario())


async def test_the_record_gets_every_fact_before_any_reader() -> None:
    seen: list[int] = []
    bus = Bus(record=lambda event: seen.append(event.seq))
    subscription = bus.subscribe("test", limit=1)
    for number in range(4):
        bus.publish(fact(number))
    assert seen == [1, 2, 3, 4]
    await drain(subscription)


async def test_a_reader_that_waits_is_woken() -> None:
    bus = Bus()
    subscription = bus.subscribe("test")
    waiting = asyncio.create_task(subscription.get())
    await asyncio.sleep(0)
    bus.publish(fact(7))
    assert (await waiting).time == 7


async def test_a_thread_may_publish() -> None:
    bus = Bus()
    subscription = bus.subscribe("test")
    thread = threading.Thread(target=bus.publish, args=(fact(9),))
    thread.start()
    assert (await subscription.get()).time == 9
    thread.join()


async def test_publishing_to_a_closed_loop_from_a_thread_is_harmless() -> None:
    made: list[Bus] = []

    def elsewhere() -> None:
        async def make() -> None:
            made.append(Bus())

        asyncio.run(make())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    made[0].publish(fact(1))
    assert made[0].published == 0


async def test_who_has_left_is_no_longer_given_anything() -> None:
    bus = Bus()
    async with bus.subscribe("test") as subscription:
        assert bus.subscriptions() == (subscription,)
    bus.publish(fact(1))
    assert bus.subscriptions() == ()
    with pytest.raises(StopAsyncIteration):
        await subscription.get()


async def test_closing_the_bus_ends_every_reader_after_what_is_queued() -> None:
    bus = Bus()
    subscription = bus.subscribe("test")
    bus.publish(fact(1))
    bus.close()
    assert numbers([event async for event in subscription]) == [1]
