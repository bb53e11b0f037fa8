"""For applications: declare jobs, enqueue them, run them. Standard library only.

    from atlasd.worker import job

    @job("email.send", queue="email", max_attempts=5)
    def send(to: str, subject: str) -> None: ...

    send.enqueue(to="ops@example.org", subject="hi", delay="5m", priority=3)

`atlas-worker shop.jobs --queue email` runs them.
"""

from atlasd.worker.client import Client, Enqueued
from atlasd.worker.context import Context, context
from atlasd.worker.errors import (
    Bury,
    Discard,
    JobTimeout,
    LeaseLost,
    Retry,
    Snooze,
    TargetFailed,
)
from atlasd.worker.registry import Handler, job

__all__ = [
    "Bury",
    "Client",
    "Context",
    "Discard",
    "Enqueued",
    "Handler",
    "JobTimeout",
    "LeaseLost",
    "Retry",
    "Snooze",
    "TargetFailed",
    "context",
    "job",
]
