"""beanstalkd: two plain consumers, a job reserved and deleted at a time."""

import os
import threading

import greenstalk
from mark import mark

_here = threading.local()


def _client() -> greenstalk.Client:
    if not hasattr(_here, "client"):
        _here.client = greenstalk.Client(("127.0.0.1", int(os.environ["BENCH_PORT"])))
    client: greenstalk.Client = _here.client
    return client


def one(text: str) -> None:
    """Enqueue one."""
    _client().put(text)


def bulk(texts: list[str]) -> None:
    """The client has no way to enqueue many at once."""
    for text in texts:
        _client().put(text)


if __name__ == "__main__":
    while True:
        job = _client().reserve()
        mark(job.body)
        _client().delete(job)
