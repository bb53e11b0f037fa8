"""What a handler can know and say of the job that it runs."""

import contextvars
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from atlasd.worker.errors import LeaseLost
from atlasd.worker.feed import Job

_current: contextvars.ContextVar["Context"] = contextvars.ContextVar("atlasd_job")


class Context:
    """The job that runs, for its handler: `context()` gives it anywhere below the handler."""

    def __init__(self, job: Job, report: Callable[[int, str], object]) -> None:
        self._job = job
        self._report = report
        self._waiting: threading.Event | None = None
        self.lost = False
        """Whether the lease is lost: somebody else may run the job by now."""
        self.cancelled = False
        """Whether somebody wants the job cancelled."""
        self.last_progress = time.monotonic()

    @property
    def id(self) -> int:
        """The job's id: the idempotency key for what the handler does outside."""
        return self._job.id

    @property
    def fence(self) -> int:
        """Grows with each run of the job: what takes writes can refuse an older one."""
        return self._job.token

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        return self._job.attempt

    @property
    def max_attempts(self) -> int:
        """After how many the job is dead."""
        return self._job.max_attempts

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self._job.queue

    @property
    def run_at(self) -> datetime:
        """When it was due."""
        return datetime.fromtimestamp(self._job.run_at / 1000.0, tz=UTC)

    @property
    def schedule(self) -> str:
        """The schedule that enqueued it; empty: none did."""
        return str(self.options.get("schedule", ""))

    @property
    def scheduled_for(self) -> datetime | None:
        """For when a schedule planned it: what a report covers, however late it is made."""
        text = self.options.get("scheduled_for")
        return datetime.fromisoformat(text) if text else None

    @property
    def late_by(self) -> timedelta:
        """How much later than planned a schedule enqueued it."""
        return timedelta(milliseconds=self.options.get("late_by", 0))

    @property
    def options(self) -> dict[str, Any]:
        """What was enqueued beside the arguments: tags, retry policy and so on."""
        return self._job.options or {}

    def progress(self, report: object) -> None:
        """Say how far it is (any JSON value); also proof that it isn't stalled."""
        self.last_progress = time.monotonic()
        self._report(self._job.id, json.dumps(report))

    def check(self) -> None:
        """Raise `LeaseLost` when the job is no longer this worker's, or is to be cancelled."""
        if self.lost or self.cancelled:
            raise LeaseLost(f"job {self.id} is to stop")

    def wait(self, seconds: float) -> bool:
        """Sleep; true when the job is to stop."""
        # Made by the few that wait: an event costs more than all the rest of a short job.
        waiting = self._waiting = self._waiting or threading.Event()
        return self.lost or self.cancelled or waiting.wait(seconds)

    def stop(self, *, lost: bool) -> None:
        """Have the handler stop; called by the worker."""
        self.lost |= lost
        self.cancelled |= not lost
        if self._waiting is not None:
            self._waiting.set()


def context() -> Context:
    """The job that runs here. Raises `LookupError` outside of a handler."""
    return _current.get()


def entered(context: Context) -> contextvars.Token[Context]:
    """Make this the job that runs here; for the worker."""
    return _current.set(context)


def left(token: contextvars.Token[Context]) -> None:
    """The job has ended; for the worker."""
    _current.reset(token)
