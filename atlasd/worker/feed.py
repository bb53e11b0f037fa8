"""A worker's supply: fetches jobs ahead, gathers what became of them, keeps the leases alive.

Nothing here promises more than the engine: a job that was fetched and not begun goes back when the
worker ends; what became of a job is sent within some milliseconds, and a crash before that runs it
again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from atlasd.worker.wire import Connection, Pending

FLUSH_AFTER = 0.008
"""Seconds that an outcome may wait for company: each request costs the engine a write to disk."""
CHUNK = 250
"""Outcomes that are sent at once."""
AHEAD = 0.04
"""Seconds of work that are fetched ahead; half of it is done when more is asked for."""
MOST_AHEAD = 500
"""Jobs that are fetched ahead at most, however short they are."""
WAIT = 20_000
"""Milliseconds that a claim waits at the engine."""


class Job(NamedTuple):
    """A claimed job, in the order of the engine's answer; see `atlasd.contracts.queue.Claimed`."""

    id: int
    token: int
    attempt: int
    lease_until: int
    queue: str
    kind: str
    args: dict[str, Any]
    priority: int
    run_at: int
    created_at: int
    max_attempts: int
    lost_count: int
    expires_at: int
    fair_key: str
    target: str
    options: dict[str, Any] | None


class Feed:
    """The jobs of one worker process, for any number of threads."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        worker: str,
        queues: Sequence[str],
        concurrency: int,
        prefetch: int = 0,
    ) -> None:
        """`prefetch` is how many jobs are fetched ahead; 0: as many as `AHEAD` is worth."""
        self._connect = connect
        self._worker = worker
        self._queues = list(queues)
        self._concurrency = concurrency
        self._fixed = prefetch > 0
        self._prefetch = prefetch or concurrency
        self._taken = 0
        self._since = time.monotonic()
        """When jobs began to be at hand, or were last asked for; `_taken` since then."""
        self._lock = threading.Condition()
        self._ready: deque[Job] = deque()
        self._asked: Pending | None = None
        self._wanted = 0
        self._fetching = False
        self._heard: Callable[[], object] | None = None
        self._finished: list[tuple[Any, ...]] = []
        self._failed: list[dict[str, Any]] = []
        self._released: list[tuple[int, int, int]] = []
        self._sent: list[Pending] = []
        self._flushed = time.monotonic()
        self.held: dict[int, int] = {}
        """Token of each job that this process holds, begun or not."""
        self.draining = False
        self.lease = 30.0
        self.beat_every = 10.0
        self.connection: Connection
        self.open()

    def open(self) -> None:
        """Connect and say who we are. Raises `core.unreachable`."""
        self.connection = self._connect()
        answer = self.connection.call("hello", worker=self._worker, concurrency=self._concurrency)
        self.lease = answer["lease"] / 1000.0
        self.beat_every = answer["beat"] / 1000.0

    # --- jobs out

    def take(self) -> Job | None:
        """The next job; waits for one. None once the worker drains."""
        lock = self._lock
        while True:
            with lock:
                ready = self._ready
                if self.draining:
                    return None
                if ready:
                    job = ready.popleft()
                    self._taken += 1
                    if len(ready) * 2 < self._prefetch and self._asked is None:
                        self._ask(wait=0)
                    elif len(self._finished) >= CHUNK or (
                        self._finished and time.monotonic() - self._flushed > FLUSH_AFTER
                    ):
                        self._send({})
                    return job
                if self._fetching:
                    lock.wait()
                    continue
                if self._asked is None:
                    self._ask(wait=WAIT)
                asked = self._asked
                # This thread fetches for all: once it has asked, for that may fail.
                self._fetching = True
            try:
                assert asked is not None
                answer = self.connection.wait(asked)
            finally:
                with lock:
                    self._fetching = False
                    self._asked = None
                    lock.notify_all()
            with lock:
                self._arrived(answer)

    def poll(self, heard: Callable[[], object]) -> Job | None:
        """The next job if one is at hand; else `heard` is called, in some thread, when to look.

        For one event loop, which reads the connection itself; None also while draining.
        """
        while True:
            with self._lock:
                self._heard = heard
                if self.draining:
                    return None
                if not self._ready:
                    if self._asked is None:
                        self._ask(wait=WAIT)
                    asked = self._asked
                    assert asked is not None
                    asked.heard = heard
                    if not asked.done:
                        return None
                    self._asked = None
                    self._arrived(asked.result())
                    continue
            return self.take()

    def _arrived(self, answer: dict[str, Any]) -> None:
        held, ready = self.held, self._ready
        if not ready:
            self._since, self._taken = time.monotonic(), 0
        for fields in answer["jobs"]:
            job = Job._make(fields)
            held[job.id] = job.token
            ready.append(job)
        self._lock.notify_all()

    def _ask(self, *, wait: int) -> None:
        """Send a claim, and with it all outcomes that there are."""
        self._adapt()
        want = max(self._prefetch - len(self._ready), 1)
        # A worker that has work would rather have an empty answer than a waiting one.
        self._asked = self._send({"want": want, "queues": self._queues, "wait": wait})

    def _adapt(self) -> None:
        """Short jobs are fetched by the hundred, long ones singly: another worker may be idle."""
        now = time.monotonic()
        if self._taken and not self._fixed:
            worth = round(AHEAD * self._taken / max(now - self._since, 1e-6))
            before = self._prefetch
            self._prefetch = min(max(worth, before // 2, 1), before * 2, MOST_AHEAD)
        self._since, self._taken = now, 0

    # --- outcomes in

    def finished(self, job: Job, result: str = "", took: int = 0) -> None:
        """The job is done."""
        with self._lock:
            self.held.pop(job.id, None)
            if result or job.target or took:
                self._finished.append((job.id, job.token, result, took))
            else:
                self._finished.append((job.id, job.token))

    def failed(self, job: Job, body: dict[str, Any]) -> None:
        """It has failed; `body` as `Failure`, without id and token."""
        with self._lock:
            self.held.pop(job.id, None)
            self._failed.append({"id": job.id, "token": job.token, **body})
            self._send({})

    def released(self, job: Job, delay: int = 0) -> None:
        """It goes back, after `delay` milliseconds."""
        with self._lock:
            self.held.pop(job.id, None)
            self._released.append((job.id, job.token, delay))
            self._send({})

    def forget(self, job: Job) -> None:
        """The job is somebody else's: nothing is said of it."""
        with self._lock:
            self.held.pop(job.id, None)

    def flush_old(self) -> None:
        """Send the outcomes that have waited long enough for company."""
        with self._lock:
            if self._finished and time.monotonic() - self._flushed > FLUSH_AFTER:
                self._send({})

    def _send(self, fields: dict[str, Any]) -> Pending:
        if self._finished:
            fields["finish"], self._finished = self._finished, []
        if self._failed:
            fields["fail"], self._failed = self._failed, []
        if self._released:
            fields["release"], self._released = self._released, []
        self._flushed = time.monotonic()
        pending = self.connection.send("work", fields)
        self._sent = [one for one in self._sent if not one.done]
        self._sent.append(pending)
        return pending

    # --- end

    def drain(self) -> None:
        """Take nothing more, and give back what was only fetched."""
        with self._lock:
            self.draining = True
            self._give_back()
            if self._released:
                self._send({})
            # Whoever waits for a claim's answer has it at once.
            self.connection.send("drain", {})
            self._lock.notify_all()
        if self._heard is not None:
            self._heard()

    def _give_back(self) -> None:
        """Release what was fetched and not begun; also what a claim brings after the drain."""
        for job in self._ready:
            self.held.pop(job.id, None)
            self._released.append((job.id, job.token, 0))
        self._ready.clear()

    def settle(self, timeout: float = 5.0) -> None:
        """Have every outcome acknowledged; raises `TimeoutError` or `core.unreachable`."""
        with self._lock:
            self._give_back()
            if self._finished or self._failed or self._released:
                self._send({})
            sent = list(self._sent)
        for pending in sent:
            self.connection.wait(pending, timeout)

    def beat(self, progress: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Prolong every lease; the engine's answer. Raises `TimeoutError` without one."""
        with self._lock:
            held = list(self.held.items())
        body: dict[str, Any] = {"held": held}
        if progress:
            body["progress"] = progress
        return self.connection.wait(self.connection.send("beat", body), timeout)
