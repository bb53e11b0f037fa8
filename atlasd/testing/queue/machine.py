"""Random operations on a queue store, held against a model; needs hypothesis.

class SqliteMachine(QueueMachine):
def bench(self) -> Bench: ...

TestSqlite = SqliteMachine.TestCase
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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
WEIGHTS = {
    "enqueue": 6, "claim": 8, "finish": 2, "fail": 3, "release": 2, "beat": 2, "lose": 1,
    "advance": 3, "maintain": 4, "reopen": 1, "cancel": 1, "requeue": 2, "purge": 1, "pause": 1,
}  # fmt: skip
OF_CLAIMS = ("finish", "fail", "release", "beat")
OF_JOBS = ("cancel", "requeue", "purge")
Draw = Callable[[st.SearchStrategy[Any]], Any]


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

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """One operation; what a busy queue sees most comes most often.

        It is one rule, not one for each: hypothesis leaves rules out of whole runs, and then hardly
        any job gets as far as to a worker.
        """
        able = [
            name
            for name, weight in WEIGHTS.items()
            for _ in range(weight)
            if (name not in OF_CLAIMS or self.claims) and (name not in OF_JOBS or self.jobs)
        ]
        # Mixed: hypothesis draws the same again and again, and all would be enqueued, none claimed.
        number = data.draw(st.integers(0, 1 << 32), label="operation")
        name = Random(number).choice(able)  # noqa: S311  no secret comes of it
        getattr(self, f"_{name}")(data.draw)

    def _some_claim(self) -> st.SearchStrategy[tuple[int, int]]:
        """One of the last claims, held or not."""
        return st.sampled_from(self.claims[-6:])

    # --- producers

    def _enqueue(self, draw: Draw) -> None:
        queue, priority = draw(st.sampled_from(QUEUES)), draw(st.sampled_from((0, 5)))
        delay, most = (
            draw(st.sampled_from((0, 0, 1_000, 60_000))),
            draw(st.sampled_from((10, 2, 1))),
        )
        key, conflict = (
            draw(st.sampled_from(("", "k", "", "l"))),
            draw(st.sampled_from(ON_CONFLICT)),
        )
        until = draw(st.sampled_from((UNTIL_CLAIMED, UNTIL_FINISHED, WINDOW)))
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

    def _claim(self, draw: Draw) -> None:
        queue, worker = draw(st.sampled_from(QUEUES)), draw(st.sampled_from(WORKERS))
        limit = draw(st.integers(1, 3))
        given = self._given(queue, worker, limit)
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

    def _given(self, queue: str, worker: str, limit: int) -> Sequence[Claimed]:
        ask = ClaimAsk(worker=worker, queues=(queue,), limit=limit, lease=LEASE)
        _, given = self.do(self.on.store.exchange([], ask))
        return given

    def _held(self, claim: tuple[int, int]) -> Model | None:
        job = self.jobs.get(claim[0])
        held = job is not None and job.state is JobState.RUNNING and job.token == claim[1]
        return job if held else None

    def _finish(self, draw: Draw) -> None:
        claim = draw(self._some_claim())
        job = self._held(claim)
        (held,), _ = self.do(self.on.store.exchange([Finish(claim[0], claim[1])], None))
        assert held is (job is not None)
        if job is not None:
            job.end(JobState.COMPLETED)

    def _fail(self, draw: Draw) -> None:
        verdict = draw(st.sampled_from(("retry", "retry", "discard", "bury")))
        claim = draw(self._some_claim())
        job = self._held(claim)
        failure = Failure(claim[0], claim[1], "ValueError", verdict=verdict)
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

    def _release(self, draw: Draw) -> None:
        delay = draw(st.sampled_from((0, 0, 2_000)))
        claim = draw(self._some_claim())
        job = self._held(claim)
        (held,), _ = self.do(self.on.store.exchange([Release(claim[0], claim[1], delay)], None))
        assert held is (job is not None)
        if job is None:
            return
        job.attempt -= 1
        if job.cancel:
            job.end(JobState.CANCELLED, "user")
            return
        job.state, job.worker = JobState.SCHEDULED if delay else JobState.AVAILABLE, ""
        job.run_at = self.now + delay if delay else job.run_at

    def _beat(self, draw: Draw) -> None:
        worker = draw(st.sampled_from(WORKERS))
        # A worker names a job once: what is lost is told by its id alone.
        some = st.lists(self._some_claim(), min_size=1, max_size=3, unique_by=itemgetter(0))
        claims = draw(some)
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

    def _lose(self, draw: Draw) -> None:
        worker = draw(st.sampled_from(WORKERS))
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

    def _advance(self, draw: Draw) -> None:
        step = draw(st.sampled_from((1, 250, 1_000, 5_000, LEASE - 1, LEASE, 60_000)))
        self.do(self.on.advance(step))
        self.passed += step
        assert self.do(self.on.store.now()) == self.now

    def _maintain(self, _draw: Draw) -> None:
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

    def _reopen(self, _draw: Draw) -> None:
        """A lease may begin anew with it."""
        self.do(self.on.reopen())
        for job in self.jobs.values():
            if job.state is JobState.RUNNING:
                job.over_at = max(job.over_at, self.passed + 2 * LEASE)
                job.worker = self.row(job.id).worker

    # --- operators

    def _cancel(self, draw: Draw) -> None:
        job = self.jobs[draw(st.sampled_from(sorted(self.jobs)))]
        done = self.do(self.on.store.cancel(Filter(ids=(job.id,)), reason="user", limit=9))
        assert done == (job.state not in JOB_FINAL)
        if job.state is JobState.RUNNING:
            job.cancel = True
        elif job.state in WAITING:
            job.end(JobState.CANCELLED, "user")

    def _requeue(self, draw: Draw) -> None:
        job = self.jobs[draw(st.sampled_from(sorted(self.jobs)))]
        done = self.do(self.on.store.requeue(Filter(ids=(job.id,)), limit=9))
        assert list(done) == ([job.id] if job.state in JOB_FINAL else [])
        if done:
            job.state, job.run_at, job.reason = JobState.AVAILABLE, self.now, ""
            job.attempt = job.lost = 0

    def _purge(self, draw: Draw) -> None:
        job = self.jobs[draw(st.sampled_from(sorted(self.jobs)))]
        done = self.do(self.on.store.purge(Filter(ids=(job.id,)), limit=9))
        assert done == (job.state is not JobState.RUNNING)
        if done:
            del self.jobs[job.id]

    def _pause(self, draw: Draw) -> None:
        queue, paused = draw(st.sampled_from(QUEUES)), draw(st.sampled_from((True, False, False)))
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
