"""What a handler can know and say of the job that it runs."""

import contextvars
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from atlasd.worker.feed import Job

_stopping = threading.Lock()
"""Held while a job is made to stop, so that what stops it isn't taken away meanwhile."""
_current: contextvars.ContextVar["Context"] = contextvars.ContextVar("atlasd_job")


class Context:
    """The job that runs, for its handler: `context()` gives it anywhere below the handler."""

    # What few jobs change stands in the class: a short job is made in no time.
    lost = False
    """Whether the lease is lost: somebody else may run the job by now."""
    cancelled = False
    """Whether somebody wants the job cancelled."""
    stopped_by: BaseException | None = None
    """Why it is to stop; None while it isn't."""
    give_back = False
    """Whether the job goes back, once it has stopped, without an attempt."""
    stops_itself = False
    """Whether the handler has said how it is stopped: no exception is raised in it."""
    _stop: Callable[[], object] | None = None
    _waiting: threading.Event | None = None

    def __init__(self, job: Job, report: Callable[[int, str], object]) -> None:
        self._job = job
        self._report = report
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
    def kind(self) -> str:
        """The kind of the job."""
        return self._job.kind

    @property
    def target(self) -> str:
        """What its circuit breaker belongs to; empty: it has none."""
        return self._job.target

    @property
    def fair_key(self) -> str:
        """Whose share of the queue it takes; empty: nobody's."""
        return self._job.fair_key

    @property
    def payload(self) -> str:
        """The arguments, as JSON text."""
        return json.dumps(self._job.args, ensure_ascii=False)

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
        """Raise when the job is to stop: `LeaseLost`, or `JobTimeout` when it has run too long."""
        if self.stopped_by is not None:
            raise self.stopped_by

    def wait(self, seconds: float) -> bool:
        """Sleep; true when the job is to stop."""
        # Made by the few that wait: an event costs more than all the rest of a short job.
        waiting = self._waiting = self._waiting or threading.Event()
        return self.stopped_by is not None or waiting.wait(seconds)

    def on_stop(self, stop: Callable[[], object] | None) -> None:
        """Have this called, in another thread, when the job is to stop; None: no longer.

        For a handler that waits for something outside, which no exception would reach.
        """
        with _stopping:
            self.stops_itself |= stop is not None
            self._stop = stop
            if stop is not None and self.stopped_by is not None:
                stop()

    def stop(self, error: BaseException, *, lost: bool, cancelled: bool = False) -> None:
        """Have the handler stop for this reason; called by the worker."""
        with _stopping:
            self.lost |= lost
            self.cancelled |= cancelled
            self.stopped_by = self.stopped_by or error
            if self._waiting is not None:
                self._waiting.set()
            if self._stop is not None:
                self._stop()


def context() -> Context:
    """The job that runs here. Raises `LookupError` outside of a handler."""
    return _current.get()


def entered(context: Context) -> contextvars.Token[Context]:
    """Make this the job that runs here; for the worker."""
    return _current.set(context)


def left(token: contextvars.Token[Context]) -> None:
    """The job has ended; for the worker."""
    _current.reset(token)
