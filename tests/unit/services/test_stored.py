"""Descriptors that programs store: passed on, taken out, bounded, and back after a kill."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.clock import HandClock
from atlasd.services.held import Held
from atlasd.services.loop import Loop
from atlasd.services.stored import MOST, Stored


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(HandClock())
    yield made
    made.close()


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_what_was_stored_is_there_in_its_order_until_it_is_taken_out(loop: Loop) -> None:
    held = Held(loop)
    stored = Stored(held, "web", 0)
    fds = [null() for _ in range(4)]
    assert stored.keep("conn", fds[:2]) == 2
    assert stored.keep("a/b", fds[2:3]) == 1
    assert stored.keep("conn", fds[3:]) == 1
    assert stored.entries() == [
        ("conn", fds[0]),
        ("conn", fds[1]),
        ("a/b", fds[2]),
        ("conn", fds[3]),
    ]
    stored.remove("conn")
    assert stored.entries() == [("a/b", fds[2])]
    assert [is_open(fd) for fd in fds] == [False, False, True, False]
    assert list(held.entries().values()) == [fds[2]]
    stored.close()
    assert not is_open(fds[2])
    assert held.entries() == {}


def test_there_is_a_most_of_them(loop: Loop) -> None:
    stored = Stored(Held(loop), "web", 0)
    fds = [null() for _ in range(MOST + 5)]
    assert stored.keep("many", fds) == MOST
    assert stored.keep("more", fds[MOST:]) == 0
    stored.close()
    for fd in fds[MOST:]:
        os.close(fd)


def test_a_successor_gets_them_back_and_counts_on(loop: Loop) -> None:
    before = Held(loop)
    stored = Stored(before, "web", 0)
    stored.keep("one", [null()])
    stored.keep("two", [null()])
    handed_back = {name: os.dup(fd) for name, fd in before.entries().items()}

    held = Held(loop)
    held.offer(handed_back | {"stored/web/1/0/other": null(), "stored/web/0/x/bad": null()})
    successor = Stored(held, "web", 0)
    successor.take_back()
    assert [name for name, _ in successor.entries()] == ["one", "two"]
    successor.keep("three", [null()])
    assert len(held.entries()) == 3, "no key is given twice"
    held.settle()
    successor.take_back()
    assert [name for name, _ in successor.entries()] == ["one", "two", "three"]
    successor.close()
    stored.close()
