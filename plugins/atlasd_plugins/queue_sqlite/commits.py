"""Group commit: what waits at the same time shares one transaction and one fsync.

The connection is used in the loop itself. A writer thread would cost a third of the throughput (two
hand-overs a commit); the job engine has a loop of its own instead, so that nobody else waits for
the disk.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, TypeVar

from atlasd.contracts.commits import Tally
from atlasd.contracts.context import PluginContext
from atlasd.contracts.queue import ClaimAsk, Claimed, Rules, Settlement
from atlasd.errors import AtlasError
from atlasd_plugins.queue_sqlite import breaking, claiming, settling
from atlasd_plugins.queue_sqlite.board import Board
from atlasd_plugins.queue_sqlite.round import Round
from atlasd_plugins.queue_sqlite.trouble import trouble_of

T = TypeVar("T")
_log = logging.getLogger("atlasd.jobs")
Exchanged = tuple[Sequence[bool], Sequence[Claimed]]


class _Work(Generic[T]):
    """Something that is done in the next transaction, and the future that hears of it."""

    __slots__ = ("do", "future")

    def __init__(self, do: "Callable[[Round], T]", future: "asyncio.Future[T]") -> None:
        self.do = do
        self.future = future


class _Waiting:
    """A claim that found nothing yet."""

    __slots__ = ("ask", "future", "held", "timer")

    def __init__(
        self, ask: ClaimAsk, held: Sequence[bool], future: "asyncio.Future[Exchanged]"
    ) -> None:
        self.ask = ask
        self.held = held
        self.future = future
        self.timer: asyncio.TimerHandle | None = None


class GroupCommit:
    """Gathers requests, commits them together, and serves claims from what each commit leaves."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, context: PluginContext, rules: Rules
    ) -> None:
        self.connection = connection
        self._path = path
        self._clock = context.clock
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self.board = Board.load(connection, self._mono(), rules.lease())
        self._work: list[_Work[Any]] = []
        self._waiting: list[_Waiting] = []
        self._scheduled = False
        self._wake: asyncio.TimerHandle | None = None
        self.broken = False
        """Whether a transaction failed: memory is read anew before the next."""
        self.doubtful = False
        """Whether the database or the disk refused something, and nothing was written since."""
        self.tally = Tally()

    def _mono(self) -> float:
        # To the microsecond: what sums of fractions lack would keep a lease for a moment longer.
        return round(self._clock.monotonic() * 1000.0, 3)

    def wall(self) -> int:
        """The clock, in milliseconds since the epoch."""
        return round(self._clock.wall() * 1000.0)

    # --- requests

    def soon(self, do: Callable[[Round], T]) -> "asyncio.Future[T]":
        """Have something done in the next transaction."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.append(_Work(do, future))
        self._arrange()
        return future

    def exchange(
        self, settlements: Sequence[Settlement], ask: ClaimAsk | None
    ) -> "asyncio.Future[Exchanged]":
        """Settle jobs in the next transaction, and claim at its end or when there are jobs."""
        future: asyncio.Future[Exchanged] = self._loop.create_future()

        def do(turn: Round) -> Any:
            held = settling.settle(turn, settlements)
            if ask is None or ask.limit <= 0:
                return held, ()
            # Claims have their turn when all has been settled and enqueued that came with them.
            self._waiting.append(_Waiting(ask, held, future))
            return _LATER

        self._work.append(_Work(do, future))
        self._arrange()
        return future

    def _arrange(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # Everything that arrives in this turn of the loop comes along.
            self._loop.call_soon(self._commit)

    # --- the transaction

    def _commit(self) -> None:
        self._scheduled = False
        work, self._work = self._work, []
        self._do(work)

    def _do(self, work: Sequence[_Work[Any]]) -> None:
        """Do all of `work` in one transaction, and tell everybody what came of it."""
        done: list[tuple[asyncio.Future[Any], Any, AtlasError | None]] = []
        claimed: list[tuple[_Waiting, list[Claimed]]] = []
        try:
            self._transact(work, done, claimed)
        except Exception as error:  # noqa: BLE001  each is told to whom it belongs
            self._undo()
            # Who had been waiting since before has lost nothing, and waits on.
            new = {one.future for one in work}
            before = [*self._waiting, *(waiting for waiting, _ in claimed)]
            self._waiting = [waiting for waiting in before if waiting.future not in new]
            self._failed(work, error)
            return
        for waiting, jobs in claimed:
            _answer(waiting, jobs)
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
        if self.broken:
            self.board = Board.load(self.connection, self._mono(), self._rules.lease(), self.board)
            self.broken = False
        turn = Round(self.connection, self.board, self._rules, self.wall(), self._mono())
        for one in work:
            if one.future.done():
                continue  # nobody waits for it any more, and nothing was done
            try:
                done.append((one.future, one.do(turn), None))
            except AtlasError as error:
                done.append((one.future, None, error))
        turn.flush()
        breaking.judge(turn)
        claimed += self._serve(turn)
        if turn.begun:
            began = perf_counter()
            self.connection.execute("COMMIT")
            self.doubtful = False
            self.tally.committed(len(work), perf_counter() - began)

    def _failed(self, work: Sequence[_Work[Any]], error: Exception) -> None:
        """A transaction was taken back: for all, or one request is to blame and fails alone."""
        trouble = trouble_of(self._path, error)
        self.doubtful |= trouble is not None
        if trouble is None and len(work) > 1:
            for one in work:
                self._do([one])
            return
        for one in work:
            if not one.future.done():
                one.future.set_exception(trouble or error)
        if not work:
            _log.error("%s", trouble.message if trouble else repr(error))

    def _undo(self) -> None:
        """Forget a transaction, and what memory took from it: it is read anew next time."""
        self.broken = True
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    # --- claims that wait

    def _serve(self, turn: Round) -> list[tuple[_Waiting, list[Claimed]]]:
        """Give waiting claims what there is; who finds nothing goes on waiting."""
        served: list[tuple[_Waiting, list[Claimed]]] = []
        still: list[_Waiting] = []
        wake = 0
        for waiting in self._waiting:
            if waiting.future.done():
                if waiting.timer is not None:
                    waiting.timer.cancel()
                continue
            jobs, opens = claiming.claim(turn, waiting.ask)
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
        """Answer the waiting claims of a worker, also those of this turn of the loop."""
        if self._scheduled:
            self._loop.call_soon(self._nudge, worker)
        self._nudge(worker)

    def _nudge(self, worker: str) -> None:
        for waiting in [one for one in self._waiting if one.ask.worker == worker]:
            self._give_up(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        _answer(waiting, ())

    def close(self) -> None:
        """Finish what was asked, and let go of everybody who waits."""
        if self._work:
            self._commit()
        for waiting in self._waiting:
            _answer(waiting, ())
        self._waiting = []
        if self._wake is not None:
            self._wake.cancel()
        self.connection.close()


_LATER: Any = object()


def _answer(waiting: _Waiting, jobs: Sequence[Claimed]) -> None:
    if waiting.timer is not None:
        waiting.timer.cancel()
    if not waiting.future.done():
        waiting.future.set_result((waiting.held, jobs))
