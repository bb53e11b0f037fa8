"""A producer, in the environment of one system: `python drive.py APP WHAT COUNT`."""

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

PAYLOAD = "x" * 180
LIMIT = 20.0
"""Seconds after which a measure ends with what it has done."""
THREADS = 64


def one(app: Any, count: int) -> tuple[int, float]:
    """One after the other, each confirmed."""
    app.one(PAYLOAD)
    began = time.perf_counter()
    for done in range(count):
        app.one(PAYLOAD)
        if done % 64 == 0 and time.perf_counter() - began > LIMIT:
            return done + 1, time.perf_counter() - began
    return count, time.perf_counter() - began


def many(app: Any, count: int) -> tuple[int, float]:
    """By 64 threads at once, each job confirmed to its thread."""
    each, done = count // THREADS, [0] * THREADS
    gate = threading.Barrier(THREADS + 1)
    until = [0.0]

    def produce(number: int) -> None:
        app.one(PAYLOAD)  # its connection, if each thread has one
        gate.wait()
        for _ in range(each):
            app.one(PAYLOAD)
            done[number] += 1
            if time.perf_counter() > until[0]:
                break

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    until[0] = time.perf_counter() + 3600
    gate.wait()
    began = time.perf_counter()
    until[0] = began + LIMIT
    for thread in threads:
        thread.join()
    return sum(done), time.perf_counter() - began


def bulk(app: Any, count: int) -> tuple[int, float]:
    """All of them, as the system's own way of doing many at once has it."""
    began = time.perf_counter()
    app.bulk([PAYLOAD] * count)
    return count, time.perf_counter() - began


def late(app: Any, count: int) -> tuple[int, float]:
    """One at a time on an idle system; the handler says how long it took to get to it."""
    for _ in range(count):
        app.one(f"t:{time.monotonic():018.6f}".ljust(180, "x"))
        time.sleep(0.01)
    return count, 0.0


WHAT: dict[str, Callable[[Any, int], tuple[int, float]]] = {
    "one": one, "many": many, "bulk": bulk, "late": late,
}  # fmt: skip

if __name__ == "__main__":
    name, what, count = sys.argv[1:4]
    print(json.dumps(WHAT[what](importlib.import_module(name), int(count))), flush=True)
