"""SAQ: 2 processes, 10 jobs at once each."""

import asyncio
import os
import threading
from typing import Any

from mark import mark
from saq import Queue

_URL = os.environ.get("BENCH_REDIS", "redis://")
_here = threading.local()


async def noop(ctx: dict[str, Any], *, text: str) -> None:
    """Count itself."""
    del ctx
    mark(text)


settings = {"queue": Queue.from_url(_URL, name="bench"), "functions": [noop], "concurrency": 10}


def one(text: str) -> None:
    """Enqueue one."""
    if not hasattr(_here, "loop"):
        _here.loop = asyncio.new_event_loop()
        _here.queue = Queue.from_url(_URL, name="bench")
    _here.loop.run_until_complete(_here.queue.enqueue("noop", text=text, ttl=-1))


def bulk(texts: list[str]) -> None:
    """SAQ has no way to enqueue many at once."""
    for text in texts:
        one(text)
