"""Jobs that write down when each of their runs begins and ends, by the clock of the host."""

import os
import time

from atlasd.worker import context, job

# Appended whole, line by line, by any number of processes.
_OUT = os.open(os.environ["STORM_OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(word: str) -> None:
    running = context()
    line = f"{word} {running.id} {running.fence} {os.getpid()} {time.monotonic_ns()}\n"
    os.write(_OUT, line.encode())


@job("storm.run")
def run(seconds: float) -> None:
    note("begin")
    try:
        time.sleep(seconds)
    finally:
        note("end")


@job("storm.fail")
def fail() -> None:
    note("begin")
    try:
        raise ValueError("it never works")
    finally:
        note("end")
