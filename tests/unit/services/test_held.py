"""Descriptors that peers keep: what they are told, what comes back, and when it is let go."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.services.held import PATIENCE, Held
from atlasd.services.loop import Loop


class Peer:
    """What core would hold."""

    def __init__(self) -> None:
        self.holds: dict[str, int] = {}
        self.messages = 0

    def tell(self, new: list[tuple[str, int]], gone: list[str]) -> None:
        self.messages += 1
        for name in gone:
            self.holds.pop(name, None)
        self.holds.update(new)


class Ground:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.loop = Loop(self.clock)
        self.held = Held(self.loop)
        self.peer = Peer()

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(limit=0)


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    made = Ground()
    yield made
    made.loop.close()


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_a_peer_is_sent_everything_and_then_each_change(ground: Ground) -> None:
    ground.held.hold("a", 101)
    ground.held.connect(ground.peer.tell)
    assert ground.peer.holds == {"a": 101}
    ground.held.hold("b", 102)
    ground.held.drop("a")
    ground.turn()
    assert ground.peer.holds == {"b": 102}
    assert ground.peer.messages == 2


def test_what_comes_and_goes_within_a_turn_is_not_told(ground: Ground) -> None:
    ground.held.connect(ground.peer.tell)
    ground.turn()
    ground.held.hold("a", 101)
    ground.held.drop("a")
    ground.turn()
    assert ground.peer.holds == {}
    assert ground.peer.messages == 1


def test_one_that_is_replaced_is_told(ground: Ground) -> None:
    ground.held.connect(ground.peer.tell)
    ground.held.hold("a", 101)
    ground.turn()
    ground.held.hold("a", 102)
    ground.turn()
    assert ground.peer.holds == {"a": 102}
    ground.held.drop("a")
    ground.held.hold("a", 103)
    ground.turn()
    assert ground.peer.holds == {"a": 103}
    ground.held.hold("a", 104)
    ground.held.drop("a")
    ground.turn()
    assert ground.peer.holds == {}


def test_a_peer_that_has_gone_is_not_told_but_one_that_took_its_place_is(ground: Ground) -> None:
    first, second = ground.peer, Peer()
    ground.held.connect(first.tell)
    ground.held.connect(second.tell)
    ground.held.disconnect(first.tell)
    ground.held.hold("a", 101)
    ground.turn()
    assert (first.holds, second.holds) == ({}, {"a": 101})
    ground.held.disconnect(second.tell)
    ground.held.hold("b", 102)
    ground.turn()
    assert second.holds == {"a": 101}


def test_what_is_offered_is_taken_once(ground: Ground) -> None:
    fd = null()
    assert ground.held.offer({"a": fd}) == ["a"]
    assert not os.get_inheritable(fd)
    assert ground.held.has("a")
    assert ground.held.take("a") == fd
    assert ground.held.take("a") is None
    ground.clock.wind(PATIENCE + 1)
    ground.turn()
    assert is_open(fd), "it is the taker's, whatever is settled later"
    os.close(fd)


def test_what_is_offered_twice_or_held_already_is_closed(ground: Ground) -> None:
    ground.held.hold("mine", 101)
    first, second, third = null(), null(), null()
    assert ground.held.offer({"a": first}) == ["a"]
    assert ground.held.offer({"a": second, "mine": third}) == []
    assert [is_open(fd) for fd in (first, second, third)] == [True, False, False]


def test_what_nobody_takes_is_closed_and_the_peer_forgets_it(ground: Ground) -> None:
    ground.held.connect(ground.peer.tell)
    ground.peer.holds["late"] = 77
    fd = null()
    ground.clock.wind(1000)  # an offer may come at any time, not only after the start
    ground.held.offer({"late": fd})
    ground.clock.wind(PATIENCE - 0.1)
    ground.turn()
    assert is_open(fd)
    ground.clock.wind(0.2)
    ground.turn()
    assert not is_open(fd)
    assert ground.peer.holds == {}


def test_who_waits_for_an_offer_is_called_once(ground: Ground) -> None:
    calls: list[bool] = []
    ground.held.when_offered(lambda: calls.append(ground.held.has("a")))
    ground.held.offer({"a": null()})
    ground.held.offer({"b": null()})
    assert calls == [True]
    ground.held.settle()


def test_a_socket_with_what_was_said_meanwhile_is_wanted_though_there_is_another(
    ground: Ground,
) -> None:
    ground.held.hold("notify/web/0", 101)
    fd = null()
    assert ground.held.offer({"notify/web/0": fd}) == ["notify/web/0"]
    assert ground.held.take("notify/web/0") == fd
    assert ground.held.entries() == {"notify/web/0": 101}
    os.close(fd)
