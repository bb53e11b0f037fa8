"""RQ: SimpleWorker, which does not fork for each job."""

import os

from mark import mark
from redis import Redis
from rq import Queue

queue = Queue("bench", connection=Redis.from_url(os.environ.get("BENCH_REDIS", "redis://")))


def noop(text: str) -> None:
    """Count itself."""
    mark(text)


def one(text: str) -> None:
    """Enqueue one."""
    queue.enqueue(noop, text, result_ttl=0)


def bulk(texts: list[str]) -> None:
    """Enqueue many."""
    for at in range(0, len(texts), 1000):
        queue.enqueue_many(
            [Queue.prepare_data(noop, (text,), result_ttl=0) for text in texts[at : at + 1000]]
        )
