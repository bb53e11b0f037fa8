"""Jobs of a shop whose handlers are coroutines."""

import asyncio
import os
from pathlib import Path

from atlasd.worker import context, job

OUT = Path(os.environ.get("SHOP_OUT", "/dev/null"))
_running = 0


def note(word: str) -> None:
    with OUT.open("a") as out:
        out.write(f"{word} {context().id} {context().fence} {os.getpid()}\n")


@job("async.together")
async def together(wait: float) -> int:
    """How many ran at once when this one began."""
    global _running  # noqa: PLW0603  what the test is about
    _running += 1
    seen = _running
    await asyncio.sleep(wait)
    _running -= 1
    return seen


@job("async.hang")
async def hang() -> None:
    note("hang")
    await asyncio.sleep(300)


@job("async.plain")
def plain(word: str) -> str:
    return word * 2
