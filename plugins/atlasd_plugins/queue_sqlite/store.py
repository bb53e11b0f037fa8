"""The SQLite queue: each promise of a store, as something to do in the next transaction.

What is done is in the module that it belongs to: `enqueuing`, `claiming`, `settling` (with leases),
`maintenance`, `operating`, `breaking`, `schedules`, `query`; `commits` makes transactions of it.
"""

import sqlite3
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path

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
    Maintained,
    NewJob,
    QueueCount,
    Row,
    Rules,
    ScheduleRow,
    Settlement,
    Slot,
    SlotClaim,
)
from atlasd_plugins.queue_sqlite import (
    breaking,
    enqueuing,
    maintenance,
    operating,
    query,
    schedules,
    settling,
)
from atlasd_plugins.queue_sqlite.commits import GroupCommit
from atlasd_plugins.queue_sqlite.round import Round


class SqliteQueue:
    """See `atlasd.contracts.queue.QueueStore`."""

    durable = "power loss"

    def __init__(
        self, path: Path, connection: sqlite3.Connection, context: PluginContext, rules: Rules
    ) -> None:
        self.group = GroupCommit(path, connection, context, rules)
        self._rules = rules

    async def now(self) -> int:
        """See `QueueStore`."""
        return self.group.wall()

    # --- producers and workers

    def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Awaitable[Sequence[Enqueued]]:
        """See `QueueStore`."""
        rules = self._rules

        def do(turn: Round) -> Sequence[Enqueued]:
            if idempotency_key:
                return enqueuing.once(turn, jobs, idempotency_key)
            return turn.enqueuing.add(jobs, rules)

        return self.group.soon(do)

    def exchange(
        self, settlements: Sequence[Settlement], ask: ClaimAsk | None
    ) -> Awaitable[tuple[Sequence[bool], Sequence[Claimed]]]:
        """See `QueueStore`."""
        return self.group.exchange(settlements, ask)

    def nudge(self, worker: str) -> None:
        """See `QueueStore`."""
        self.group.nudge(worker)

    def extend(self, worker: str, held: Sequence[Held], lease: int) -> Awaitable[Extended]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: settling.extend(turn, worker, held, lease))

    def lose(self, worker: str, ids: Sequence[int], *, why: str) -> Awaitable[int]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: settling.lose(turn, worker, ids, why))

    # --- time

    def maintain(self, limit: int = 1000) -> Awaitable[Maintained]:
        """See `QueueStore`."""
        prove = self.group.doubtful
        return self.group.soon(lambda turn: maintenance.maintain(turn, limit, prove=prove))

    def fire(self, claims: Sequence[SlotClaim]) -> Awaitable[Sequence[int]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: schedules.fire(turn, claims))

    def schedules(self) -> Awaitable[Sequence[ScheduleRow]]:
        """See `QueueStore`."""
        return self.group.soon(schedules.rows)

    def keep_schedules(
        self, digests: Mapping[str, str], *, gone: Sequence[str] = ()
    ) -> Awaitable[Sequence[ScheduleRow]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: schedules.keep(turn, digests, gone))

    def pause_schedule(self, schedule: str, *, paused: bool) -> Awaitable[None]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: schedules.pause(turn, schedule, paused=paused))

    def slots(self, schedule: str, limit: int) -> Awaitable[Sequence[Slot]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: schedules.slots(turn, schedule, limit))

    # --- operators

    def cancel(self, which: Filter, *, reason: str, limit: int) -> Awaitable[int]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: operating.cancel(turn, which, reason, limit))

    def requeue(self, which: Filter, *, args: str = "", limit: int) -> Awaitable[Sequence[int]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: operating.requeue(turn, which, args, limit))

    def edit(self, id: int, *, args: str) -> Awaitable[bool]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: operating.edit(turn, id, args))

    def restore(self, rows: Sequence[Row]) -> Awaitable[Sequence[int]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: operating.restore(turn, rows))

    def purge(self, which: Filter, *, limit: int) -> Awaitable[int]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: operating.purge(turn, which, limit))

    def pause(self, queue: str, *, paused: bool) -> Awaitable[None]:
        """See `QueueStore`."""
        do = operating.pause if paused else operating.resume
        return self.group.soon(lambda turn: do(turn, queue))

    async def paused(self) -> frozenset[str]:
        """See `QueueStore`."""
        return self.group.board.paused

    async def breakers(self) -> Sequence[BreakerRow]:
        """See `QueueStore`."""
        now = self.group.wall()
        rows = (self._rules.tick(row, now) for row in self.group.board.breakers.values())
        return sorted(rows, key=lambda row: row.target)

    def set_breaker(self, target: str, state: str) -> Awaitable[BreakerRow]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: breaking.force(turn, target, state))

    # --- looking

    def get(self, id: int) -> Awaitable[Row | None]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: query.row(turn, id))

    def select(self, which: Filter, limit: int) -> Awaitable[Sequence[Row]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: query.select(turn, which, limit))

    def dead(self, limit: int) -> Awaitable[Sequence[DeadGroup]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: query.dead(turn.looked(), limit))

    def ahead(self, id: int, limit: int) -> Awaitable[int]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: query.ahead(turn.looked(), id, limit))

    def count(self) -> Awaitable[Sequence[QueueCount]]:
        """See `QueueStore`."""
        return self.group.soon(lambda turn: query.counts(turn.looked(), turn.board))

    def numbers(self) -> Mapping[str, float | Distribution]:
        """See `QueueStore`."""
        return self.group.tally.numbers()

    async def close(self) -> None:
        """Finish what was asked, and let go of everybody who waits."""
        self.group.close()
