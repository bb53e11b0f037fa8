"""One worker process: takes jobs from its feed and runs them, by threads or by an event loop."""

import asyncio
import contextlib
import ctypes
import json
import logging
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from atlasd.errors import EXIT_OK, AtlasError
from atlasd.worker import execute
from atlasd.worker.context import Context
from atlasd.worker.errors import JobTimeout, LeaseLost
from atlasd.worker.feed import Feed, Job
from atlasd.worker.registry import Handler

FENCE = 2.0 / 3.0
"""Part of a lease after which, without a heartbeat's answer, a worker stops by itself."""
REPORT = 1.0
"""Seconds after which a progress report is sent, sooner than the next heartbeat is due."""
TICK = 0.02
"""Seconds between two looks at time-outs and outcomes, while jobs run."""
RECONNECT = 0.25
"""Seconds before a lost connection is tried again, doubled each time up to the cap: the engine is
on this host, and to ask costs little."""
RECONNECT_CAP = 2.0

_log = logging.getLogger("atlasd.worker")


class StuckError(Exception):
    """A handler can't be stopped: only the end of its process is sure to end it."""


class Running:
    """A job under way, and how it is made to stop."""

    __slots__ = ("context", "deadline", "job", "stall_after", "stop_with", "task", "thread")

    def __init__(self, job: Job, context: Context) -> None:
        known = job.options or {}
        self.job = job
        self.context = context
        timeout = known.get("timeout", 0)
        self.deadline = time.monotonic() + timeout / 1000.0 if timeout else 0.0
        self.stall_after = known.get("stall_after", 0) / 1000.0
        self.thread: int | None = None
        self.task: asyncio.Task[None] | None = None
        self.stop_with: BaseException | None = None


class Runner:
    """Runs jobs until it is told to drain."""

    def __init__(
        self,
        feed: Feed,
        handlers: Mapping[str, Handler[..., Any]],
        *,
        concurrency: int,
        grace: float,
    ) -> None:
        """`grace` is how many seconds running jobs have when the worker is to end."""
        self._feed = feed
        self._handlers = handlers
        self._concurrency = concurrency
        self._grace = grace
        self._running: dict[int, Running] = {}
        self._reports: dict[str, Any] = {}
        self._over = False
        self._asleep = False
        self._roused = threading.Event()
        self._drain_by = 0.0
        self._answered = time.monotonic()
        """When a heartbeat that was answered had been sent."""

    # --- the ways to run

    def work(self) -> None:
        """Run jobs in this thread and in as many more as were asked for; returns when drained.

        Raises `AtlasError` `core.unreachable` when the engine has gone.
        """
        heart = threading.Thread(target=self._keep, name="heartbeat", daemon=True)
        heart.start()
        others = [
            threading.Thread(target=self._quietly, name=f"worker {number}", daemon=True)
            for number in range(1, self._concurrency)
        ]
        for thread in others:
            thread.start()
        try:
            self._one_by_one()
            for thread in others:
                thread.join()
            self._feed.settle()
        except AtlasError:
            self._abandon()
            until = time.monotonic() + self._feed.lease * (1.0 - FENCE)
            for thread in others:
                thread.join(max(until - time.monotonic(), 0.0))
            if any(thread.is_alive() for thread in others):
                # They would go on with jobs that are somebody else's by then.
                raise StuckError("a handler went on though its job was lost") from None
            raise
        finally:
            self._end()

    def _abandon(self) -> None:
        """The engine is gone, and takes back what runs here: nothing of it is to go on."""
        for running in list(self._running.values()):
            self._stop(running, LeaseLost("the connection to the job engine ended"), lost=True)

    def _quietly(self) -> None:
        with contextlib.suppress(AtlasError):  # the main thread says it
            self._one_by_one()

    def _one_by_one(self) -> None:
        take, feed, handlers = self._feed.take, self._feed, self._handlers
        me = threading.get_ident()
        while (job := take()) is not None:
            context = Context(job, self._report)
            running = Running(job, context)
            running.thread = me
            self._begin(running)
            try:
                execute.run(feed, job, handlers, context)
            except (JobTimeout, LeaseLost):
                pass  # it came too late: the job had ended already
            finally:
                self._running.pop(job.id, None)

    async def work_async(self) -> None:
        """Run coroutine handlers in this loop, `concurrency` at once; returns when drained."""
        heart = threading.Thread(target=self._keep, name="heartbeat", daemon=True)
        heart.start()
        loop = asyncio.get_running_loop()
        free = asyncio.Semaphore(self._concurrency)
        feed, connection = self._feed, self._feed.connection
        heard = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(heard.set)

        # What the heartbeat's thread reads is handed out there, and wakes the loop like all else.
        loop.add_reader(connection.fileno(), connection.read_ready)
        gone: AtlasError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await free.acquire()
                    try:
                        while (job := feed.poll(wake)) is None and not feed.draining:
                            await heard.wait()
                            heard.clear()
                    except AtlasError as error:
                        gone, job = error, None
                        self._abandon()
                    if job is None:
                        break
                    group.create_task(self._in_loop(job, free))
            if gone is not None:
                raise gone
            loop.remove_reader(connection.fileno())
            await loop.run_in_executor(None, feed.settle)
        finally:
            self._end()
            if connection.closed is None:
                loop.remove_reader(connection.fileno())

    async def _in_loop(self, job: Job, free: asyncio.Semaphore) -> None:
        context = Context(job, self._report)
        running = Running(job, context)
        running.task = asyncio.current_task()
        self._begin(running)
        handler = self._handlers.get(job.kind)
        try:
            if handler is not None and not handler.is_async:
                await asyncio.to_thread(execute.run, self._feed, job, self._handlers, context)
            else:
                await execute.run_async(self._feed, job, self._handlers, context)
        finally:
            self._running.pop(job.id, None)
            free.release()

    # --- stopping

    @property
    def is_draining(self) -> bool:
        """Whether it was told to end."""
        return bool(self._drain_by)

    def drain(self) -> None:
        """Take nothing more; what runs has its grace. A signal handler may call it."""
        if not self._drain_by:
            self._drain_by = time.monotonic() + self._grace
            threading.Thread(target=self._feed.drain, name="drain", daemon=True).start()

    def _stop(
        self, running: Running, error: BaseException, *, lost: bool, cancelled: bool = False
    ) -> None:
        if running.stop_with is not None:
            return
        running.stop_with = error
        running.context.stop(error, lost=lost, cancelled=cancelled)
        if running.context.stops_itself:
            return
        if running.task is not None:
            running.task.get_loop().call_soon_threadsafe(running.task.cancel)
        elif running.thread is not None:
            # Between two bytecodes of the handler; what blocks in C sees it when it comes back.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(running.thread), ctypes.py_object(type(error))
            )

    # --- heartbeat

    def _report(self, job: int, text: str) -> None:
        self._reports[str(job)] = json.loads(text)

    def _keep(self) -> None:
        """Prolong leases, flush outcomes, and watch time-outs, in a thread of its own.

        A handler that blocks everything else doesn't keep it from this.
        """
        feed = self._feed
        last_beat = time.monotonic()
        while not self._rested(last_beat + feed.beat_every):
            now = time.monotonic()
            try:
                feed.flush_old()
                # Whoever watches a job sees its progress by the second.
                if now >= last_beat + (REPORT if self._reports else feed.beat_every):
                    last_beat = now
                    self._beat(now)
            except (AtlasError, TimeoutError) as error:
                _log.warning("no heartbeat: %s", error)
            if now - self._answered > feed.lease * FENCE and now > last_beat:
                for running in list(self._running.values()):
                    self._stop(running, LeaseLost("no heartbeat was answered"), lost=True)
            for running in list(self._running.values()):
                self._watch(running, now)

    def _rested(self, until: float) -> bool:
        """Wait a tick, or without a job until one begins or until then; whether all is over."""
        if not self._running:
            self._asleep = True
            if not self._running and not self._over:
                self._roused.wait(max(until - time.monotonic(), 0.0))
            self._asleep = False
        elif not self._over:
            self._roused.wait(TICK)
        self._roused.clear()
        return self._over

    def _begin(self, running: Running) -> None:
        """Watch over a job from now on."""
        self._running[running.job.id] = running
        if self._asleep:
            self._roused.set()

    def _end(self) -> None:
        self._over = True
        self._roused.set()

    def _beat(self, now: float) -> None:
        reports, self._reports = self._reports, {}
        answer = self._feed.beat(reports, timeout=self._feed.lease / 3)
        self._answered = now
        for job in answer["lost"]:
            running = self._running.get(job)
            if running is not None:
                self._stop(running, LeaseLost("the lease ended"), lost=True)
        for job in answer["cancel"]:
            running = self._running.get(job)
            if running is not None:
                self._stop(running, LeaseLost("it was cancelled"), lost=False, cancelled=True)
        if answer.get("command") == "drain":
            self.drain()

    def _watch(self, running: Running, now: float) -> None:
        if running.deadline and now >= running.deadline:
            self._stop(running, JobTimeout("it took longer than its time-out"), lost=False)
        elif running.stall_after and now - running.context.last_progress > running.stall_after:
            self._stop(running, JobTimeout("it reported no progress"), lost=False)
        elif self._drain_by and now >= self._drain_by:
            error = LeaseLost("the worker ends")
            if running.context.stops_itself:
                # It is sure to end, and the job goes back when it has.
                running.context.give_back = True
                self._stop(running, error, lost=False)
                return
            # The attempt isn't counted: the job goes back before its handler hears of it, as
            # nothing can make a handler end that doesn't want to.
            running.context.lost = True
            self._feed.released(running.job)
            self._stop(running, error, lost=True)


def on_signals(runner: Runner | None) -> None:
    """Drain at TERM, INT or QUIT; the second one ends the process at once.

    So does the first while there is no runner: nothing is under way then.
    """

    def handle(number: int, _frame: object) -> None:
        if runner is None:
            raise SystemExit(EXIT_OK)
        if runner.is_draining:
            raise SystemExit(128 + number)
        runner.drain()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, handle)
