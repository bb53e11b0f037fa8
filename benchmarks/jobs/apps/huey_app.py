"""Huey: 2 worker processes, over Redis or SQLite."""

import os

from huey import RedisHuey, SqliteHuey
from mark import mark

if path := os.environ.get("BENCH_SQLITE"):
    huey = SqliteHuey("bench", filename=path, fsync=True, results=False)
else:
    huey = RedisHuey("bench", url=os.environ.get("BENCH_REDIS", "redis://"), results=False)


@huey.task()
def noop(text: str) -> None:
    """Count itself."""
    mark(text)


def one(text: str) -> None:
    """Enqueue one."""
    noop(text)


def bulk(texts: list[str]) -> None:
    """Huey has no way to enqueue many at once."""
    for text in texts:
        noop(text)
