"""The SQLite queue at work: what waits at the same time shares one transaction and one fsync.

The connection is used in the loop itself. A writer thread would cost a third of the throughput (two
hand-overs a commit); the job engine has a loop of its own instead, so that nobody else waits for
the disk.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from atlasd.contracts.context import PluginContext
from atlasd.contracts.queue import (
    BreakerRow,
    ClaimAsk,
    Claimed,
    DeadGroup,
    Enqueued,
    Extended,
    Failure,
    Filter,
    Finish,
    Held,
    JobState,
    Maintained,
    NewJob,
    QueueCount,
    Release,
    Row,
    Rules,
    Settlement,
    SlotClaim,
    Transition,
)
from atlasd.errors import AtlasError
from atlasd_plugins.queue_sqlite import query, sql
from atlasd_plugins.queue_sqlite.board import Board, Lease
from atlasd_plugins.queue_sqlite.enqueuing import Enqueuing

T = TypeVar("T")

IDEMPOTENCY = 86_400_000
"""Milliseconds that the answer to an idempotency key is remembered."""
FINAL = (JobState.COMPLETED, JobState.CANCELLED, JobState.DEAD)


class _Work(Generic[T]):
    """Something that is done in the next transaction, and the future that hears of it."""

    __slots__ = ("do", "future")

    def __init__(self, do: "Callable[[_Round], T]", future: "asyncio.Future[T]") -> None:
        self.do = do
        self.future = future


class _Waiting:
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


class _Round:
    """One transaction under way: begun with its first write, so that looking costs no commit."""

    def __init__(self, connection: sqlite3.Connection, board: Board, now: int, mono: float) -> None:
        self.connection = connection
        self.board = board
        self.now = now
        self.mono = mono
        self.begun = False
        self.finished: list[int] = []
        self.results: list[tuple[str, int]] = []
        self.enqueuing = Enqueuing(self)
        self.breakers: dict[str, list[tuple[bool, int, int]]] = {}

    def write(self) -> sqlite3.Connection:
        """The connection, in a transaction."""
        if not self.begun:
            self.connection.execute("BEGIN IMMEDIATE")
            self.begun = True
        return self.connection

    def flush(self) -> None:
        """Write what was gathered for one statement each."""
        self.enqueuing.flush()
        if self.finished:
            ids = json.dumps(self.finished)
            self.write().execute(sql.FINISH, (self.now, ids))
            self.finished = []
        if self.results:
            self.write().executemany(sql.RESULT, self.results)
            self.results = []


class SqliteQueue:
    """See `atlasd.contracts.queue.QueueStore`."""

    durable = "power loss"

    def __init__(
        self, path: Path, connection: sqlite3.Connection, context: PluginContext, rules: Rules
    ) -> None:
        self._path = path
        self._connection = connection
        self._clock = context.clock
        self._log = context.log
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self._board = Board.load(connection, self._mono())
        self._work: list[_Work[Any]] = []
        self._waiting: list[_Waiting] = []
        self._scheduled = False
        self._wake: asyncio.TimerHandle | None = None
        self._broken = False
        self.commits = 0
        self.committed = 0
        """Requests that commits carried: with `commits` the mean size of a batch."""

    # --- time

    def _mono(self) -> float:
        return self._clock.monotonic() * 1000.0

    def _wall(self) -> int:
        return int(self._clock.wall() * 1000.0)

    async def now(self) -> int:
        """See `QueueStore`."""
        return self._wall()

    # --- group commit

    def _soon(self, do: Callable[[_Round], T]) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.append(_Work(do, future))
        self._arrange()
        return future

    def _arrange(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # Everything that arrives in this turn of the loop comes along.
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        work, self._work = self._work, []
        done: list[tuple[asyncio.Future[Any], Any, AtlasError | None]] = []
        claimed: list[tuple[_Waiting, list[Claimed]]] = []
        try:
            self._transact(work, done, claimed)
        except sqlite3.Error as error:
            self._undo()
            failure = _unusable(self._path, error)
            for one in work:
                if not one.future.done():
                    one.future.set_exception(failure)
            # Who had been waiting since before has lost nothing, and waits on.
            self._waiting += [waiting for waiting, _ in claimed if not waiting.future.done()]
            return
        except BaseException:
            self._undo()
            for one in work:
                one.future.cancel()
            raise
        for waiting, jobs in claimed:
            self._answer(waiting, jobs)
        for future, result, failed in done:
            if future.done() or result is _LATER:
                continue
            if failed is None:
                future.set_result(result)
            else:
                future.set_exception(failed)

    def _transact(
        self,
        work: Sequence[_Work[Any]],
        done: list[tuple["asyncio.Future[Any]", Any, AtlasError | None]],
        claimed: list[tuple[_Waiting, list[Claimed]]],
    ) -> None:
        """One transaction with all of `work`; what came of it goes into the two lists."""
        if self._broken:
            self._board = Board.load(self._connection, self._mono())
            self._broken = False
        turn = _Round(self._connection, self._board, self._wall(), self._mono())
        for one in work:
            if one.future.done():
                continue  # nobody waits for it any more, and nothing was done
            try:
                done.append((one.future, one.do(turn), None))
            except AtlasError as error:
                done.append((one.future, None, error))
        turn.flush()
        self._judge(turn)
        claimed += self._serve(turn)
        if turn.begun:
            self._connection.execute("COMMIT")
            self.commits += 1
            self.committed += len(work)

    def _undo(self) -> None:
        """Forget a transaction, and what memory took from it: it is read anew next time."""
        self._broken = True
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _answer(self, waiting: _Waiting, jobs: Sequence[Claimed]) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        if not waiting.future.done():
            waiting.future.set_result((waiting.held, jobs))

    # --- ways in

    def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Awaitable[Sequence[Enqueued]]:
        """See `QueueStore`."""
        rules = self._rules

        def do(turn: _Round) -> Sequence[Enqueued]:
            if not idempotency_key:
                return turn.enqueuing.add(jobs, rules)
            known = turn.connection.execute(
                "SELECT answer FROM idempotency WHERE key = ? AND created_at > ?",
                (idempotency_key, turn.now - IDEMPOTENCY),
            ).fetchone()
            if known is not None:
                return [Enqueued(i, JobState(s), o) for i, s, o in json.loads(known[0])]
            found = turn.enqueuing.add(jobs, rules)
            turn.write().execute(
                "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?)",
                (idempotency_key, json.dumps(found), turn.now),
            )
            return found

        return self._soon(do)

    def exchange(
        self, settlements: Sequence[Settlement], ask: ClaimAsk | None
    ) -> Awaitable[tuple[Sequence[bool], Sequence[Claimed]]]:
        """See `QueueStore`."""
        future: asyncio.Future[tuple[Sequence[bool], Sequence[Claimed]]]
        future = self._loop.create_future()

        def do(turn: _Round) -> Any:
            held = [self._settle(turn, one) for one in settlements]
            if ask is None or ask.limit <= 0:
                return held, ()
            # Claims have their turn when all has been settled and enqueued that came with them.
            self._waiting.append(_Waiting(ask, held, future))
            return _LATER

        self._work.append(_Work(do, future))
        self._arrange()
        return future

    # --- settling

    def _settle(self, turn: _Round, one: Settlement) -> bool:
        board = turn.board
        if not board.holds(one.id, one.token):
            return False
        if isinstance(one, Finish):
            lease, lane = board.let_go(one.id)
            turn.finished.append(one.id)
            if one.result:
                turn.results.append((one.result, one.id))
            board.move(lane, JobState.RUNNING, JobState.COMPLETED)
            if lane.target:
                turn.breakers.setdefault(lane.target, []).append((False, one.took, lease.epoch))
            if one.then:
                turn.enqueuing.add(one.then, self._rules, bounded=False)
        elif isinstance(one, Failure):
            lease, lane = board.let_go(one.id)
            row = query.row(turn.connection, one.id)
            assert row is not None
            self._leave(turn, row, self._rules.failed(row, one, turn.now))
            if lane.target and one.verdict == "target":
                turn.breakers.setdefault(lane.target, []).append((True, one.took, lease.epoch))
        else:
            self._release(turn, one)
        return True

    def _release(self, turn: _Round, one: Release) -> None:
        board = turn.board
        row = query.row(turn.connection, one.id)
        assert row is not None
        _, lane = board.let_go(one.id)
        state = JobState.SCHEDULED if one.delay else JobState.AVAILABLE
        run_at = turn.now + one.delay if one.delay else row.run_at
        rank = self._rules.rank(row.queue, row.priority, run_at)
        turn.write().execute(sql.RELEASE, (state.value, run_at, rank, one.id))
        board.move(lane, JobState.RUNNING, state, head=rank)

    def _leave(self, turn: _Round, row: Row, to: Transition) -> None:
        """Write what the rules decided for a job that is held no longer."""
        final = to.state in FINAL
        run_at = to.run_at or row.run_at
        rank = self._rules.rank(row.queue, row.priority, run_at)
        turn.write().execute(
            sql.LEAVE,
            (
                to.state.value,
                run_at,
                rank,
                turn.now if final else None,
                to.reason,
                to.errors or row.errors,
                to.fingerprint or row.fingerprint,
                int(to.lost),
                int(to.attempt_back),
                not final,
                row.id,
            ),
        )
        lane = turn.board.by_key[row.queue, row.fair_key, row.target]
        turn.board.move(lane, JobState.RUNNING, to.state, head=rank)

    def _judge(self, turn: _Round) -> None:
        """Let breakers hear of the results of this round."""
        for target, results in turn.breakers.items():
            before = turn.board.breakers.get(target, BreakerRow(target))
            self._keep(turn, before, self._rules.breaker(before, results, turn.now))

    def _keep(self, turn: _Round, before: BreakerRow, after: BreakerRow) -> None:
        if after != before:
            turn.write().execute(
                "INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", after
            )
            turn.board.breakers[after.target] = after

    # --- claiming

    def _serve(self, turn: _Round) -> list[tuple[_Waiting, list[Claimed]]]:
        """Give waiting claims what there is; who finds nothing goes on waiting."""
        served: list[tuple[_Waiting, list[Claimed]]] = []
        still: list[_Waiting] = []
        wake = 0
        for waiting in self._waiting:
            if waiting.future.done():
                if waiting.timer is not None:
                    waiting.timer.cancel()
                continue
            jobs, opens = self._claim(turn, waiting.ask)
            if jobs or not waiting.ask.wait:
                served.append((waiting, jobs))
                continue
            if opens:
                wake = min(wake, opens) if wake else opens
            if waiting.timer is None:
                waiting.timer = self._loop.call_later(
                    waiting.ask.wait / 1000.0, self._give_up, waiting
                )
            still.append(waiting)
        self._waiting = still
        if wake and still:
            if self._wake is not None:
                self._wake.cancel()
            self._wake = self._loop.call_later(max(wake - turn.now, 1) / 1000.0, self._arrange)
        return served

    def nudge(self, worker: str) -> None:
        """See `QueueStore`."""
        for waiting in [one for one in self._waiting if one.ask.worker == worker]:
            self._give_up(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        self._answer(waiting, ())

    def _claim(self, turn: _Round, ask: ClaimAsk) -> tuple[list[Claimed], int]:
        board = turn.board
        lanes = board.with_jobs(ask.queues)
        if not lanes:
            return [], 0
        for lane in lanes:
            breaker = board.breakers.get(lane.target) if lane.target else None
            if breaker is not None:
                self._keep(turn, breaker, self._rules.tick(breaker, turn.now))
            if not lane.head and len(lanes) > 1:
                (lane.head,) = turn.connection.execute(sql.HEAD, (lane.id,)).fetchone()
        rates = dict(board.turns.rates)
        picks, wake = self._rules.pick(
            lanes,
            ask.limit,
            turn.now,
            paused=board.paused,
            breakers=board.breakers,
            running=board.running,
            turns=board.turns,
        )
        if board.turns.rates != rates:
            turn.write().executemany(
                "INSERT OR REPLACE INTO turns VALUES (?, ?)",
                [(k, v) for k, v in board.turns.rates.items() if rates.get(k) != v],
            )
        found: list[tuple[int, Claimed]] = []
        for pick in picks:
            self._take(turn, ask, board.lanes[pick.lane], pick.jobs, found)
        # Within a lane they come in order; among lanes of equal turn the rank decides.
        if len(picks) > 1:
            found.sort(key=lambda one: one[0])
        return [job for _, job in found], wake

    def _take(
        self,
        turn: _Round,
        ask: ClaimAsk,
        lane: Any,
        count: int,
        found: list[tuple[int, Claimed]],
    ) -> None:
        board = turn.board
        until = turn.now + ask.lease
        mono = turn.mono + ask.lease
        breaker = board.breakers.get(lane.target) if lane.target else None
        epoch = breaker.epoch if breaker is not None else 0
        rows = turn.connection.execute(sql.HEADS, (lane.id, count + 1)).fetchall()
        more = rows[count:]
        rows = rows[:count]
        queue, fair_key, target, worker = lane.queue, lane.fair_key, lane.target, ask.worker
        for (
            job, rank, token, attempt, kind, args, priority, run_at, created, most, lost, expires,
            options,
        ) in rows:  # fmt: skip
            found.append(
                (
                    rank,
                    Claimed(
                        job, token + 1, attempt + 1, until, queue, kind, args, priority, run_at,
                        created, most, lost, expires or 0, fair_key, target, options,
                    ),
                )
            )  # fmt: skip
            board.lease(job, lane, Lease(token + 1, worker, lane.id, mono, epoch))
        turn.write().execute(sql.CLAIM, (until, worker, json.dumps([row[0] for row in rows])))
        board.move(lane, JobState.AVAILABLE, JobState.RUNNING, len(rows))
        if more:
            lane.head = more[0][1]

    # --- leases

    def extend(self, worker: str, held: Sequence[Held], lease: int) -> Awaitable[Extended]:
        """See `QueueStore`. Only progress is written: leases are kept in memory.

        After a crash of this process every lease starts anew, so a stored end would mean nothing.
        """

        def do(turn: _Round) -> Extended:
            lost, cancel, reports = [], [], []
            for one in held:
                known = turn.board.leases.get(one.id)
                if known is None or known.token != one.token:
                    lost.append(one.id)
                    continue
                known.worker = worker
                known.until = turn.mono + lease
                if known.cancel:
                    cancel.append(one.id)
                if one.progress:
                    reports.append((one.progress, one.id))
            if reports:
                turn.write().executemany("UPDATE jobs SET progress = ? WHERE id = ?", reports)
            return Extended(lost=tuple(lost), cancel=tuple(cancel))

        return self._soon(do)

    def lose(self, worker: str, ids: Sequence[int], *, why: str) -> Awaitable[int]:
        """See `QueueStore`."""

        def do(turn: _Round) -> int:
            mine = [
                job
                for job in ids
                if (lease := turn.board.leases.get(job)) is not None and lease.worker == worker
            ]
            for job in mine:
                self._lose(turn, job, why)
            return len(mine)

        return self._soon(do)

    def _lose(self, turn: _Round, job: int, why: str) -> None:
        row = query.row(turn.connection, job)
        assert row is not None
        turn.board.let_go(job)
        if row.cancel_requested:
            to = Transition(state=JobState.CANCELLED, reason="user", lost=True)
        else:
            to = self._rules.lost(row, turn.now, why=why)
        self._leave(turn, row, to)

    # --- maintenance

    def maintain(self, limit: int = 1000) -> Awaitable[Maintained]:
        """See `QueueStore`."""
        return self._soon(lambda turn: self._maintain(turn, limit))

    def _maintain(self, turn: _Round, limit: int) -> Maintained:
        board = turn.board
        turn.flush()
        promoted: dict[int, list[int]] = {}
        (due,) = turn.connection.execute(sql.NEXT_DUE).fetchone()
        if due is not None and due <= turn.now:
            for lane_id, rank in turn.write().execute(sql.PROMOTE, (turn.now, limit)).fetchall():
                promoted.setdefault(lane_id, []).append(rank)
        for lane_id, ranks in promoted.items():
            board.move(
                board.lanes[lane_id],
                JobState.SCHEDULED,
                JobState.AVAILABLE,
                len(ranks),
                head=min(ranks),
            )
        late = [job for job, lease in board.leases.items() if lease.until <= turn.mono][:limit]
        for job in late:
            self._lose(turn, job, "lease")
        expired = self._expire(turn, limit)
        pruned = self._prune(turn, limit)
        return Maintained(
            promoted=sum(map(len, promoted.values())),
            lost=len(late),
            expired=expired,
            pruned=pruned,
            next_due=self._next_due(turn),
        )

    def _next_due(self, turn: _Round) -> int:
        moments = [
            turn.now + int(lease.until - turn.mono) + 1 for lease in turn.board.leases.values()
        ]
        moments += [
            moment
            for statement in (sql.NEXT_DUE, sql.NEXT_EXPIRY)
            for (moment,) in turn.connection.execute(statement)
            if moment is not None
        ]
        return min(moments, default=0)

    def _expire(self, turn: _Round, limit: int) -> int:
        rows = turn.connection.execute(sql.EXPIRED, (turn.now, limit)).fetchall()
        if rows:
            self._end(turn, [(job, lane, JobState(state)) for job, lane, state in rows], "expired")
        return len(rows)

    def _end(self, turn: _Round, rows: Sequence[tuple[int, int, JobState]], reason: str) -> None:
        ids = json.dumps([job for job, _, _ in rows])
        turn.write().execute(sql.END, (turn.now, reason, ids))
        for _, lane, state in rows:
            turn.board.move(turn.board.lanes[lane], state, JobState.CANCELLED)

    def _prune(self, turn: _Round, limit: int) -> int:
        pruned = 0
        for state in FINAL:
            age, most = self._rules.keep(state, "")
            oldest = turn.now - age
            kept = sum(n for (_, s), n in turn.board.counts.items() if s is state)
            if kept > most:
                (surplus,) = turn.connection.execute(sql.SURPLUS, (state.value, most)).fetchone()
                oldest = max(oldest, surplus)
            rows = turn.connection.execute(
                sql.OLD, (state.value, oldest, turn.now, limit)
            ).fetchall()
            if rows:
                self._delete(turn, [job for (job,) in rows])
            pruned += len(rows)
        if turn.begun:
            turn.write().execute(
                "DELETE FROM idempotency WHERE created_at <= ?", (turn.now - IDEMPOTENCY,)
            )
        return pruned

    def _delete(self, turn: _Round, ids: Sequence[int]) -> None:
        text = json.dumps(ids)
        connection = turn.write()
        for lane, state, count in connection.execute(
            "SELECT lane, state, count(*) FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
            " GROUP BY lane, state",
            (text,),
        ).fetchall():
            turn.board.move(turn.board.lanes[lane], JobState(state), None, count)
        connection.execute(sql.DELETE, (text,))
        # An id is never given twice, even when the last one is gone.
        connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('last_id', ?)", (turn.board.next_id - 1,)
        )

    # --- what operators do

    def cancel(self, which: Filter, *, reason: str, limit: int) -> Awaitable[int]:
        """See `QueueStore`."""

        def do(turn: _Round) -> int:
            turn.flush()
            rows = query.select(turn.connection, which, limit)
            waiting = [
                (row.id, turn.board.by_key[row.queue, row.fair_key, row.target].id, row.state)
                for row in rows
                if row.state in (JobState.SCHEDULED, JobState.AVAILABLE)
            ]
            if waiting:
                self._end(turn, waiting, reason)
            running = [row.id for row in rows if row.state is JobState.RUNNING]
            for job in running:
                turn.board.leases[job].cancel = True
            if running:
                turn.write().execute(sql.ASK_CANCEL, (json.dumps(running),))
            return len(waiting) + len(running)

        return self._soon(do)

    def requeue(self, which: Filter, *, args: str = "", limit: int) -> Awaitable[Sequence[int]]:
        """See `QueueStore`."""

        def do(turn: _Round) -> Sequence[int]:
            turn.flush()
            done = []
            for row in query.select(turn.connection, which, limit):
                if row.state not in FINAL:
                    continue
                rank = self._rules.rank(row.queue, row.priority, turn.now)
                turn.write().execute(sql.REQUEUE, (turn.now, rank, args or row.args, row.id))
                lane = turn.board.by_key[row.queue, row.fair_key, row.target]
                turn.board.move(lane, row.state, JobState.AVAILABLE, head=rank)
                done.append(row.id)
            return done

        return self._soon(do)

    def purge(self, which: Filter, *, limit: int) -> Awaitable[int]:
        """See `QueueStore`."""

        def do(turn: _Round) -> int:
            turn.flush()
            rows = query.select(turn.connection, which, limit)
            ids = [row.id for row in rows if row.state is not JobState.RUNNING]
            if ids:
                self._delete(turn, ids)
            return len(ids)

        return self._soon(do)

    def pause(self, queue: str, *, paused: bool) -> Awaitable[None]:
        """See `QueueStore`."""

        def do(turn: _Round) -> None:
            if paused:
                turn.write().execute("INSERT OR IGNORE INTO paused VALUES (?)", (queue,))
                turn.board.paused |= {queue}
            else:
                turn.write().execute("DELETE FROM paused WHERE queue = ?", (queue,))
                turn.board.paused -= {queue}

        return self._soon(do)

    async def paused(self) -> frozenset[str]:
        """See `QueueStore`."""
        return self._board.paused

    async def breakers(self) -> Sequence[BreakerRow]:
        """See `QueueStore`."""
        now = self._wall()
        rows = (self._rules.tick(row, now) for row in self._board.breakers.values())
        return sorted(rows, key=lambda row: row.target)

    def set_breaker(self, target: str, state: str) -> Awaitable[BreakerRow]:
        """See `QueueStore`."""

        def do(turn: _Round) -> BreakerRow:
            before = turn.board.breakers.get(target, BreakerRow(target))
            after = before._replace(
                state=state, epoch=before.epoch + 1, trips=0, successes=0, open_until=0,
                buckets="{}", changed_at=turn.now,
            )  # fmt: skip
            self._keep(turn, before, after)
            return after

        return self._soon(do)

    # --- schedules

    def fire(self, claims: Sequence[SlotClaim]) -> Awaitable[Sequence[int]]:
        """See `QueueStore`."""

        def do(turn: _Round) -> Sequence[int]:
            turn.flush()
            fired = []
            for claim in claims:
                connection = turn.write()
                taken = connection.execute(
                    "SELECT 1 FROM slots WHERE schedule = ? AND slot = ?",
                    (claim.schedule, claim.slot),
                ).fetchone()
                if taken is not None:
                    fired.append(0)
                    continue
                (job,) = turn.enqueuing.add((claim.job,), self._rules, bounded=False)
                connection.execute(
                    "INSERT INTO slots VALUES (?, ?, ?)", (claim.schedule, claim.slot, job.id)
                )
                fired.append(job.id)
            return fired

        return self._soon(do)

    async def slots(self) -> Mapping[str, int]:
        """See `QueueStore`."""
        return dict(
            self._connection.execute("SELECT schedule, max(slot) FROM slots GROUP BY schedule")
        )

    # --- looking

    async def get(self, id: int) -> Row | None:
        """See `QueueStore`."""
        return await self._soon(lambda turn: query.row(_looked(turn), id))

    def select(self, which: Filter, limit: int) -> Awaitable[Sequence[Row]]:
        """See `QueueStore`."""
        return self._soon(lambda turn: query.select(_looked(turn), which, limit))

    def dead(self, limit: int) -> Awaitable[Sequence[DeadGroup]]:
        """See `QueueStore`."""
        return self._soon(lambda turn: query.dead(_looked(turn), limit))

    def count(self) -> Awaitable[Sequence[QueueCount]]:
        """See `QueueStore`."""

        def do(turn: _Round) -> Sequence[QueueCount]:
            turn.flush()
            board = turn.board
            return [
                QueueCount(
                    queue,
                    state,
                    count,
                    query.oldest(turn.connection, board, queue)
                    if state is JobState.AVAILABLE
                    else 0,
                )
                for (queue, state), count in sorted(board.counts.items())
                if count
            ]

        return self._soon(do)

    def numbers(self) -> Mapping[str, float]:
        """See `QueueStore`."""
        return {
            "atlasd_queue_commits_total": float(self.commits),
            "atlasd_queue_committed_requests_total": float(self.committed),
        }

    async def close(self) -> None:
        """Finish what was asked, and let go of everybody who waits."""
        if self._work:
            self._commit()
        for waiting in self._waiting:
            self._answer(waiting, ())
        self._waiting = []
        if self._wake is not None:
            self._wake.cancel()
        self._connection.close()


_LATER: Any = object()


def _looked(turn: _Round) -> sqlite3.Connection:
    """The connection, with all of this round in it."""
    turn.flush()
    return turn.connection


def _unusable(path: Path, error: sqlite3.Error) -> AtlasError:
    logging.getLogger(__name__).debug("queue: %s", error)
    return AtlasError(
        "job.store",
        f"the queue {path} cannot be used: {error}",
        hint="nothing was done; check the folder's owner, its file system's free space and the "
        "disk, then try again",
    )
