"""Dramatiq: 2 processes, 8 threads each."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from mark import mark

dramatiq.set_broker(RedisBroker(url=os.environ.get("BENCH_REDIS", "redis://")))


@dramatiq.actor(queue_name="bench")
def noop(text: str) -> None:
    """Count itself."""
    mark(text)


def one(text: str) -> None:
    """Enqueue one."""
    noop.send(text)


def bulk(texts: list[str]) -> None:
    """Dramatiq has no way to enqueue many at once."""
    for text in texts:
        noop.send(text)
