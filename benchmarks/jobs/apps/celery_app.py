"""Celery: prefork, late acknowledgement."""

import os

from celery import Celery
from mark import mark

app = Celery("celery_app", broker=os.environ.get("BENCH_REDIS", ""))
app.conf.update(
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=16,
    broker_connection_retry_on_startup=True,
)  # fmt: skip


@app.task
def noop(text: str) -> None:
    """Count itself."""
    mark(text)


def one(text: str) -> None:
    """Enqueue one."""
    noop.delay(text)


def bulk(texts: list[str]) -> None:
    """Celery has no way to enqueue many at once."""
    for text in texts:
        noop.delay(text)
