"""For tests of an application: its jobs, enqueued and run within the test.

    @pytest.fixture
    def jobs():
        with JobKit() as kit:
            yield kit

    def test_who_signs_up_is_welcomed(jobs):
        sign_up("ops@example.org")              # calls send.enqueue(…) somewhere
        (sent,) = jobs.drain().completed
        assert sent.args["to"] == "ops@example.org"

The rules are the daemon's own: retries, unique keys, limits, `then`. Only the store is memory, and
time passes when the test lets it.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from atlasd.clock import HandClock
from atlasd.contracts.queue import (
    ClaimAsk,
    Failure,
    Filter,
    Finish,
    Held,
    JobState,
    Release,
    Row,
    Settlement,
)
from atlasd.errors import AtlasError
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.newjob import new_jobs
from atlasd.jobs.rules import QueueRules
from atlasd.states import JOB_FINAL
from atlasd.testing.memory_queue import MemoryQueue
from atlasd.worker import execute
from atlasd.worker.client import Client, share
from atlasd.worker.context import Context
from atlasd.worker.errors import Bury, Discard, Retry
from atlasd.worker.feed import Job
from atlasd.worker.registry import HANDLERS, Handler
from atlasd.worker.wire import Connection, Pending

T = TypeVar("T")

MEANT = (Retry, Discard, Bury)
"""What a handler raises to say what becomes of its job."""
PATIENCE = 3600
"""Times that the clock is wound by a second for jobs that a limit or a breaker holds up."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A job as it stands."""

    id: int
    kind: str
    queue: str
    args: Mapping[str, Any]
    state: JobState
    reason: str
    """Why it has ended so: `exhausted`, `buried`, `discarded`, …; empty when it is completed."""
    attempts: int
    run_at: datetime
    result: Any
    errors: Sequence[Mapping[str, Any]]
    """Its failures, the last one last: `error` (a type), `message`, `attempt`."""
    progress: Any


class Drained(NamedTuple):
    """What a drain has run."""

    completed: Sequence[Seen]
    cancelled: Sequence[Seen]
    dead: Sequence[Seen]
    runs: int
    """How often a handler was called."""
    waited: timedelta
    """By how much the clock was wound."""


class JobKit:
    """A queue for the length of a `with`, to which all handlers' `enqueue` go meanwhile."""

    def __init__(
        self,
        *,
        handlers: Mapping[str, Handler[..., Any]] = HANDLERS,
        rules: QueueRules | None = None,
        clock: HandClock | None = None,
    ) -> None:
        """By default every declared handler, no limits, and delays without chance."""
        self.clock = clock or HandClock()
        self.store = MemoryQueue(self.clock, rules or QueueRules(chance=lambda: 0.0))
        self.client: Client = _KitClient(self)
        """What code is given that takes its client as an argument."""
        self._engine = JobEngine(self.store, identity="test")
        self._session = self._engine.open_session("test", 1)
        self._handlers = handlers
        self._lock = threading.RLock()
        self._runner: asyncio.Runner | None = None
        self._before: Client | None = None

    def __enter__(self) -> Self:
        self._before = share(self.client)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            share(self._before)
        if self._runner is not None:
            self._runner.close()

    # --- looking

    def jobs(self, *states: JobState | str) -> list[Seen]:
        """The jobs in these states, or all; in the order in which they were enqueued."""
        wanted = tuple(JobState(state) for state in states)
        return [_seen(row) for row in self.rows(Filter(states=wanted))]

    def rows(self, which: Filter) -> Sequence[Row]:
        """Jobs with all that the store knows of them."""
        return self.at_once(self.store.select(which, 1 << 30))

    # --- time

    def wind(self, seconds: float | timedelta) -> None:
        """Let time pass: what falls due is available then, what expires is cancelled."""
        passed = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        self.clock.wind(passed)
        self.at_once(self.store.maintain(1 << 30))

    # --- running

    def drain(self, *, wind: bool = True, reraise: bool = False, limit: int = 10_000) -> Drained:
        """Run jobs until there is nothing left to run.

        With `wind` the clock is wound to whatever is due next, so that delays and retries cost no
        time; without it only what is due runs. With `reraise` the first exception that a handler
        raises by mistake ends it, for the sake of its traceback. Raises `RuntimeError` after
        `limit` runs: one job probably enqueues the next for ever.

        Coroutine handlers run in a loop of the kit; within a running loop use `drain_async`.
        """
        began = _Drain(self, wind=wind, reraise=reraise, limit=limit)
        for job, outcome, context in began.runs():
            handler = self._handlers.get(job.kind)
            if handler is not None and handler.is_async:
                if self._runner is None:
                    self._runner = asyncio.Runner()
                self._runner.run(execute.run_async(outcome, job, self._handlers, context))
            else:
                execute.run(outcome, job, self._handlers, context)
        return began.result()

    async def drain_async(
        self, *, wind: bool = True, reraise: bool = False, limit: int = 10_000
    ) -> Drained:
        """The same for a coroutine test: coroutine handlers run in its loop."""
        began = _Drain(self, wind=wind, reraise=reraise, limit=limit)
        for job, outcome, context in began.runs():
            handler = self._handlers.get(job.kind)
            if handler is not None and handler.is_async:
                await execute.run_async(outcome, job, self._handlers, context)
            else:
                execute.run(outcome, job, self._handlers, context)
        return began.result()

    def at_once(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives that never waits: none of the store's does, unless it is asked to.

        So it needs no loop, and may be called within one.
        """
        with self._lock:
            try:
                work.send(None)
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                work.close()
            raise RuntimeError("something waited in a test kit, which has nobody to wait for")

    def claim(self) -> Job | None:
        """The next job, held by the kit."""
        queues = {one.queue for one in self.at_once(self.store.count())}
        ask = ClaimAsk(
            worker=self._session.worker, queues=tuple(sorted(queues)), limit=1, lease=1 << 40
        )
        _, jobs = self.at_once(self._engine.exchange(self._session, (), ask))
        for job in jobs:
            known = json.loads(job.options) if job.options else None
            return Job._make(job)._replace(args=json.loads(job.args), options=known)
        return None

    def settle(self, settlement: Settlement, progress: str) -> None:
        """Say what became of a job."""
        if progress:
            held = Held(id=settlement.id, token=settlement.token, progress=progress)
            self.at_once(self._engine.beat(self._session, [held]))
        self.at_once(self._engine.exchange(self._session, [settlement], None))


class _KitClient(Client):
    """A producer's client whose every connection ends in the kit."""

    def __init__(self, kit: JobKit) -> None:
        super().__init__()
        self._kit = kit

    def _connected(self) -> Connection:
        return cast("Connection", _KitConnection(self._kit))


class _KitConnection:
    """As much of a `Connection` as a producer needs; the answer is there when it is asked for."""

    def __init__(self, kit: JobKit) -> None:
        self._kit = kit

    def send(self, _op: str, fields: dict[str, Any]) -> Pending:
        # There and back, as on the way to the daemon: what has no JSON is refused here as well.
        said = json.loads(json.dumps(fields))
        if "job" in said:
            said["jobs"] = [{**said["job"], "args": one} for one in said["args"]]
        pending = Pending()
        try:
            jobs = new_jobs(said["jobs"])
            enqueue = self._kit.store.enqueue(jobs, idempotency_key=said.get("key", ""))
            pending.answer = {"jobs": self._kit.at_once(enqueue)}
        except AtlasError as error:
            pending.error = error
        pending.done = True
        return pending

    def wait(self, pending: Pending) -> dict[str, Any]:
        return pending.result()


class _Outcome:
    """What a handler's run came to; stands in for a worker's `Feed`."""

    def __init__(self) -> None:
        self.settlement: Settlement | None = None
        self.error: BaseException | None = None
        """What the handler raised without meaning its job by it."""
        self.progress = ""

    def report(self, _job: int, text: str) -> None:
        self.progress = text

    def finished(self, job: Job, result: str = "", took: int = 0) -> None:
        self.settlement = Finish(job.id, job.token, result, took)

    def failed(self, job: Job, body: dict[str, Any]) -> None:
        error = sys.exc_info()[1]
        self.error = None if isinstance(error, MEANT) else error
        frames = tuple(body.pop("frames"))
        self.settlement = Failure(id=job.id, token=job.token, frames=frames, **body)

    def released(self, job: Job, delay: int = 0) -> None:
        self.settlement = Release(job.id, job.token, delay)

    def forget(self, job: Job) -> None:
        self.settlement = Release(job.id, job.token)


class _Drain:
    """One drain under way."""

    def __init__(self, kit: JobKit, *, wind: bool, reraise: bool, limit: int) -> None:
        self._kit = kit
        self._wind = wind
        self._reraise = reraise
        self._limit = limit
        self._runs = 0
        self._ran: dict[int, None] = {}
        self._began = kit.clock.wall()

    def runs(self) -> Iterator[tuple[Job, Any, Context]]:
        """Each job to be run; what became of it is settled before the next."""
        kit = self._kit
        while (job := self._next()) is not None:
            if self._runs == self._limit:
                kit.settle(Release(job.id, job.token), "")
                raise RuntimeError(
                    f"{self._limit} runs, and {job.kind} is still to be run: does a job enqueue "
                    "itself for ever? `limit` allows more"
                )
            self._runs += 1
            self._ran[job.id] = None
            outcome = _Outcome()
            yield job, outcome, Context(job, outcome.report)
            assert outcome.settlement is not None
            kit.settle(outcome.settlement, outcome.progress)
            error = outcome.error
            if error is not None and (self._reraise or not isinstance(error, Exception)):
                raise error  # KeyboardInterrupt and pytest's own are never a job's

    def _next(self) -> Job | None:
        kit = self._kit
        job = kit.claim()
        held_up = 0
        while job is None and self._wind:
            due = kit.at_once(kit.store.maintain(1 << 30)).next_due
            now = kit.at_once(kit.store.now())
            stuck = self._held_up()
            if stuck and held_up < PATIENCE:
                held_up += 1
                kit.wind(min(1.0, (due - now) / 1000) if due > now else 1.0)
            elif due > now:
                kit.wind((due - now) / 1000)
            else:
                return None
            job = kit.claim()
        return job

    def _held_up(self) -> bool:
        """Whether there are available jobs of a queue that nobody has paused."""
        kit = self._kit
        paused = kit.at_once(kit.store.paused())
        counts = kit.at_once(kit.store.count())
        return any(one.state is JobState.AVAILABLE and one.queue not in paused for one in counts)

    def result(self) -> Drained:
        """What has ended of what was run."""
        rows = {row.id: row for row in self._kit.rows(Filter())}
        ended = [_seen(rows[job]) for job in self._ran if job in rows]
        by_state = {state: [job for job in ended if job.state is state] for state in JOB_FINAL}
        return Drained(
            by_state[JobState.COMPLETED],
            by_state[JobState.CANCELLED],
            by_state[JobState.DEAD],
            self._runs,
            timedelta(seconds=self._kit.clock.wall() - self._began),
        )


def _seen(row: Row) -> Seen:
    return Seen(
        id=row.id,
        kind=row.kind,
        queue=row.queue,
        args=json.loads(row.args),
        state=row.state,
        reason=row.reason,
        attempts=row.attempt,
        run_at=datetime.fromtimestamp(row.run_at / 1000, tz=UTC),
        result=json.loads(row.result) if row.result else None,
        errors=json.loads(row.errors) if row.errors else [],
        progress=json.loads(row.progress) if row.progress else None,
    )
