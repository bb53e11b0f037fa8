"""PgQueuer: 2 processes, over asyncpg."""

import asyncio
import os
import sys
import threading
from typing import Any

import asyncpg
from mark import mark
from pgqueuer import PgQueuer, Queries
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job

_DSN = os.environ.get("BENCH_POSTGRES", "")
_here = threading.local()


async def make() -> PgQueuer:
    """The worker."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(_DSN)))

    @queuer.entrypoint("noop")
    async def noop(job: Job) -> None:
        mark((job.payload or b"").decode())

    return queuer


def _run(work: Any) -> None:
    if not hasattr(_here, "loop"):
        _here.loop = asyncio.new_event_loop()
        connection = _here.loop.run_until_complete(asyncpg.connect(_DSN))
        _here.queries = Queries(AsyncpgDriver(connection))
    _here.loop.run_until_complete(work(_here.queries))


def one(text: str) -> None:
    """Enqueue one."""
    _run(lambda queries: queries.enqueue("noop", text.encode()))


def bulk(texts: list[str]) -> None:
    """Enqueue many."""
    for at in range(0, len(texts), 1000):
        part = [text.encode() for text in texts[at : at + 1000]]
        names, ranks = ["noop"] * len(part), [0] * len(part)
        _run(lambda queries, p=part, n=names, r=ranks: queries.enqueue(n, p, r))


async def _work() -> None:
    queuer = await make()
    await queuer.run(batch_size=100)


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        _run(lambda queries: queries.install())
    else:
        asyncio.run(_work())
