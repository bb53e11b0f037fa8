"""Jobs of a small shop, for the worker's tests."""

import os
import time
from pathlib import Path

from atlasd.worker import Bury, Discard, Retry, Snooze, context, job

OUT = Path(os.environ.get("SHOP_OUT", "/dev/null"))


def note(word: str) -> None:
    with OUT.open("a") as out:
        out.write(f"{word} {context().id} {context().fence} {os.getpid()}\n")


@job("shop.note")
def write(word: str) -> None:
    note(word)


@job("shop.sum")
def total(a: int, b: int) -> int:
    return a + b


@job("shop.sleep")
def sleep(seconds: float) -> None:
    note("begin")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
        context().check()
    note("end")


@job("shop.spin")
def spin() -> None:
    note("spin")
    while True:
        time.sleep(0.01)


@job("shop.fail", retry={"base": 0.05, "factor": 1.0}, max_attempts=3)
def fail(how: str) -> None:
    note(how)
    if how == "discard":
        raise Discard("never mind")
    if how == "bury":
        raise Bury("look at it")
    if how == "retry":
        raise Retry("again", after=0.2)
    if how == "snooze" and context().fence == 1:
        raise Snooze(0.1)
    if how == "error":
        raise ValueError("no such address: 17")


@job("shop.scheduled")
def scheduled() -> None:
    found = context()
    assert found.scheduled_for is not None
    with OUT.open("a") as out:
        out.write(f"{found.schedule} {found.scheduled_for:%s} {found.id}\n")
