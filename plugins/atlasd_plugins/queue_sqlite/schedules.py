"""Slots of schedules: each is fired once."""

import sqlite3
from collections.abc import Mapping, Sequence

from atlasd.contracts.queue import SlotClaim
from atlasd_plugins.queue_sqlite.round import Round


def fire(turn: Round, claims: Sequence[SlotClaim]) -> Sequence[int]:
    """Enqueue the jobs of slots that nobody has claimed; their ids, 0 for the others."""
    turn.flush()
    fired = []
    for claim in claims:
        connection = turn.write()
        taken = connection.execute(
            "SELECT 1 FROM slots WHERE schedule = ? AND slot = ?", (claim.schedule, claim.slot)
        ).fetchone()
        if taken is not None:
            fired.append(0)
            continue
        (job,) = turn.enqueuing.add((claim.job,), turn.rules, bounded=False)
        connection.execute(
            "INSERT INTO slots VALUES (?, ?, ?)", (claim.schedule, claim.slot, job.id)
        )
        fired.append(job.id)
    return fired


def last(connection: sqlite3.Connection) -> Mapping[str, int]:
    """The last claimed slot of each schedule."""
    return dict(connection.execute("SELECT schedule, max(slot) FROM slots GROUP BY schedule"))
