"""What has to be done from time to time; every host does it, and skips what another is at."""

from collections.abc import Callable

from atlasd.contracts.queue import JOB_FINAL, JobState, Maintained, Rules
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.flight import IDEMPOTENCY
from atlasd_plugins.queue_postgres.leaving import lost
from atlasd_plugins.queue_postgres.link import Transaction
from atlasd_plugins.queue_postgres.query import row_of

PATIENCE = 100
"""A count that took long is repeated when so many times that has passed."""


class Maintenance:
    """The rounds of one host."""

    def __init__(self, rules: Rules, monotonic: Callable[[], float]) -> None:
        self._rules = rules
        self._monotonic = monotonic
        self._count_at = 0.0

    async def round(self, turn: Transaction, limit: int) -> Maintained:
        """One round, in one transaction."""
        ((now,),) = await turn.rows(sql.NOW)
        # A unique key stays with its job while that waits, so that promotion meets no conflict.
        promoted = await turn.rows(sql.PROMOTE, str(now), str(limit))
        late = [row_of(one) for one in await turn.rows(sql.LATE, str(now), str(limit))]
        await lost(turn, self._rules, late, now, why="lease")
        expired = [number for (number,) in await turn.rows(sql.EXPIRED, str(now), str(limit))]
        if expired:
            await turn.rows(sql.END, str(now), "expired", sql.array(expired))
        pruned = await self._prune(turn, now, limit)
        *_, ((due,),) = await turn.ask(
            (sql.FORGET_KEYS, (str(now - IDEMPOTENCY), str(limit))),
            (sql.FORGET_HOSTS, (str(now - IDEMPOTENCY),)),
            (sql.FORGET_RATES, (str(now), str(limit))),
            (sql.NEXT_DUE, ()),
        )
        return Maintained(
            promoted=len(promoted),
            lost=len(late),
            expired=len(expired),
            pruned=pruned,
            next_due=due or 0,
        )

    async def _prune(self, turn: Transaction, now: int, limit: int) -> int:
        """Forget final jobs that are old, and the oldest where there are too many."""
        queues = await turn.rows(sql.QUEUES)
        left = limit
        for (state, number), surplus in (await self._surplus(turn, dict(queues))).items():
            left -= await self._forget(turn, state, now, now, [number], min(left, surplus))
        for state in JOB_FINAL:
            aged: dict[int, list[int]] = {}
            for number, name in queues:
                age, _ = self._rules.keep(state, name)
                aged.setdefault(age, []).append(number)
            for age, numbers in aged.items():
                left -= await self._forget(turn, state, now - age, now, numbers, left)
        return limit - left

    async def _surplus(
        self, turn: Transaction, queues: dict[int, str]
    ) -> dict[tuple[JobState, int], int]:
        """How many more final jobs there are than are kept, by state and queue."""
        began = self._monotonic()
        if began < self._count_at:
            return {}
        counts = await turn.rows(sql.FINAL_COUNTS)
        took = self._monotonic() - began
        self._count_at = began + took * PATIENCE if took > 0.01 else 0.0
        found = {}
        for word, number, count in counts:
            state = JobState(word)
            _, most = self._rules.keep(state, queues.get(number, ""))
            if count > most:
                found[state, number] = count - most
        return found

    async def _forget(
        self,
        turn: Transaction,
        state: JobState,
        before: int,
        now: int,
        queues: list[int],
        limit: int,
    ) -> int:
        if limit <= 0 or not queues:
            return 0
        rows = await turn.rows(
            sql.OLD, state.value, str(before), str(now), sql.array(queues), str(limit)
        )
        if rows:
            await turn.rows(sql.DELETE, sql.array([number for (number,) in rows]))
        return len(rows)
