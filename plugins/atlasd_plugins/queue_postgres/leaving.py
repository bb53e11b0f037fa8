"""Jobs that are taken from a worker that is gone."""

import json
from collections.abc import Sequence

from atlasd.contracts.queue import JobState, Row, Rules, Transition
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.link import Transaction
from atlasd_plugins.queue_postgres.settling import leaving


async def lost(turn: Transaction, rules: Rules, rows: Sequence[Row], now: int, *, why: str) -> None:
    """Write what becomes of these, which this transaction has locked."""
    gone = []
    for row in rows:
        if row.cancel_requested:
            to = Transition(state=JobState.CANCELLED, reason="user", lost=True)
        else:
            to = rules.lost(row, now, why=why)
        gone.append(leaving(row, to, rules, now))
    if gone:
        await turn.rows(sql.LEAVE, json.dumps(gone))
