"""What has to be done from time to time; every host does it, and skips what another is at."""

from atlasd.contracts.queue import JobState, Maintained, Rules
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.flight import IDEMPOTENCY
from atlasd_plugins.queue_postgres.leaving import lost
from atlasd_plugins.queue_postgres.link import Transaction
from atlasd_plugins.queue_postgres.query import row_of
from atlasd_plugins.queue_postgres.settling import FINAL

AT_LEAST_EVERY = 5_000
"""Milliseconds between two rounds: another host's jobs may be due, and that host be gone."""


async def maintain(turn: Transaction, rules: Rules, limit: int) -> Maintained:
    """One round, in one transaction."""
    ((now,),) = await turn.rows(sql.NOW)
    # A unique key stays with its job while that waits, so that promotion can meet no conflict.
    promoted = await turn.rows(sql.PROMOTE, str(now), str(limit))
    late = [row_of(one) for one in await turn.rows(sql.LATE, str(now), str(limit))]
    await lost(turn, rules, late, now, why="lease")
    expired = [number for (number,) in await turn.rows(sql.EXPIRED, str(now), str(limit))]
    if expired:
        await turn.rows(sql.END, str(now), "expired", sql.array(expired))
    pruned = 0
    for state in FINAL:
        pruned += await _prune(turn, rules, state, now, limit)
    await turn.ask(
        (sql.FORGET_KEYS, (str(now - IDEMPOTENCY), str(limit))),
        (sql.FORGET_RATES, (str(now), str(limit))),
    )
    ((due,),) = await turn.rows(sql.NEXT_DUE)
    soon = now + AT_LEAST_EVERY
    return Maintained(
        promoted=len(promoted),
        lost=len(late),
        expired=len(expired),
        pruned=pruned,
        next_due=min(due + 1, soon) if due is not None else soon,
    )


async def _prune(turn: Transaction, rules: Rules, state: JobState, now: int, limit: int) -> int:
    age, most = rules.keep(state, "")
    oldest = now - age
    surplus = await turn.rows(sql.SURPLUS, state.value, str(most))
    if surplus:
        oldest = max(oldest, surplus[0][0])
    rows = await turn.rows(sql.OLD, state.value, str(oldest), str(now), str(limit))
    if rows:
        await turn.rows(sql.DELETE, sql.array([number for (number,) in rows]))
    return len(rows)
