"""The event loop: order, cancellation, and that one bad callback costs only itself."""

import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.clock import HandClock
from atlasd.services.loop import Loop


class Ground:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.reports: list[str] = []
        self.loop = Loop(self.clock, self.reports.append)
        self.done: list[object] = []

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.wind(seconds)
        self.loop.turn(limit=0)


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    made.loop.close()


@given(
    delays=st.lists(st.integers(0, 50), max_size=30),
    cancelled=st.sets(st.integers(0, 29)),
)
def test_timers_fire_in_their_order_but_for_those_taken_back(
    delays: list[int], cancelled: set[int]
) -> None:
    ground = Ground()
    timers = [
        ground.loop.call_later(d, partial(ground.done.append, i)) for i, d in enumerate(delays)
    ]
    for i in cancelled:
        if i < len(timers):
            timers[i].cancel()
    for _ in range(60):
        ground.turn(1.0)
    wanted = [i for i in range(len(delays)) if i not in cancelled]
    assert ground.done == sorted(wanted, key=lambda i: (delays[i], i))
    assert not any(t.pending for t in timers)
    ground.loop.close()


def test_a_timer_is_not_early(ground: Ground) -> None:
    ground.loop.call_later(1.0, lambda: ground.done.append(1))
    ground.turn(0.999)
    assert ground.done == []
    ground.turn(0.001)
    assert ground.done == [1]


def test_soon_is_in_this_turn_and_what_it_calls_soon_is_in_the_next(ground: Ground) -> None:
    def first() -> None:
        ground.done.append("first")
        ground.loop.call_soon(lambda: ground.done.append("second"))

    ground.loop.call_soon(first)
    ground.turn()
    assert ground.done == ["first"]
    ground.turn()
    assert ground.done == ["first", "second"]


def test_whoever_raises_costs_only_himself(ground: Ground) -> None:
    read, write = os.pipe()

    def bad(*_: object) -> None:
        raise RuntimeError("oh no")

    def drain(_mask: int) -> None:
        os.read(read, 1)
        bad()

    ground.loop.watch(read, drain)
    os.write(write, b"x")
    ground.loop.call_later(0.0, bad)
    ground.loop.call_later(0.0, lambda: ground.done.append("timer"))
    ground.loop.call_soon(bad)
    ground.loop.call_soon(lambda: ground.done.append("soon"))
    ground.turn()
    assert ground.done == ["timer", "soon"]
    assert len(ground.reports) == 3
    assert all("oh no" in report for report in ground.reports)
    ground.loop.unwatch(read)
    os.close(read)
    os.close(write)


def test_a_descriptor_that_an_earlier_callback_has_forgotten_is_not_called(ground: Ground) -> None:
    pipes = [os.pipe() for _ in range(2)]

    def called(mine: int, _mask: int) -> None:
        ground.done.append(mine)
        for read, _ in pipes:
            ground.loop.unwatch(read)

    for read, write in pipes:
        os.write(write, b"x")
        ground.loop.watch(read, partial(called, read))
    ground.turn()
    ground.turn()
    assert len(ground.done) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_unwatching_twice_or_after_the_close_does_no_harm(ground: Ground) -> None:
    read, write = os.pipe()
    ground.loop.watch(read, lambda _mask: None)
    os.close(read)
    ground.loop.unwatch(read)
    ground.loop.unwatch(read)
    os.close(write)


def test_a_signal_is_handled_in_the_loop_and_once_for_many(ground: Ground) -> None:
    ground.loop.on_signal(signal.SIGUSR1, lambda: ground.done.append("usr1"))
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
    ground.turn()
    ground.turn()
    assert ground.done == ["usr1"]


def test_an_idle_loop_does_not_wake(ground: Ground) -> None:
    ground.loop.call_later(1000.0, lambda: None).cancel()
    ground.loop.call_later(2000.0, lambda: None)
    before = ground.loop.wakeups
    ground.turn()
    assert ground.loop.wakeups == before + 1
    assert not ground.done
