"""Jobs that are taken from a worker that is gone."""

import json
from collections.abc import Sequence

from atlasd.contracts.queue import Row, Rules
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.link import Transaction
from atlasd_plugins.queue_postgres.settling import leaving


async def lost(turn: Transaction, rules: Rules, rows: Sequence[Row], now: int, *, why: str) -> None:
    """Write what becomes of these, which this transaction has locked."""
    gone = [leaving(row, rules.lost(row, now, why=why), rules, now) for row in rows]
    if gone:
        await turn.rows(sql.LEAVE, json.dumps(gone))
