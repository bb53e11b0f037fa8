"""The PostgreSQL queue at work: one flight at a time, and what arrives meanwhile is the next one.

Three connections: one for flights, one for whatever else is asked (maintenance may take its time),
and one that listens.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from atlasd.contracts.commits import Tally
from atlasd.contracts.context import PluginContext
from atlasd.contracts.queue import (
    BreakerRow,
    ClaimAsk,
    Claimed,
    DeadGroup,
    Distribution,
    Enqueued,
    Extended,
    Filter,
    Held,
    JobState,
    Maintained,
    NewJob,
    QueueCount,
    Release,
    Row,
    Rules,
    ScheduleRow,
    Settlement,
    Slot,
    SlotClaim,
)
from atlasd.errors import AtlasError
from atlasd_plugins.queue_postgres import operating, quick, schedules, sql
from atlasd_plugins.queue_postgres.access import Access
from atlasd_plugins.queue_postgres.claiming import Turn
from atlasd_plugins.queue_postgres.flight import (
    Enqueue,
    Exchange,
    Extend,
    Flight,
    Landed,
    Request,
)
from atlasd_plugins.queue_postgres.hints import Hints
from atlasd_plugins.queue_postgres.lanes import Lanes, Numbers
from atlasd_plugins.queue_postgres.link import Link, Mark, RefusedError, Transaction
from atlasd_plugins.queue_postgres.maintenance import Maintenance
from atlasd_plugins.queue_postgres.migrations import migrate
from atlasd_plugins.queue_postgres.query import groups_of, row_of, selecting
from atlasd_plugins.queue_postgres.room import Room

T = TypeVar("T")

MISSED = 0.005
"""Seconds until a claim looks again whose jobs another host was about to take."""
LONG = 0.2
COUNT_AGAIN = 10
"""A count of all jobs that took longer than `LONG` seconds is good for so many times that."""
HEALTH_EVERY = 15.0
"""Seconds for which facts about the database's health are good."""


class Waiting:
    """A claim that found nothing yet."""

    __slots__ = ("ask", "future", "held", "timer")

    def __init__(
        self,
        ask: ClaimAsk,
        held: Sequence[bool],
        future: "asyncio.Future[tuple[Sequence[bool], Sequence[Claimed]]]",
    ) -> None:
        self.ask = ask
        self.held = held
        self.future = future
        self.timer: asyncio.TimerHandle | None = None


class PostgresQueue:
    """See `atlasd.contracts.queue.QueueStore`."""

    def __init__(self, access: Access, context: PluginContext, rules: Rules) -> None:
        self._access = access
        self._log = context.log
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self._hot, self._side = Link(access), Link(access)
        self._lanes, self._numbers, self._turn = Lanes(), Numbers(), Turn()
        self._side_numbers = Numbers()
        self._maintenance = Maintenance(rules, time.monotonic)
        self._room = Room(rules, time.monotonic)
        self._hints = Hints(access, self._side, self._look)
        self._identity = secrets.token_hex(8)
        self._flights = itertools.count(1)
        self._work: list[Request] = []
        self._waiting: list[Waiting] = []
        self._nudged: set[str] = set()
        """Workers whose claims that are under way shall not wait."""
        self._looks = False
        self._flying: asyncio.Task[None] | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._holds = ""
        self._dead_rows = self._oldest = 0.0
        self._seen = self._count_at = 0.0
        self._counts: Sequence[QueueCount] = ()
        self.tally = Tally()

    async def open(self) -> None:
        """Connect, and make or migrate the schema. Raises `AtlasError` `job.store`."""
        await migrate(self._hot, self._access)
        ((commits, fsync, pages, _),) = (await self._side.run((sql.HOLDS, ())))[0]
        if commits == "off":
            # What was acknowledged must not be lost, whatever the server does for others.
            for link in (self._hot, self._side):
                await link.always("SET synchronous_commit = on")
        self._holds = holds(fsync, pages)
        self._hints.start()

    @property
    def durable(self) -> str:
        """See `QueueStore`."""
        return self._holds

    async def now(self) -> int:
        """See `QueueStore`."""
        ((row,),) = await self._side.run((sql.NOW, ()))
        return int(row[0])

    # --- flights

    def _soon(self, request: Request) -> None:
        self._work.append(request)
        self._arrange()

    def _look(self) -> None:
        """Have waiting claims look again."""
        if self._waiting:
            self._looks = True
            self._arrange()

    def _arrange(self) -> None:
        if self._flying is None or self._flying.done():
            # It begins in the next turn of the loop: everything that arrives in this one comes too.
            self._flying = self._loop.create_task(self._fly(), name="queue flight")

    async def _fly(self) -> None:
        while self._work or (self._looks and self._waiting):
            work, self._work = self._work, []
            self._looks = False
            await self._flight([one for one in work if not one.future.done()])
            # Whoever was answered may have something to add.
            await asyncio.sleep(0)

    async def _flight(self, work: Sequence[Request]) -> None:
        """One transaction; if a value in it is to blame, one for each request."""
        try:
            await self._take_off(work)
        except RefusedError as error:
            if len(work) <= 1:
                self._fail(work, refused(error))
                return
            for one in work:
                await self._flight([one])
        except AtlasError as error:
            self._fail(work, error)
            if self._waiting:
                # They have lost nothing, and go on waiting.
                self._again(self._access.poll)
        except BaseException as error:
            for one in work:
                one.future.cancel()
            if not isinstance(error, asyncio.CancelledError):
                self._log.exception("a flight of the queue has failed")
                return
            raise

    def _fail(self, work: Sequence[Request], error: AtlasError) -> None:
        for one in work:
            if not one.future.done():
                one.future.set_exception(error)

    async def _take_off(self, work: Sequence[Request]) -> None:
        await self._lanes.make(self._hot, _jobs_in(work))
        waiting = [one for one in self._waiting if not one.future.done()]
        asking = [*waiting]
        asking += [
            Waiting(one.ask, (), one.future)
            for one in work
            if isinstance(one, Exchange) and one.ask is not None and one.ask.limit > 0
        ]
        if not work and not asking:
            self._waiting = []
            return
        mark = Mark(self._identity, next(self._flights))
        if not asking and quick.fits(work, self._rules):
            await self._hurry(work, mark)
            return
        asks = [one.ask for one in asking]

        async def fly(turn: Transaction) -> Landed:
            turn.mark = mark
            flight = Flight(
                work, asks, lanes=self._lanes, numbers=self._numbers, rules=self._rules,
                turn=self._turn, room=self._room,
            )  # fmt: skip
            return await flight.run(turn)

        landed = await self._hot.transact(fly)
        self.tally.committed(len(work), landed.seconds)
        self._tell(work, asking, landed)
        self._land(asking, landed)

    async def _hurry(self, work: Sequence[Request], mark: Mark) -> None:
        began = time.perf_counter()
        done = await quick.enqueue(
            self._hot, work, mark, lanes=self._lanes, numbers=self._numbers, rules=self._rules
        )
        self.tally.committed(len(work), time.perf_counter() - began)
        for future, answer in done:
            if not future.done():
                future.set_result(answer)
        self._hints.send()

    def _tell(self, work: Sequence[Request], asking: Sequence[Waiting], landed: Landed) -> None:
        """Answer all but the claims."""
        exchanges = [one for one in work if isinstance(one, Exchange)]
        by_future = {id(one.future): one for one in asking}
        for request, held in zip(exchanges, landed.held, strict=True):
            asked = by_future.get(id(request.future))
            if asked is not None:
                asked.held = held
            elif not request.future.done():
                request.future.set_result((held, ()))
        for future, result in landed.answers:
            if future.done():
                continue
            if isinstance(result, AtlasError):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _land(self, asking: Sequence[Waiting], landed: Landed) -> None:
        """Answer claims; who got nothing goes on waiting."""
        still: list[Waiting] = []
        for one, jobs in zip(asking, landed.claimed, strict=True):
            if one.future.done():
                self._give_back(jobs)
            elif jobs or not one.ask.wait or one.ask.worker in self._nudged:
                self._answer(one, jobs)
            else:
                still.append(one)
                if one.timer is None:
                    one.timer = self._loop.call_later(one.ask.wait / 1000.0, self._give_up, one)
        self._nudged.clear()
        self._waiting = still
        if still:
            pause = self._access.poll
            if landed.wake:
                pause = min(pause, max(landed.wake - landed.now, 1) / 1000.0)
            if landed.missed:
                pause = min(pause, MISSED)
            self._again(pause)
        if landed.left:
            self._hints.send()
        if landed.freed and still:
            # They had looked before that was written.
            self._looks = True

    def _again(self, pause: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._loop.call_later(pause, self._look)

    def _give_back(self, jobs: Sequence[Claimed]) -> None:
        """Who asked for them has gone while they were claimed."""
        if jobs:
            back = [Release(job.id, job.token) for job in jobs]
            self._soon(Exchange(back, None, self._loop.create_future()))

    def _answer(self, waiting: Waiting, jobs: Sequence[Claimed]) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        if not waiting.future.done():
            waiting.future.set_result((waiting.held, jobs))

    def _give_up(self, waiting: Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        self._answer(waiting, ())

    # --- what flies

    def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Awaitable[Sequence[Enqueued]]:
        """See `QueueStore`."""
        future: asyncio.Future[Sequence[Enqueued]] = self._loop.create_future()
        self._soon(Enqueue(jobs, idempotency_key, future))
        return future

    def exchange(
        self, settlements: Sequence[Settlement], ask: ClaimAsk | None
    ) -> Awaitable[tuple[Sequence[bool], Sequence[Claimed]]]:
        """See `QueueStore`."""
        future: asyncio.Future[tuple[Sequence[bool], Sequence[Claimed]]]
        future = self._loop.create_future()
        self._soon(Exchange(settlements, ask, future))
        return future

    def nudge(self, worker: str) -> None:
        """See `QueueStore`."""
        for waiting in [one for one in self._waiting if one.ask.worker == worker]:
            self._give_up(waiting)
        if self._flying is not None and not self._flying.done():
            self._nudged.add(worker)

    def extend(self, worker: str, held: Sequence[Held], lease: int) -> Awaitable[Extended]:
        """See `QueueStore`."""
        future: asyncio.Future[Extended] = self._loop.create_future()
        self._soon(Extend(worker, held, lease, future))
        return future

    # --- what has its own transaction

    async def _aside(self, work: Callable[[Transaction], Awaitable[T]], *, twice: bool = True) -> T:
        """What `work` gives; with `twice` it bears being done a second time."""
        try:
            return await self._side.transact(work, twice=twice)
        except RefusedError as error:
            raise refused(error) from None

    async def lose(self, worker: str, ids: Sequence[int], *, why: str) -> int:
        """See `QueueStore`."""
        return await self._aside(lambda turn: operating.lose(turn, self._rules, worker, ids, why))

    async def maintain(self, limit: int = 1000) -> Maintained:
        """See `QueueStore`."""
        done = await self._aside(lambda turn: self._maintenance.round(turn, limit))
        if done.promoted:
            self._changed()
        return done

    def _changed(self) -> None:
        """Jobs may be available, here and for others."""
        self._look()
        self._hints.send()

    async def cancel(self, which: Filter, *, reason: str, limit: int) -> int:
        """See `QueueStore`."""
        return await self._aside(lambda turn: operating.cancel(turn, which, reason, limit))

    async def requeue(self, which: Filter, *, args: str = "", limit: int) -> Sequence[int]:
        """See `QueueStore`."""
        done = await self._aside(
            lambda turn: operating.requeue(turn, self._rules, which, args, limit), twice=False
        )
        if done:
            self._changed()
        return done

    async def edit(self, id: int, *, args: str) -> bool:
        """See `QueueStore`."""
        return bool(await self._read(sql.EDIT, str(id), args))

    async def restore(self, rows: Sequence[Row]) -> Sequence[int]:
        """See `QueueStore`."""
        jobs = [
            NewJob(row.queue, row.kind, "", fair_key=row.fair_key, target=row.target)
            for row in rows
        ]
        await self._lanes.make(self._side, jobs)

        async def work(turn: Transaction) -> Sequence[int]:
            return await operating.restore(
                turn, rows, lanes=self._lanes, numbers=self._side_numbers
            )

        return await self._aside(work, twice=False)

    async def purge(self, which: Filter, *, limit: int) -> int:
        """See `QueueStore`."""
        return await self._aside(lambda turn: operating.purge(turn, which, limit))

    async def pause(self, queue: str, *, paused: bool) -> None:
        """See `QueueStore`."""
        await self._read(sql.PAUSE, queue, str(paused))
        self._changed()

    async def paused(self) -> frozenset[str]:
        """See `QueueStore`."""
        return frozenset(name for (name,) in await self._read(sql.PAUSED))

    async def breakers(self) -> Sequence[BreakerRow]:
        """See `QueueStore`."""
        clock, rows = await self._side.run((sql.NOW, ()), (sql.BREAKERS, ()))
        now = clock[0][0]
        found = (self._rules.tick(BreakerRow._make(row), now) for row in rows)
        return sorted(found, key=lambda row: row.target)

    async def set_breaker(self, target: str, state: str) -> BreakerRow:
        """See `QueueStore`."""
        row = await self._aside(lambda turn: operating.set_breaker(turn, target, state))
        self._changed()
        return row

    # --- schedules

    async def fire(self, claims: Sequence[SlotClaim]) -> Sequence[int]:
        """See `QueueStore`."""
        jobs = [claim.job for claim in claims if claim.job is not None]
        await self._lanes.make(self._side, jobs)
        fired = await self._aside(
            lambda turn: schedules.fire(
                turn, claims, lanes=self._lanes, numbers=self._side_numbers, rules=self._rules
            )
        )
        if max(fired, default=0) > 0:
            self._changed()
        return fired

    async def schedules(self) -> Sequence[ScheduleRow]:
        """See `QueueStore`."""
        return schedules.rows_of(await self._read(sql.SCHEDULE_ROWS))

    async def keep_schedules(
        self, digests: Mapping[str, str], *, gone: Sequence[str] = ()
    ) -> Sequence[ScheduleRow]:
        """See `QueueStore`."""
        return await self._aside(lambda turn: schedules.keep(turn, digests, gone))

    async def pause_schedule(self, schedule: str, *, paused: bool) -> None:
        """See `QueueStore`."""
        await self._read(sql.PAUSE_SCHEDULE, schedule, str(paused))

    async def slots(self, schedule: str, limit: int) -> Sequence[Slot]:
        """See `QueueStore`."""
        return [Slot._make(one) for one in await self._read(sql.SLOTS, schedule, str(limit))]

    # --- looking

    async def _read(self, text: str, *values: str | None) -> list[tuple[Any, ...]]:
        try:
            (rows,) = await self._side.run((text, values))
        except RefusedError as error:
            raise refused(error) from None
        return rows

    async def get(self, id: int) -> Row | None:
        """See `QueueStore`."""
        rows = await self._read(sql.BY_ID, str(id))
        return row_of(rows[0]) if rows else None

    async def select(self, which: Filter, limit: int) -> Sequence[Row]:
        """See `QueueStore`."""
        text, values = selecting(which, limit)
        return [row_of(one) for one in await self._read(text, *values)]

    async def dead(self, limit: int) -> Sequence[DeadGroup]:
        """See `QueueStore`."""
        return groups_of(await self._read(sql.DEAD_GROUPS, str(limit)))

    async def ahead(self, id: int, limit: int) -> int:
        """See `QueueStore`."""
        ((count,),) = await self._read(sql.AHEAD, str(id), str(limit))
        return int(count)

    async def count(self) -> Sequence[QueueCount]:
        """See `QueueStore`. Counting a long history takes a while, and isn't repeated at once."""
        began = time.monotonic()
        if began >= self._count_at:
            # The whole table is read, and in its own order that is quickest.
            _, rows, _ = await self._side.run(
                ("SET enable_seqscan = on", ()), (sql.COUNT, ()), ("SET enable_seqscan = off", ())
            )
            self._counts = [QueueCount(row[0], JobState(row[1]), *row[2:]) for row in rows]
            took = time.monotonic() - began
            self._count_at = began + COUNT_AGAIN * took if took > LONG else 0.0
        await self._look_at_health()
        return self._counts

    async def _look_at_health(self) -> None:
        if time.monotonic() >= self._seen:
            ((self._dead_rows, self._oldest),) = await self._read(sql.HEALTH)
            self._seen = time.monotonic() + HEALTH_EVERY

    def numbers(self) -> Mapping[str, float | Distribution]:
        """See `QueueStore`."""
        return {
            **self.tally.numbers(),
            "atlasd_queue_connects_total": float(self._hot.connects + self._side.connects),
            "atlasd_queue_notifications_total": float(self._hints.received),
            "atlasd_queue_dead_rows": float(self._dead_rows),
            "atlasd_queue_oldest_transaction_seconds": float(self._oldest),
        }

    async def close(self) -> None:
        """Finish what was asked, and let go of everybody who waits."""
        if self._flying is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._flying
        for waiting in self._waiting:
            self._answer(waiting, ())
        self._waiting = []
        if self._wake is not None:
            self._wake.cancel()
        await self._hints.close()
        await self._hot.close()
        await self._side.close()


def holds(fsync: str, full_page_writes: str) -> str:
    """What an acknowledged job survives on a server with these settings, for people."""
    if fsync != "on":
        return "a crash of atlasd alone: the server has fsync off"
    if full_page_writes != "on":
        return "a crash of the server, not power loss: it has full_page_writes off"
    return "power loss"


def refused(error: RefusedError) -> AtlasError:
    """A value that the database doesn't take."""
    return AtlasError(
        "job.invalid",
        f"the database does not take this: {error}",
        hint="nothing was done; a text in a job must not contain a NUL character",
    )


def _jobs_in(work: Sequence[Request]) -> list[NewJob]:
    found: list[NewJob] = []
    for one in work:
        if isinstance(one, Enqueue):
            found += one.jobs
        elif isinstance(one, Exchange):
            for settled in one.settlements:
                then = getattr(settled, "then", ())
                found += then
    return found
