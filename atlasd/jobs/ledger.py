"""What the rules decided, heard as they decide it: retries, deaths, breakers that moved.

A store asks the rules inside its transaction; should that fail, it asks once more, and what is
counted here is one too many. For a counter and a warning that is near enough.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from atlasd.contracts.queue import BreakerRow, Failure, Row, Transition
from atlasd.jobs.rules import QueueRules
from atlasd.states import JobState

LABELS = 500
"""Pairs of queue and kind, or queue and reason, that are told apart."""
OTHER = "other"


class Died(NamedTuple):
    """One job was given up."""

    fingerprint: str
    queue: str
    kind: str
    reason: str
    job: int
    error: str
    """Type and message of the last failure."""


class Ledger:
    """Counters of one daemon, and who wants to hear at once."""

    def __init__(
        self,
        *,
        died: Callable[[Died], object] = lambda _died: None,
        moved: Callable[[BreakerRow, BreakerRow], object] = lambda _old, _new: None,
    ) -> None:
        """`moved` is told a breaker's old and new row when its state changed."""
        self.retries: dict[tuple[str, str], int] = {}
        """By queue and kind."""
        self.deaths: dict[tuple[str, str], int] = {}
        """By queue and reason."""
        self.trips: dict[str, int] = {}
        """Times that a breaker opened, by target."""
        self._died = died
        self._moved = moved

    def left(self, row: Row, to: Transition) -> None:
        """A job that failed or lost its worker goes to another state."""
        if to.state is JobState.SCHEDULED:
            _count(self.retries, (row.queue, row.kind))
        elif to.state is JobState.DEAD:
            _count(self.deaths, (row.queue, to.reason))
            self._died(
                Died(to.fingerprint, row.queue, row.kind, to.reason, row.id, _last(to.errors))
            )

    def breaker(self, old: BreakerRow, new: BreakerRow) -> None:
        """A breaker heard of results."""
        if new.state == old.state:
            return
        if new.state == "open" and (new.target in self.trips or len(self.trips) < LABELS):
            self.trips[new.target] = self.trips.get(new.target, 0) + 1
        self._moved(old, new)


class HeardRules:
    """Rules that can be exchanged under a store that holds on to them, and tell a ledger."""

    def __init__(self, rules: QueueRules, ledger: Ledger) -> None:
        self.now = rules
        self.ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)

    def failed(self, row: Row, failure: Failure, now: int) -> Transition:
        """See `Rules`."""
        to = self.now.failed(row, failure, now)
        self.ledger.left(row, to)
        return to

    def lost(self, row: Row, now: int, *, why: str) -> Transition:
        """See `Rules`."""
        to = self.now.lost(row, now, why=why)
        self.ledger.left(row, to)
        return to

    def breaker(
        self, row: BreakerRow, results: Sequence[tuple[bool, int, int]], now: int
    ) -> BreakerRow:
        """See `Rules`."""
        new = self.now.breaker(row, results, now)
        self.ledger.breaker(row, new)
        return new


def _count(counts: dict[tuple[str, str], int], key: tuple[str, str]) -> None:
    if key not in counts and len(counts) >= LABELS:
        key = (OTHER, OTHER)
    counts[key] = counts.get(key, 0) + 1


def _last(errors: str) -> str:
    known: Sequence[Mapping[str, Any]] = json.loads(errors) if errors else ()
    if not known:
        return ""
    error, message = known[-1]["error"], known[-1]["message"]
    return f"{error}: {message}" if message else str(error)
