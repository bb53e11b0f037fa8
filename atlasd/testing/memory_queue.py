"""A queue store in memory: the plainest one that keeps the contract, for tests.

It looks at every job for every question, which is simple to read and quick enough for thousands.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from atlasd.clock import Clock
from atlasd.contracts.context import PluginContext
from atlasd.contracts.queue import (
    JOB_FINAL,
    UNTIL_CLAIMED,
    BreakerRow,
    ClaimAsk,
    Claimed,
    DeadGroup,
    Distribution,
    Enqueued,
    Extended,
    Failure,
    Filter,
    Finish,
    Held,
    JobState,
    Lane,
    Maintained,
    NewJob,
    QueueCount,
    QueueStore,
    QueueStoreType,
    Row,
    Rules,
    ScheduleRow,
    Settlement,
    Slot,
    SlotClaim,
    Transition,
)
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd.testing import memory_rows as looking
from atlasd.testing.memory_rows import Kept, Lease

DAY = 86_400_000
WAITING = frozenset({JobState.SCHEDULED, JobState.AVAILABLE})


@dataclass(eq=False)
class Waiting:
    """A claim that has found nothing yet."""

    ask: ClaimAsk
    answer: "asyncio.Future[Sequence[Claimed]]"


def memory_store() -> QueueStoreType:
    """A kind of store whose jobs live as long as this descriptor."""
    kept = Kept()

    @asynccontextmanager
    async def open_store(
        settings: NoSettings, context: PluginContext, rules: Rules
    ) -> AsyncIterator[QueueStore]:
        del settings
        queue = MemoryQueue(context.clock, rules, kept)
        try:
            yield queue
        finally:
            queue.close()

    return QueueStoreType(name="memory", summary="memory of this process", open=open_store)


class MemoryQueue:
    """See `atlasd.contracts.queue.QueueStore`. Whatever it does is done before it first waits."""

    durable = "nothing: it ends with its process"

    def __init__(self, clock: Clock, rules: Rules, kept: Kept | None = None) -> None:
        self.kept = kept or Kept()
        self._clock = clock
        self._rules = rules
        self._waiting: list[Waiting] = []
        self._results: dict[str, list[tuple[bool, int, int]]] = {}

    # --- time

    def _now(self) -> int:
        return round(self._clock.wall() * 1000)

    def _mono(self) -> float:
        return round(self._clock.monotonic() * 1000, 3)

    async def now(self) -> int:
        """See `QueueStore`."""
        return self._now()

    # --- enqueueing

    async def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Sequence[Enqueued]:
        """See `QueueStore`."""
        at, known = self.kept.answers.get(idempotency_key, (0, ()))
        if idempotency_key and known and self._now() - at < DAY:
            return known
        self._room(jobs)
        made = [self._add(job) for job in jobs]
        if idempotency_key:
            self.kept.answers[idempotency_key] = (self._now(), made)
        self._serve()
        return made

    def _room(self, jobs: Sequence[NewJob]) -> None:
        for queue in {job.queue for job in jobs}:
            size = self._rules.limits(queue).size
            new = sum(job.queue == queue for job in jobs)
            waiting = len(self._those(Filter(queue=queue), WAITING))
            if size and waiting + new > size:
                raise AtlasError(
                    "job.queue_full",
                    f"the queue {queue} has {waiting} of at most {size} waiting jobs: {new} more "
                    "are not taken",
                    details={"queue": queue, "waiting": waiting, "size": size},
                )

    def _add(self, job: NewJob) -> Enqueued:
        now = self._now()
        run_at = job.run_at or now + job.delay
        state = JobState.SCHEDULED if run_at > now else JobState.AVAILABLE
        other = self._owner(job.unique_key) if job.unique_key else None
        if other is not None:
            return self._collide(other, job, run_at, state)
        self.kept.last_id += 1
        self._put(
            Row(
                id=self.kept.last_id, state=state, queue=job.queue, kind=job.kind, args=job.args,
                priority=job.priority, run_at=run_at,
                rank_at=self._rules.rank(job.queue, job.priority, run_at), created_at=now,
                attempt=0, max_attempts=job.max_attempts, token=0, lost_count=0, lease_until=0,
                worker="", unique_key=job.unique_key,
                unique_until=now + job.unique_until if job.unique_until > 0 else job.unique_until,
                expires_at=now + job.expires_in if job.expires_in else 0, fair_key=job.fair_key,
                target=job.target, cancel_requested=False, finalized_at=0, reason="",
                fingerprint="", errors="", result="", progress="", options=job.options,
                requeued_from="",
            )
        )  # fmt: skip
        return Enqueued(self.kept.last_id, state)

    def _owner(self, key: str) -> Row | None:
        """The job that has a unique key."""
        for row in self.kept.rows.values():
            if row.unique_key == key and not 0 < row.unique_until <= self._now():
                return row
        return None

    def _collide(self, row: Row, job: NewJob, run_at: int, state: JobState) -> Enqueued:
        if job.on_conflict == "reject":
            return Enqueued(row.id, row.state, "rejected")
        if row.state in WAITING and job.on_conflict == "replace_args":
            self._put(row._replace(args=job.args, options=job.options))
            return Enqueued(row.id, row.state, "replaced")
        if row.state in WAITING and job.on_conflict == "move_run_at":
            rank = self._rules.rank(row.queue, row.priority, run_at)
            self._put(row._replace(state=state, run_at=run_at, rank_at=rank))
            return Enqueued(row.id, state, "moved")
        return Enqueued(row.id, row.state, "existing")

    # --- settling

    async def exchange(
        self, settlements: Sequence[Settlement], ask: ClaimAsk | None
    ) -> tuple[Sequence[bool], Sequence[Claimed]]:
        """See `QueueStore`."""
        held = [self._settle(one) for one in settlements]
        for target, results in self._results.items():
            before = self.kept.breakers.get(target, BreakerRow(target))
            after = self._rules.breaker(before, results, self._now())
            if after != before:
                self.kept.breakers[target] = after
        self._results = {}
        if ask is None or ask.limit <= 0 or not ask.wait:
            self._serve()
            return held, self._claim(ask, self._now())[0] if ask is not None else ()
        waiting = Waiting(ask, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._serve()
        try:
            async with asyncio.timeout(ask.wait / 1000):
                return held, await waiting.answer
        except TimeoutError:
            return held, ()
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _settle(self, one: Settlement) -> bool:
        row = self.kept.rows.get(one.id)
        if row is None or row.state is not JobState.RUNNING or row.token != one.token:
            return False
        lease = self.kept.leases.pop(row.id)
        if isinstance(one, Finish):
            row = row._replace(result=one.result)
            self._leave(row, Transition(state=JobState.COMPLETED))
            for job in one.then:
                self._add(job)
        elif isinstance(one, Failure):
            self._leave(row, self._rules.failed(row, one, self._now()))
        elif row.cancel_requested:
            to = Transition(state=JobState.CANCELLED, reason="user", attempt_back=True)
            self._leave(row, to)
        else:
            state = JobState.SCHEDULED if one.delay else JobState.AVAILABLE
            run_at = self._now() + one.delay if one.delay else row.run_at
            self._leave(row, Transition(state=state, run_at=run_at, attempt_back=True))
        if isinstance(one, Finish) or (isinstance(one, Failure) and one.verdict == "target"):
            self._hear(row.target, (isinstance(one, Failure), one.took, lease.epoch))
        return True

    def _hear(self, target: str, result: tuple[bool, int, int]) -> None:
        """Note a result for a breaker, which is told at the end of the exchange."""
        if target:
            self._results.setdefault(target, []).append(result)

    def _leave(self, row: Row, to: Transition) -> None:
        """What becomes of a job that is held no longer."""
        final = to.state in JOB_FINAL
        run_at = to.run_at or row.run_at
        self._put(
            row._replace(
                state=to.state,
                run_at=run_at,
                rank_at=self._rules.rank(row.queue, row.priority, run_at),
                finalized_at=self._now() if final else 0,
                reason=to.reason,
                errors=to.errors or row.errors,
                fingerprint=to.fingerprint or row.fingerprint,
                lost_count=row.lost_count + to.lost,
                attempt=row.attempt - to.attempt_back,
                worker="",
                lease_until=0,
                cancel_requested=False,
            )
        )

    def _put(self, row: Row) -> None:
        """Keep a row; a key whose scope has ended is free."""
        scope_is_over = row.unique_until <= 0 and row.state in JOB_FINAL
        self.kept.rows[row.id] = row._replace(unique_key="") if scope_is_over else row

    # --- claiming

    def _serve(self) -> None:
        """Give waiting claims what there is, in the order in which they came."""
        now, wake = self._now(), 0
        for waiting in [one for one in self._waiting if not one.answer.done()]:
            jobs, opens = self._claim(waiting.ask, now)
            if jobs or not waiting.ask.wait:
                waiting.answer.set_result(jobs)
            elif opens:
                wake = min(wake, opens) if wake else opens
        if wake:
            asyncio.get_running_loop().call_later(max(wake - now, 1) / 1000, self._serve)

    def _claim(self, ask: ClaimAsk, now: int) -> tuple[list[Claimed], int]:
        kept = self.kept
        for target, breaker in kept.breakers.items():
            kept.breakers[target] = self._rules.tick(breaker, now)
        lines: dict[int, list[Row]] = {}
        for row in kept.rows.values():
            fresh = not 0 < row.expires_at <= now
            if row.state is JobState.AVAILABLE and row.queue in ask.queues and fresh:
                lines.setdefault(self._lane(row).id, []).append(row)
        for lane in kept.lanes.values():
            line = sorted(lines.get(lane.id, ()), key=lambda row: (row.rank_at, row.id))
            lines[lane.id] = line
            lane.available, lane.head = len(line), line[0].rank_at if line else 0
        picks, wake = self._rules.pick(
            [lane for lane in kept.lanes.values() if lane.available],
            ask.limit,
            now,
            paused=kept.paused,
            breakers=kept.breakers,
            running=self._running(),
            turns=kept.turns,
        )
        taken = [row for pick in picks for row in lines[pick.lane][: pick.jobs]]
        taken.sort(key=lambda row: row.rank_at)
        return [self._take(row, ask, now) for row in taken], wake

    def _lane(self, row: Row) -> Lane:
        lanes = self.kept.lanes
        key = (row.queue, row.fair_key, row.target)
        if key not in lanes:
            lanes[key] = Lane(len(lanes) + 1, *key)
        return lanes[key]

    def _running(self) -> Mapping[str, int]:
        counts: dict[str, int] = {}
        for row in self.kept.rows.values():
            if row.state is JobState.RUNNING:
                for key in (row.queue, f"{row.queue}/{row.fair_key}", f"target:{row.target}"):
                    counts[key] = counts.get(key, 0) + 1
        return counts

    def _take(self, row: Row, ask: ClaimAsk, now: int) -> Claimed:
        row = row._replace(
            state=JobState.RUNNING,
            token=row.token + 1,
            attempt=row.attempt + 1,
            lease_until=now + ask.lease,
            worker=ask.worker,
            unique_key="" if row.unique_until == UNTIL_CLAIMED else row.unique_key,
        )
        self._put(row)
        breaker = self.kept.breakers.get(row.target, BreakerRow(row.target))
        self.kept.leases[row.id] = Lease(self._mono() + ask.lease, breaker.epoch)
        return Claimed(
            row.id, row.token, row.attempt, row.lease_until, row.queue, row.kind, row.args,
            row.priority, row.run_at, row.created_at, row.max_attempts, row.lost_count,
            row.expires_at, row.fair_key, row.target, row.options,
        )  # fmt: skip

    def nudge(self, worker: str) -> None:
        """See `QueueStore`."""
        for waiting in self._waiting:
            if waiting.ask.worker == worker and not waiting.answer.done():
                waiting.answer.set_result(())

    # --- leases

    async def extend(self, worker: str, held: Sequence[Held], lease: int) -> Extended:
        """See `QueueStore`."""
        lost, cancel = [], []
        for one in held:
            row = self.kept.rows.get(one.id)
            if row is None or row.state is not JobState.RUNNING or row.token != one.token:
                lost.append(one.id)
                continue
            self.kept.leases[row.id] = self.kept.leases[row.id]._replace(until=self._mono() + lease)
            self._put(
                row._replace(
                    worker=worker,
                    lease_until=self._now() + lease,
                    progress=one.progress or row.progress,
                )
            )
            if row.cancel_requested:
                cancel.append(one.id)
        return Extended(lost=tuple(lost), cancel=tuple(cancel))

    async def lose(self, worker: str, ids: Sequence[int], *, why: str) -> int:
        """See `QueueStore`."""
        rows = self._those(Filter(ids=tuple(ids)), {JobState.RUNNING}) if ids else []
        mine = [row for row in rows if row.worker == worker]
        for row in mine:
            self._lose(row, why)
        self._serve()
        return len(mine)

    def _lose(self, row: Row, why: str) -> None:
        del self.kept.leases[row.id]
        self._leave(row, self._rules.lost(row, self._now(), why=why))

    # --- maintenance

    async def maintain(self, limit: int = 1000) -> Maintained:
        """See `QueueStore`."""
        now, mono, leases = self._now(), self._mono(), self.kept.leases
        due = [row for row in self._those(Filter(), {JobState.SCHEDULED}) if row.run_at <= now]
        due = sorted(due, key=lambda row: row.run_at)[:limit]
        for row in due:
            self._put(row._replace(state=JobState.AVAILABLE))
        late = [self.kept.rows[job] for job, lease in leases.items() if lease.until <= mono][:limit]
        for row in late:
            self._lose(row, "lease")
        waiting = self._those(Filter(), WAITING)
        expired = [row for row in waiting if 0 < row.expires_at <= now][:limit]
        for row in expired:
            self._leave(row, Transition(state=JobState.CANCELLED, reason="expired"))
        pruned = self._surplus()[:limit]
        for row in pruned:
            del self.kept.rows[row.id]
        self._serve()
        return Maintained(
            promoted=len(due),
            lost=len(late),
            expired=len(expired),
            pruned=len(pruned),
            next_due=self._next_due(),
        )

    def _surplus(self) -> list[Row]:
        """Final jobs that are too old or too many; who has a key for a while yet stays."""
        found = []
        lines: dict[tuple[str, JobState], list[Row]] = {}
        for row in self._those(Filter(), JOB_FINAL):
            lines.setdefault((row.queue, row.state), []).append(row)
        for (queue, state), line in lines.items():
            age, most = self._rules.keep(state, queue)
            free = [row for row in line if not row.unique_key or row.unique_until <= self._now()]
            free.sort(key=lambda row: row.finalized_at)
            many = max(len(line) - most, 0)
            old = [row for row in free[many:] if row.finalized_at <= self._now() - age]
            found += free[:many] + old
        return found

    def _next_due(self) -> int:
        moments = [row.run_at for row in self._those(Filter(), {JobState.SCHEDULED})]
        moments += [row.expires_at for row in self._those(Filter(), WAITING) if row.expires_at]
        rest = [lease.until - self._mono() for lease in self.kept.leases.values()]
        moments += [self._now() + int(one) + 1 for one in rest]
        return min(moments, default=0)

    # --- operators

    def _those(self, which: Filter, able: Collection[JobState] = frozenset(JobState)) -> list[Row]:
        """The jobs that a filter means and that are in one of these states, by id."""
        return looking.those(self.kept.rows, which, able)

    async def cancel(self, which: Filter, *, reason: str, limit: int) -> int:
        """See `QueueStore`."""
        rows = self._those(which, WAITING | {JobState.RUNNING})[:limit]
        for row in rows:
            if row.state is JobState.RUNNING:
                self._put(row._replace(cancel_requested=True))
            else:
                self._leave(row, Transition(state=JobState.CANCELLED, reason=reason))
        return len(rows)

    async def requeue(self, which: Filter, *, args: str = "", limit: int) -> Sequence[int]:
        """See `QueueStore`."""
        rows, now = self._those(which, JOB_FINAL)[:limit], self._now()
        for row in rows:
            self._put(
                row._replace(
                    state=JobState.AVAILABLE, finalized_at=0, reason="", run_at=now,
                    rank_at=self._rules.rank(row.queue, row.priority, now), attempt=0,
                    lost_count=0, expires_at=0, result="", progress="",
                    requeued_from=row.state.value, args=args or row.args,
                    unique_key=row.unique_key if row.unique_until > 0 else "",
                )
            )  # fmt: skip
        self._serve()
        return [row.id for row in rows]

    async def edit(self, id: int, *, args: str) -> bool:
        """See `QueueStore`."""
        row = self.kept.rows.get(id)
        if row is None or row.state is not JobState.DEAD:
            return False
        self._put(row._replace(args=args))
        return True

    async def restore(self, rows: Sequence[Row]) -> Sequence[int]:
        """See `QueueStore`."""
        return [self._restore(row) for row in rows]

    def _restore(self, row: Row) -> int:
        at, known = self.kept.answers.get(row.unique_key, (0, ()))
        again = bool(known) and self._now() - at < DAY
        if row.unique_key and (again or self._owner(row.unique_key) is not None):
            return 0
        self.kept.last_id += 1
        self.kept.rows[self.kept.last_id] = row._replace(id=self.kept.last_id)
        if row.unique_key:
            made = Enqueued(self.kept.last_id, row.state, "existing")
            self.kept.answers[row.unique_key] = (self._now(), [made])
        return self.kept.last_id

    async def purge(self, which: Filter, *, limit: int) -> int:
        """See `QueueStore`."""
        rows = self._those(which, frozenset(JobState) - {JobState.RUNNING})[:limit]
        for row in rows:
            del self.kept.rows[row.id]
        return len(rows)

    async def pause(self, queue: str, *, paused: bool) -> None:
        """See `QueueStore`."""
        self.kept.paused = self.kept.paused | {queue} if paused else self.kept.paused - {queue}
        self._serve()

    async def paused(self) -> frozenset[str]:
        """See `QueueStore`."""
        return self.kept.paused

    async def breakers(self) -> Sequence[BreakerRow]:
        """See `QueueStore`."""
        rows = (self._rules.tick(row, self._now()) for row in self.kept.breakers.values())
        return sorted(rows, key=lambda row: row.target)

    async def set_breaker(self, target: str, state: str) -> BreakerRow:
        """See `QueueStore`."""
        before = self.kept.breakers.get(target, BreakerRow(target))
        after = BreakerRow(target, state, epoch=before.epoch + 1, changed_at=self._now())
        self.kept.breakers[target] = after
        self._serve()
        return after

    # --- schedules

    async def fire(self, claims: Sequence[SlotClaim]) -> Sequence[int]:
        """See `QueueStore`."""
        fired = [self.kept.ledger.fire(claim, lambda job: self._add(job).id) for claim in claims]
        self._serve()
        return fired

    async def schedules(self) -> Sequence[ScheduleRow]:
        """See `QueueStore`."""
        return self.kept.ledger.all()

    async def keep_schedules(
        self, digests: Mapping[str, str], *, gone: Sequence[str] = ()
    ) -> Sequence[ScheduleRow]:
        """See `QueueStore`."""
        self.kept.ledger.keep(digests, gone, self._now())
        return self.kept.ledger.all()

    async def pause_schedule(self, schedule: str, *, paused: bool) -> None:
        """See `QueueStore`."""
        self.kept.ledger.pause(schedule, self._now(), paused=paused)

    async def slots(self, schedule: str, limit: int) -> Sequence[Slot]:
        """See `QueueStore`."""
        return self.kept.ledger.last(schedule, limit)

    # --- looking

    async def get(self, id: int) -> Row | None:
        """See `QueueStore`."""
        return self.kept.rows.get(id)

    async def select(self, which: Filter, limit: int) -> Sequence[Row]:
        """See `QueueStore`."""
        return self._those(which)[:limit]

    async def ahead(self, id: int, limit: int) -> int:
        """See `QueueStore`."""
        return min(looking.ahead(self.kept.rows, id), limit)

    async def count(self) -> Sequence[QueueCount]:
        """See `QueueStore`."""
        return looking.counts(self.kept.rows)

    async def dead(self, limit: int) -> Sequence[DeadGroup]:
        """See `QueueStore`."""
        return looking.dead_groups(self.kept.rows)[:limit]

    def numbers(self) -> Mapping[str, float | Distribution]:
        """See `QueueStore`."""
        return {}

    def close(self) -> None:
        """Let go of everybody who waits."""
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_result(())
