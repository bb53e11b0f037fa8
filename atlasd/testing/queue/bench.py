"""What the suite of queue stores works with: an opened store, its rules, and its clock."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Self, cast

from atlasd.contracts.queue import (
    JOB_FINAL,
    ClaimAsk,
    Claimed,
    Failure,
    Filter,
    Finish,
    JobState,
    Maintained,
    NewJob,
    QueueStore,
    QueueStoreType,
    Release,
    Row,
    Rules,
    Settlement,
)
from atlasd.jobs.rules import QueueRules
from atlasd.testing.context import PlainContext

Advance = Callable[[int], Awaitable[None]]
"""Lets the store's clock go forward by so many milliseconds."""

LIMIT = 30.0
"""Seconds that anything may take before it is taken for hanging."""
LEASE = 30_000
"""Milliseconds."""
EVERYTHING = Filter()


def a_job(**rest: Any) -> NewJob:
    """A new job, but for `rest` a plain one."""
    return NewJob("q", "work", "{}")._replace(**rest)


class Exchangeable:
    """Rules that can be exchanged under a store that holds on to them, as a reload does."""

    def __init__(self) -> None:
        self.now = QueueRules(chance=lambda: 0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


class Bench:
    """A store under test. Enter it to open the store."""

    store: QueueStore

    def __init__(
        self,
        kind: QueueStoreType,
        settings: dict[str, Any],
        context: PlainContext,
        advance: Advance,
    ) -> None:
        self.kind = kind
        self.settings = settings
        self.context = context
        self.advance = advance
        self._rules = Exchangeable()
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Open the store."""
        settings = self.kind.settings.model_validate(self.settings)
        rules = cast("Rules", self._rules)
        opened = self.kind.open(settings, self.context, rules)
        self.store = await self._stack.enter_async_context(opened)

    async def close(self) -> None:
        """Close the store."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        """Open the store."""
        await self.open()
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Close it."""
        await self.close()

    def twin(self) -> "Bench":
        """Another opening of the same store, as by another host."""
        return Bench(self.kind, self.settings, self.context, self.advance)

    async def reopen(self) -> None:
        """Close the store and open it again."""
        await self.close()
        await self.open()

    @property
    def rules(self) -> QueueRules:
        """The rules in force."""
        return self._rules.now

    def rule(self, **changes: Any) -> None:
        """Change the rules; chance is 0, so that delays are exact."""
        self._rules.now = replace(self._rules.now, **changes)

    # --- what most tests do

    async def put(self, *jobs: NewJob, **rest: Any) -> list[int]:
        """Enqueue jobs, or a plain one but for `rest`; their ids."""
        return [one.id for one in await self.store.enqueue(jobs or [a_job(**rest)])]

    async def claim(
        self,
        limit: int = 10,
        *,
        worker: str = "w",
        queues: Sequence[str] = ("q",),
        lease: int = LEASE,
        wait: int = 0,
        after: Sequence[Settlement] = (),
    ) -> list[Claimed]:
        """What a worker is given; fails when that takes too long."""
        ask = ClaimAsk(worker=worker, queues=tuple(queues), limit=limit, lease=lease, wait=wait)
        async with asyncio.timeout(LIMIT):
            _, jobs = await self.store.exchange(after, ask)
        return list(jobs)

    async def one(self, **rest: Any) -> Claimed:
        """The one job that there is to be claimed."""
        (job,) = await self.claim(**rest)
        return job

    async def settle(self, *settlements: Settlement) -> list[bool]:
        """Which of them held."""
        held, jobs = await self.store.exchange(settlements, None)
        assert list(jobs) == []
        return list(held)

    async def finish(self, job: Claimed, result: str = "", took: int = 0) -> bool:
        """Finish a job; whether it was held."""
        (held,) = await self.settle(Finish(job.id, job.token, result, took))
        return held

    async def fail(self, job: Claimed, verdict: str = "retry", **rest: Any) -> bool:
        """Fail a job; whether it was held."""
        failure = Failure(job.id, job.token, "ValueError", "no", verdict=verdict)
        (held,) = await self.settle(failure._replace(**rest))
        return held

    async def release(self, job: Claimed, delay: int = 0) -> bool:
        """Give a job back; whether it was held."""
        (held,) = await self.settle(Release(job.id, job.token, delay))
        return held

    async def row(self, job: int) -> Row:
        """A job that there is."""
        row = await self.store.get(job)
        assert row is not None, f"job {job} is gone"
        return row

    async def state(self, job: int) -> tuple[JobState, str]:
        """State and reason of a job."""
        row = await self.row(job)
        return row.state, row.reason

    async def rows(self, **rest: Any) -> list[Row]:
        """The jobs that a filter means."""
        return list(await self.store.select(replace(EVERYTHING, **rest), 100_000))

    async def numbers(self) -> dict[JobState, int]:
        """How many jobs are in each state, all queues together."""
        found: dict[JobState, int] = {}
        for one in await self.store.count():
            found[one.state] = found.get(one.state, 0) + one.jobs
        return {state: jobs for state, jobs in found.items() if jobs}

    async def after(self, milliseconds: int) -> Maintained:
        """Let time pass, and have maintenance do what is due; what its first round did."""
        await self.advance(milliseconds)
        first = done = await self.store.maintain()
        while max(done.promoted, done.lost, done.expired, done.pruned) >= 1000:
            done = await self.store.maintain()
        return first

    async def begun(self, work: Awaitable[Any]) -> "asyncio.Future[Any]":
        """Something under way, as far as it comes without anybody's help."""
        future = asyncio.ensure_future(work)
        # A store may need a moment of real time until a claim waits; it must not matter if not.
        await asyncio.wait({future}, timeout=0.02)
        return future

    async def assert_sound(self) -> None:
        """Assert what holds of all jobs at any time."""
        rows = await self.rows()
        counted: dict[tuple[str, JobState], int] = {}
        keys: dict[str, int] = {}
        now = await self.store.now()
        for row in rows:
            counted[row.queue, row.state] = counted.get((row.queue, row.state), 0) + 1
            assert (row.finalized_at > 0) == (row.state in JOB_FINAL), row
            assert row.reason == "" or row.state in JOB_FINAL, row
            assert row.state is JobState.RUNNING or (row.worker, row.lease_until) == ("", 0), row
            assert not row.cancel_requested or row.state is JobState.RUNNING, row
            assert 0 <= row.attempt <= row.token, row
            if row.unique_key and not 0 < row.unique_until <= now:
                assert row.unique_key not in keys, (row, keys)
                keys[row.unique_key] = row.id
                assert row.unique_until > 0 or row.state not in JOB_FINAL, row
        told = {(one.queue, one.state): one.jobs for one in await self.store.count() if one.jobs}
        assert told == counted


def ids(jobs: Collection[Claimed]) -> list[int]:
    """Their ids."""
    return [job.id for job in jobs]
