"""Random operations on a queue store, held against a model; needs hypothesis.

class SqliteMachine(QueueMachine):
def bench(self) -> Bench: ...

TestSqlite = SqliteMachine.TestCase
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atlasd.contracts.queue import (
    JOB_FINAL,
    ON_CONFLICT,
    UNTIL_CLAIMED,
    UNTIL_FINISHED,
    ClaimAsk,
    Claimed,
    Failure,
    Filter,
    Finish,
    Held,
    JobState,
    NewJob,
    Release,
    Row,
)
from atlasd.testing.queue.bench import LEASE, Bench

T = TypeVar("T")

MOST_LOST = 5
"""Lost workers after which a job is dead."""
WINDOW = 40_000
"""Milliseconds; about as long as a few steps."""
QUEUES = ("a", "b")
WORKERS = ("v", "w")
WAITING = (JobState.SCHEDULED, JobState.AVAILABLE)
VERDICTS = {
    "discard": (JobState.CANCELLED, "discarded"),
    "bury": (JobState.DEAD, "buried"),
}


@dataclass
class Model:
    """What must be true of a job."""

    id: int
    queue: str
    args: str
    priority: int
    max_attempts: int
    state: JobState
    run_at: int
    key: str
    """The unique key that it has now; empty: none."""
    until: int
    """See `NewJob.unique_until`; the end of a window as a moment."""
    reason: str = ""
    token: int = 0
    attempt: int = 0
    lost: int = 0
    worker: str = ""
    cancel: bool = False
    safe_until: int = 0
    """Its lease doesn't end before; on a clock that doesn't jump."""
    over_at: int = 0
    """And surely not later."""

    @property
    def rank(self) -> tuple[int, int]:
        """By which the jobs of a queue are ordered."""
        return (self.run_at + self.priority * 60_000, self.id)

    def end(self, state: JobState, reason: str = "") -> None:
        """It is final."""
        self.state, self.reason, self.cancel, self.worker = state, reason, False, ""
        if self.until <= 0:
            self.key = ""


class QueueMachine(RuleBasedStateMachine):
    """Derive a class, and give it `bench`."""

    def bench(self) -> Bench:
        """A bench with a store that is empty."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.jobs: dict[int, Model] = {}
        self.claims: list[tuple[int, int]] = []
        self.paused: set[str] = set()
        self.passed = 0
        """Milliseconds since the beginning."""
        self.highest = 0

    @initialize()
    def open(self) -> None:
        """Open the store."""
        self.on = self.bench()
        self.do(self.on.open())
        self.start = self.do(self.on.store.now())

    def do(self, work: Awaitable[T]) -> T:
        """What a coroutine gives."""

        async def run() -> T:
            return await work

        return self.runner.run(run())

    def teardown(self) -> None:
        """Close it."""
        if hasattr(self, "on"):
            self.do(self.on.close())
            self.on.context.close()
        self.runner.close()

    @property
    def now(self) -> int:
        """The store's clock, as the model has it."""
        return self.start + self.passed

    def row(self, job: int) -> Row:
        """A job of the store's."""
        return self.do(self.on.row(job))

    # --- producers

    @rule(
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 5)),
        delay=st.sampled_from((0, 0, 1_000, 60_000)),
        most=st.sampled_from((1, 2, 10)),
        key=st.sampled_from(("", "", "k", "l")),
        until=st.sampled_from((UNTIL_CLAIMED, UNTIL_FINISHED, WINDOW)),
        conflict=st.sampled_from(ON_CONFLICT),
    )
    def enqueue(  # noqa: D102
        self, queue: str, priority: int, delay: int, most: int, key: str, until: int, conflict: str
    ) -> None:
        args = f'{{"n":{len(self.jobs)}}}'
        job = NewJob(
            queue, "work", args, delay=delay, priority=priority, max_attempts=most,
            unique_key=key, unique_until=until, on_conflict=conflict,
        )  # fmt: skip
        (made,) = self.do(self.on.store.enqueue([job]))
        state = JobState.SCHEDULED if delay else JobState.AVAILABLE
        owner = self._owner(key)
        if owner is None:
            assert made.outcome == "created"
            assert made.state is state
            assert made.id > self.highest
            self.highest = made.id
            end = self.now + until if until > 0 else until
            self.jobs[made.id] = Model(
                made.id, queue, args, priority, most, state, self.now + delay, key, end
            )
            return
        assert made.id == owner.id
        if conflict == "reject":
            assert made.outcome == "rejected"
        elif conflict == "return_existing" or owner.state not in WAITING:
            assert made.outcome == "existing"
        elif conflict == "replace_args":
            assert made.outcome == "replaced"
            owner.args = args
        else:
            assert made.outcome == "moved"
            owner.state, owner.run_at = state, self.now + delay
        assert made.state is owner.state

    def _owner(self, key: str) -> Model | None:
        for job in self.jobs.values():
            if key and job.key == key and not 0 < job.until <= self.now:
                return job
        return None

    # --- workers

    @rule(
        queue=st.sampled_from(QUEUES),
        worker=st.sampled_from(WORKERS),
        limit=st.integers(1, 3),
    )
    def claim(self, queue: str, worker: str, limit: int) -> None:  # noqa: D102
        given = self._claim(queue, worker, limit)
        ready = [
            job
            for job in self.jobs.values()
            if job.state is JobState.AVAILABLE and job.queue == queue not in self.paused
        ]
        expected = sorted(ready, key=lambda job: job.rank)[:limit]
        assert [one.id for one in given] == [job.id for job in expected]
        for one, job in zip(given, expected, strict=True):
            job.token += 1
            job.attempt += 1
            job.state, job.worker = JobState.RUNNING, worker
            job.safe_until = job.over_at = self.passed + LEASE
            if job.until == UNTIL_CLAIMED:
                job.key = ""
            assert (one.token, one.attempt, one.args) == (job.token, job.attempt, job.args)
            self.claims.append((one.id, one.token))

    def _claim(self, queue: str, worker: str, limit: int) -> Sequence[Claimed]:
        ask = ClaimAsk(worker=worker, queues=(queue,), limit=limit, lease=LEASE)
        _, given = self.do(self.on.store.exchange([], ask))
        return given

    def _held(self, claim: tuple[int, int]) -> Model | None:
        job = self.jobs.get(claim[0])
        held = job is not None and job.state is JobState.RUNNING and job.token == claim[1]
        return job if held else None

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:  # noqa: D102
        claim = data.draw(st.sampled_from(self.claims))
        job = self._held(claim)
        (held,), _ = self.do(self.on.store.exchange([Finish(*claim)], None))
        assert held is (job is not None)
        if job is not None:
            job.end(JobState.COMPLETED)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), verdict=st.sampled_from(("retry", "retry", "discard", "bury")))
    def fail(self, data: st.DataObject, verdict: str) -> None:  # noqa: D102
        claim = data.draw(st.sampled_from(self.claims))
        job = self._held(claim)
        failure = Failure(*claim, "ValueError", verdict=verdict)
        (held,), _ = self.do(self.on.store.exchange([failure], None))
        assert held is (job is not None)
        if job is None:
            return
        if job.cancel:
            job.end(JobState.CANCELLED, "user")
        elif verdict in VERDICTS:
            job.end(*VERDICTS[verdict])
        elif job.attempt >= job.max_attempts:
            job.end(JobState.DEAD, "exhausted")
        else:
            self._again(job)

    def _again(self, job: Model) -> None:
        """It waits for another try; for how long is the rules' affair."""
        job.state, job.worker = JobState.SCHEDULED, ""
        job.run_at = self.row(job.id).run_at
        assert job.run_at > self.now

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), delay=st.sampled_from((0, 0, 2_000)))
    def release(self, data: st.DataObject, delay: int) -> None:  # noqa: D102
        claim = data.draw(st.sampled_from(self.claims))
        job = self._held(claim)
        (held,), _ = self.do(self.on.store.exchange([Release(*claim, delay)], None))
        assert held is (job is not None)
        if job is None:
            return
        job.attempt -= 1
        if job.cancel:
            job.end(JobState.CANCELLED, "user")
            return
        job.state, job.worker = JobState.SCHEDULED if delay else JobState.AVAILABLE, ""
        job.run_at = self.now + delay if delay else job.run_at

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def beat(self, data: st.DataObject, worker: str) -> None:  # noqa: D102
        claims = data.draw(st.lists(st.sampled_from(self.claims), min_size=1, max_size=3))
        told = self.do(
            self.on.store.extend(worker, [Held(id=id, token=token) for id, token in claims], LEASE)
        )
        held = {claim: self._held(claim) for claim in claims}
        assert set(told.lost) == {claim[0] for claim, job in held.items() if job is None}
        assert set(told.cancel) == {
            job.id for job in held.values() if job is not None and job.cancel
        }
        for job in held.values():
            if job is not None:
                job.safe_until = job.over_at = self.passed + LEASE
                job.worker = worker

    @rule(worker=st.sampled_from(WORKERS))
    def lose(self, worker: str) -> None:  # noqa: D102
        mine = [
            job
            for job in self.jobs.values()
            if job.state is JobState.RUNNING and job.worker == worker
        ]
        every = list(self.jobs)
        lost = self.do(self.on.store.lose(worker, every, why="connection"))
        assert lost == len(mine)
        for job in mine:
            self._lost(job)

    def _lost(self, job: Model) -> None:
        job.lost += 1
        if job.cancel:
            job.end(JobState.CANCELLED, "user")
        elif job.lost >= MOST_LOST or job.attempt >= job.max_attempts:
            job.end(JobState.DEAD, "worker_lost")
        else:
            self._again(job)

    # --- time

    @rule(step=st.sampled_from((1, 250, 1_000, 5_000, LEASE - 1, LEASE, 60_000)))
    def advance(self, step: int) -> None:  # noqa: D102
        self.do(self.on.advance(step))
        self.passed += step
        assert self.do(self.on.store.now()) == self.now

    @rule()
    def maintain(self) -> None:  # noqa: D102
        due = [
            job
            for job in self.jobs.values()
            if job.state is JobState.SCHEDULED and job.run_at <= self.now
        ]
        running = [job for job in self.jobs.values() if job.state is JobState.RUNNING]
        done = self.do(self.on.store.maintain())
        assert done.promoted == len(due)
        for job in due:
            job.state = JobState.AVAILABLE
        lost = 0
        for job in running:
            over = self.row(job.id).state is not JobState.RUNNING
            assert not over or job.safe_until <= self.passed, job
            assert over or self.passed < job.over_at, job
            if over:
                lost += 1
                self._lost(job)
        assert done.lost == lost
        waits = [job.run_at for job in self.jobs.values() if job.state is JobState.SCHEDULED]
        assert all(done.next_due <= moment for moment in waits)
        assert done.next_due > self.now or not done.next_due

    @rule()
    def reopen(self) -> None:
        """A lease may begin anew with it."""
        self.do(self.on.reopen())
        for job in self.jobs.values():
            if job.state is JobState.RUNNING:
                job.over_at = max(job.over_at, self.passed + 2 * LEASE)
                job.worker = self.row(job.id).worker

    # --- operators

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:  # noqa: D102
        job = self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]
        done = self.do(self.on.store.cancel(Filter(ids=(job.id,)), reason="user", limit=9))
        assert done == (job.state not in JOB_FINAL)
        if job.state is JobState.RUNNING:
            job.cancel = True
        elif job.state in WAITING:
            job.end(JobState.CANCELLED, "user")

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:  # noqa: D102
        job = self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]
        done = self.do(self.on.store.requeue(Filter(ids=(job.id,)), limit=9))
        assert list(done) == ([job.id] if job.state in JOB_FINAL else [])
        if done:
            job.state, job.run_at, job.reason = JobState.AVAILABLE, self.now, ""
            job.attempt = job.lost = 0

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:  # noqa: D102
        job = self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]
        done = self.do(self.on.store.purge(Filter(ids=(job.id,)), limit=9))
        assert done == (job.state is not JobState.RUNNING)
        if done:
            del self.jobs[job.id]

    @rule(queue=st.sampled_from(QUEUES), paused=st.booleans())
    def pause(self, queue: str, paused: bool) -> None:  # noqa: D102, FBT001
        self.do(self.on.store.pause(queue, paused=paused))
        (self.paused.add if paused else self.paused.discard)(queue)
        assert self.do(self.on.store.paused()) == self.paused

    # --- what is true at any time

    @invariant()
    def it_is_as_the_model_has_it(self) -> None:
        """Every job, field by field, and what holds of all."""
        if not hasattr(self, "on"):
            return
        rows = {row.id: row for row in self.do(self.on.rows())}
        assert sorted(rows) == sorted(self.jobs)
        for job in self.jobs.values():
            row = rows[job.id]
            assert (
                row.state, row.reason, row.token, row.attempt, row.lost_count, row.args,
                row.run_at, row.cancel_requested,
            ) == (
                job.state, job.reason, job.token, job.attempt, job.lost, job.args,
                job.run_at, job.cancel,
            )  # fmt: skip
            if not 0 < job.until <= self.now:
                assert row.unique_key == job.key, job
        self.do(self.on.assert_sound())
