"""Jobs that keep a ledger of when each run began and ended, for tests that look for overlaps."""

import os
import time
from pathlib import Path

from atlasd.worker import TargetFailed, context, job

OUT = Path(os.environ.get("SHOP_OUT", "/dev/null"))
BANK = Path(os.environ.get("SHOP_BANK", "/nonexistent"))


def note(word: str) -> None:
    with OUT.open("a") as out:
        out.write(f"{word} {context().id} {context().fence} {time.monotonic_ns()}\n")


@job("ledger.run", max_attempts=50)
def run(seconds: float = 0.0) -> None:
    note("begin")
    if seconds:
        time.sleep(seconds)
    note("end")


@job("ledger.pay", retry={"base": 0.05, "factor": 1.0})
def pay() -> None:
    note("begin")
    try:
        if not BANK.exists():
            raise TargetFailed("the bank is shut")
        time.sleep(0.05)
    finally:
        note("end")
