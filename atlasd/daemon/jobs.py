"""Jobs of core: the engine in a thread with a loop of its own, behind its socket."""

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from atlasd.clock import RealClock
from atlasd.config.jobs import Jobs
from atlasd.contracts.collectors import Histogram, Metric
from atlasd.contracts.queue import BreakerRow, QueueCount, QueueLimits, QueueStoreType, Rules
from atlasd.control.rights import caller_of
from atlasd.control.socketfile import ControlSocket
from atlasd.control.wire import Right
from atlasd.core.health import Verdict
from atlasd.daemon.job_news import JobNews
from atlasd.daemon.schedules import schedules_of
from atlasd.errors import AtlasError
from atlasd.events import Event
from atlasd.jobs import schedule_metrics
from atlasd.jobs.asking import Ask
from atlasd.jobs.circuit import CircuitPolicy
from atlasd.jobs.dead import DeadOperations
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.framed import FramedJobs
from atlasd.jobs.ledger import HeardRules, Ledger
from atlasd.jobs.metrics import metrics_of
from atlasd.jobs.operations import JobOperations
from atlasd.jobs.queues import QueueOperations
from atlasd.jobs.rules import QueueRules, Retention
from atlasd.jobs.verdict import OK, QueueHealth
from atlasd.jobs.watching import Watching
from atlasd.paths import Paths
from atlasd.pluginhost.host import PluginHost
from atlasd.states import Health

T = TypeVar("T")

RETRY = 5.0
"""Seconds before a store that would not open is tried again."""
CLOSE_LIMIT = 10.0

_log = logging.getLogger("atlasd.daemon")


async def _counts(engine: JobEngine) -> tuple[Sequence[QueueCount], int, Sequence[BreakerRow]]:
    return await engine.store.count(), await engine.store.now(), await engine.store.breakers()


class JobThread:
    """The job engine of core. A store that cannot be opened keeps nobody else from working."""

    def __init__(
        self,
        host: PluginHost,
        paths: Paths,
        jobs: Jobs,
        settings: BaseModel | None = None,
        *,
        generation: int = 0,
        publish: Callable[[Event], object] = lambda _fact: None,
    ) -> None:
        """`settings` are those of the store; without them its own defaults.

        `generation` numbers the configuration that `jobs` is from; `publish` is called in the loop
        of core, in which this is made.
        """
        core = asyncio.get_running_loop()

        def tell(fact: Event) -> None:
            with contextlib.suppress(RuntimeError):  # core has ended
                core.call_soon_threadsafe(publish, fact)

        self._news = JobNews(tell, RealClock())
        self._host = host
        self._settings = settings
        self._socket = ControlSocket(str(Path(paths.run, "jobs.sock")))
        self._store = jobs.store
        self._follow = partial(schedules_of, host=os.uname().nodename)
        self.schedules = self._follow(jobs)
        """Those of the configuration in force, whatever becomes of the store."""
        self._shared = False
        self.ledger = Ledger(died=self._news.died, moved=self._news.moved)
        self._named = tuple(jobs.queues)
        self._live = HeardRules(rules_of(jobs, generation), self.ledger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._engine: JobEngine | None = None
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._began = threading.Event()
        self.trouble = "the job engine is starting"
        """Why there is no engine now; empty when there is."""
        self.settled: dict[str, int] = {}

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return cast("Rules", self._live)

    @property
    def named(self) -> Sequence[str]:
        """Queues that the configuration names."""
        return self._named

    def start(self) -> None:
        """Begin; whether the store opens is seen later."""
        self._thread.start()
        self._began.wait(CLOSE_LIMIT)

    async def follow(self, jobs: Jobs, generation: int = 0) -> None:
        """Work by these rules from now on; another store needs a new start of core."""
        self._live.now = rules_of(jobs, generation)
        self._named = tuple(jobs.queues)
        self.schedules = self._follow(jobs)
        with contextlib.suppress(AtlasError):  # an engine that comes later takes them itself
            await self.ask(self._schedule)

    async def ask(self, work: Callable[[JobEngine], Awaitable[T]]) -> T:
        """What `work` gives in the engine's loop. Raises `job.store` while there is no engine."""
        loop, engine = self._loop, self._engine
        if loop is None or engine is None:
            raise AtlasError(
                "job.store",
                f"there is no queue: {self.trouble}",
                hint="`atlasctl health` tells when it is back; nothing was done",
            )

        async def there() -> T:
            try:
                return await work(engine)
            except AtlasError as error:
                engine.failed(error)
                raise

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))

    async def close(self) -> None:
        """Let workers go and end the thread."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, CLOSE_LIMIT)

    def verdict(self) -> Verdict:
        """Whether jobs can be enqueued and are worked, for `/health`; it never fails.

        Who answers a failing host by taking it out of service or starting it anew would take away
        what works, and bring back no worker.
        """
        engine = self._engine
        trouble = self.trouble if engine is None else engine.trouble
        if trouble:
            return Verdict(status=Health.WARN, output=f"jobs: {trouble}")
        bad = [
            f"queue {name} is {one.word}: {one.reason}"
            for name, one in self.queues().items()
            if one.word != OK
        ]
        if not bad:
            return Verdict(status=Health.PASS)
        more = f" (and {len(bad) - 3} more)" if len(bad) > 3 else ""
        return Verdict(status=Health.WARN, output="; ".join(bad[:3]) + more)

    def queues(self) -> Mapping[str, QueueHealth]:
        """How each queue that has jobs does, by name."""
        engine = self._engine
        return dict(sorted(engine.lookout.found.copy().items())) if engine is not None else {}

    async def metrics(self) -> Sequence[Metric | Histogram]:
        """The metrics of the engine and of its store; none while there is no engine."""
        engine = self._engine
        if engine is None:
            return ()
        try:
            counts, now, breakers = await self.ask(_counts)
        except AtlasError:
            return ()
        return [
            *schedule_metrics.metrics_of(engine.timetable.tally),
            *metrics_of(
                counts,
                now=now,
                settled=self.settled,
                workers=len(engine.sessions),
                measures=engine.measures,
                ledger=self.ledger,
                breakers=breakers,
                numbers=engine.store.numbers(),
            ),
        ]

    # --- in the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._live_on())
        except Exception as error:  # noqa: BLE001  core goes on without it, and says so
            self.trouble = f"the job engine has fallen: {type(error).__name__}"
            _log.exception("the job engine has fallen")
        finally:
            self._engine = None
            self._began.set()

    async def _live_on(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        while not self._stop.is_set():
            try:
                await self._serve(self._stop)
            except AtlasError as error:
                if error.message != self.trouble:
                    _log.error("jobs: %s (%s)", error.message, error.hint)
                self.trouble = error.message
                self._began.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY):
                        await self._stop.wait()

    async def _serve(self, stop: asyncio.Event) -> None:
        offer = self._host.find(QueueStoreType, self._store, wanted_by="jobs.store")
        context = self._host.context(offer.plugin)
        identity = f"{os.uname().nodename}/{_boot()}/{secrets.token_hex(4)}"
        loop = asyncio.get_running_loop()
        settings = self._settings or offer.descriptor.settings()
        async with offer.descriptor.open(settings, context, self.rules) as store:
            engine = JobEngine(
                store, identity=identity, settled=self._count, shared=offer.descriptor.shared,
                lease=self.rules.lease,
            )  # fmt: skip
            server = await loop.create_unix_server(
                partial(FramedJobs, engine, admit=admit), sock=self._socket.open()
            )
            self._shared = offer.descriptor.shared
            self._engine, self.trouble = engine, ""
            await self._schedule(engine)
            clockwork = [
                asyncio.create_task(engine.run(), name="jobs clockwork"),
                asyncio.create_task(engine.timetable.run(), name="jobs schedules"),
                asyncio.create_task(
                    engine.lookout.run(self.rules.limits, self._news.judged, self._news.tick),
                    name="jobs lookout",
                ),
            ]
            self._began.set()
            try:
                await stop.wait()
            finally:
                self._engine = None
                self.trouble = "the job engine is stopping"
                server.close()
                for task in clockwork:
                    task.cancel()
                with contextlib.suppress(AtlasError):
                    await engine.hang_up()
                self._socket.close()

    async def _schedule(self, engine: JobEngine) -> None:
        engine.timetable.follow(self.schedules, shared=self._shared)

    def _count(self, word: str, count: int) -> None:
        self.settled[word] = self.settled.get(word, 0) + count


def admit(connection: Any) -> str:
    """The actor at the other end; raises `operation.denied` for one that may not operate."""
    caller = caller_of(connection)
    if not caller.may(Right.OPERATE):
        raise AtlasError(
            "operation.denied",
            f"user {caller.uid} may not work with jobs",
            hint="become a member of the group atlasd",
        )
    return caller.actor


def methods(
    ask: Ask, rules: Callable[[], Rules], named: Callable[[], Sequence[str]] = tuple
) -> Mapping[str, Callable[..., Any]]:
    """Each operation on jobs, by name, and what performs it; `named` are configured queues."""
    operations, dead = JobOperations(ask, rules), DeadOperations(ask)
    queues, watching = QueueOperations(ask, rules, named), Watching(ask)
    return {
        "job.enqueue": operations.enqueue,
        "job.list": operations.list,
        "job.show": operations.show,
        "job.explain": operations.explain,
        "job.cancel": operations.cancel,
        "job.retry": operations.retry,
        "job.work": operations.work,
        "job.beat": operations.beat,
        "job.watch": watching.job,
        "queue.list": queues.list,
        "queue.show": queues.show,
        "queue.watch": queues.watch,
        "queue.pause": queues.pause,
        "queue.resume": queues.resume,
        "queue.purge": queues.purge,
        "dead.groups": dead.groups,
        "dead.list": dead.list,
        "dead.edit": dead.edit,
        "dead.requeue": dead.requeue,
        "dead.purge": dead.purge,
        "dead.export": dead.export,
        "dead.import": dead.import_,
        "breaker.list": operations.breakers,
        "breaker.show": operations.breaker,
        "breaker.set": operations.breaker_set,
    }


def rules_of(jobs: Jobs, generation: int = 0) -> QueueRules:
    """The rules that `[jobs]` states; times there are seconds."""
    return QueueRules(
        queues={
            name: QueueLimits(
                size=one.size or 0,
                concurrency=one.concurrency or 0,
                key_concurrency=one.key_concurrency or 0,
                rate=one.rate or 0.0,
                burst=one.burst,
                key_rate=one.key_rate or 0.0,
                key_burst=one.key_burst,
                weights=one.weights,
                aging=round(one.aging * 1000),
                strict=one.strict,
                max_wait=round(one.max_wait * 1000),
            )
            for name, one in jobs.queues.items()
        },
        circuits={
            name: CircuitPolicy(
                minimum_calls=one.minimum_calls,
                failure_ratio=one.failure_ratio,
                slow_after=round((one.slow_after or 0.0) * 1000),
                slow_ratio=one.slow_ratio,
                open_for=round(one.open_for * 1000),
                open_cap=round(one.open_cap * 1000),
                probes=one.probes,
                successes=one.successes,
            )
            for name, one in jobs.breakers.items()
        },
        retention=Retention(
            completed=round(jobs.keep_completed * 1000),
            cancelled=round(jobs.keep_cancelled * 1000),
            dead=round(jobs.keep_dead * 1000),
        ),
        held_for=round(jobs.lease * 1000),
        generation=generation,
    )


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "unknown"
