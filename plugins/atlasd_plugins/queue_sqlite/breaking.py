"""Circuit breakers of the SQLite queue: what they hear, and where they are kept."""

from atlasd.contracts.queue import BreakerRow
from atlasd_plugins.queue_sqlite.round import Round


def hear(turn: Round, target: str, *, failed: bool, took: int, epoch: int) -> None:
    """Note a result; `judge` tells the breaker at the end of the round."""
    turn.breakers.setdefault(target, []).append((failed, took, epoch))


def judge(turn: Round) -> None:
    """Let breakers hear of the results of this round."""
    for target, results in turn.breakers.items():
        before = turn.board.breakers.get(target, BreakerRow(target))
        keep(turn, before, turn.rules.breaker(before, results, turn.now))


def keep(turn: Round, before: BreakerRow, after: BreakerRow) -> None:
    """Write a breaker that has changed."""
    if after != before:
        turn.write().execute(
            "INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", after
        )
        turn.board.breakers[after.target] = after


def force(turn: Round, target: str, state: str) -> BreakerRow:
    """Put a breaker into a state; what was counted before is forgotten."""
    before = turn.board.breakers.get(target, BreakerRow(target))
    after = before._replace(
        state=state, epoch=before.epoch + 1, trips=0, successes=0, open_until=0,
        buckets="{}", changed_at=turn.now,
    )  # fmt: skip
    keep(turn, before, after)
    return after
