"""What became of jobs on its way into the PostgreSQL queue, and what their breakers hear."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from atlasd.contracts.queue import (
    JOB_FINAL,
    BreakerRow,
    Failure,
    Finish,
    JobState,
    NewJob,
    Release,
    Row,
    Rules,
    Settlement,
    Transition,
)
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.lanes import Lanes
from atlasd_plugins.queue_postgres.link import Rows, Statement, Transaction
from atlasd_plugins.queue_postgres.query import row_of

Result = tuple[bool, int, int]
"""Of a call: whether it failed, milliseconds, epoch of its breaker at the claim."""


class Settling:
    """The settlements of one transaction."""

    def __init__(self, lanes: Lanes, rules: Rules) -> None:
        self._lanes = lanes
        self._rules = rules
        self._first: dict[tuple[int, int], Settlement] = {}
        self._done: set[tuple[int, int]] = set()
        self._finishes: list[Finish] = []
        self._others: list[Failure | Release] = []
        self._leaving: list[list[Any]] = []
        self.results: dict[str, list[Result]] = {}
        """Of calls, by target."""

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Take note of them; of two that say different things of a claim, the first counts."""
        for one in settlements:
            if self._first.setdefault((one.id, one.token), one) is one:
                if isinstance(one, Finish):
                    self._finishes.append(one)
                else:
                    self._others.append(one)

    def held(self, one: Settlement) -> bool:
        """Whether its lease was held, once it was settled."""
        key = (one.id, one.token)
        return key in self._done and self._first[key] is one

    def first(self) -> list[Statement]:
        """Statements to begin with; `take` is given their rows."""
        todo: list[Statement] = []
        if self._finishes:
            ids = sql.array([one.id for one in self._finishes])
            tokens = sql.array([one.token for one in self._finishes])
            todo.append((sql.FINISH, (ids, tokens)))
        if self._others:
            todo.append((sql.HELD_ROWS, (sql.array([one.id for one in self._others]),)))
        return todo

    async def take(self, turn: Transaction, answers: Sequence[Rows], now: int) -> None:
        """Decide by the rows that `first` has brought."""
        found = iter(answers)
        if self._finishes:
            await self._finished(turn, next(found))
        if self._others:
            rows = {row.id: row for row in map(row_of, next(found))}
            epochs = await self._epochs(turn, rows)
            for one in self._others:
                row = rows.get(one.id)
                if row is not None and row.token == one.token:
                    self._done.add((one.id, one.token))
                    self._left(one, row, epochs, now)

    async def _finished(self, turn: Transaction, answer: Rows) -> None:
        held = {number: (lane, epoch) for number, lane, epoch in answer}
        await self._lanes.know(turn, (lane for _, lane, _ in answer))
        for one in self._finishes:
            known = held.pop(one.id, None)
            if known is None:
                continue
            self._done.add((one.id, one.token))
            target = self._lanes.by_id[known[0]].target
            if target:
                self.results.setdefault(target, []).append((False, one.took, known[1]))

    async def _epochs(self, turn: Transaction, rows: Mapping[int, Row]) -> Mapping[int, int]:
        ids = [row.id for row in rows.values() if row.target]
        if not ids:
            return {}
        return dict(await turn.rows(sql.EPOCHS, sql.array(ids)))

    def _left(self, one: Failure | Release, row: Row, epochs: Mapping[int, int], now: int) -> None:
        if isinstance(one, Failure):
            self._leaving.append(leaving(row, self._rules.failed(row, one, now), self._rules, now))
            if row.target and one.verdict == "target":
                self.results.setdefault(row.target, []).append((True, one.took, epochs[row.id]))
            return
        if row.cancel_requested:
            # Nobody runs it any longer, which is what was asked for.
            to = Transition(state=JobState.CANCELLED, reason="user", attempt_back=True)
        elif one.delay:
            to = Transition(state=JobState.SCHEDULED, run_at=now + one.delay, attempt_back=True)
        else:
            to = Transition(state=JobState.AVAILABLE, attempt_back=True)
        self._leaving.append(leaving(row, to, self._rules, now))

    def then(self) -> list[NewJob]:
        """The jobs that come after those that have finished."""
        return [job for one in self._finishes if one.then and self.held(one) for job in one.then]

    def last(self) -> list[Statement]:
        """Statements that write the rest."""
        todo: list[Statement] = []
        results = [(one.id, one.result) for one in self._finishes if one.result and self.held(one)]
        if results:
            todo.append((sql.RESULTS, (json.dumps(results),)))
        if self._leaving:
            todo.append((sql.LEAVE, (json.dumps(self._leaving),)))
        return todo

    def released(self) -> bool:
        """Whether a job that was held is available again."""
        return any(one[1] == JobState.AVAILABLE.value for one in self._leaving)


def leaving(row: Row, to: Transition, rules: Rules, now: int) -> list[Any]:
    """What `sql.LEAVE` takes of a job that is held no longer."""
    run_at = to.run_at or row.run_at
    return [
        row.id, to.state.value, run_at, rules.rank(row.queue, row.priority, run_at),
        now if to.state in JOB_FINAL else None, to.reason, to.errors or row.errors,
        to.fingerprint or row.fingerprint, int(to.lost), int(to.attempt_back),
    ]  # fmt: skip


class Breakers:
    """The breakers that one transaction has locked, and what became of them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._before: dict[str, BreakerRow] = {}
        self.now: dict[str, BreakerRow] = {}

    async def judge(
        self, turn: Transaction, results: Mapping[str, Sequence[Result]], now: int
    ) -> None:
        """Let them hear of these results."""
        if not results:
            return
        names = json.dumps(sorted(results))
        _, rows = await turn.ask((sql.ADD_BREAKERS, (names,)), (sql.LOCK_BREAKERS, (names,)))
        self._locked(rows)
        for target, of_it in results.items():
            self.now[target] = self._rules.breaker(self.now[target], of_it, now)

    async def gates(self, turn: Transaction, targets: set[str], now: int) -> None:
        """Know the breakers of these targets; those that may let probes out are locked."""
        missing = targets - self.now.keys()
        if not missing:
            return
        rows = await turn.rows(sql.BREAKERS_OF, json.dumps(sorted(missing)))
        ready = []
        for row in map(BreakerRow._make, rows):
            if row.state == "half_open" or self._rules.tick(row, now) != row:
                ready.append(row.target)
            else:
                self.now[row.target] = self._before[row.target] = row
        if ready:
            self._locked(await turn.rows(sql.LOCK_BREAKERS, json.dumps(sorted(ready))))
            for target in ready:
                self.now[target] = self._rules.tick(self.now[target], now)

    def _locked(self, rows: Rows) -> None:
        for row in map(BreakerRow._make, rows):
            self.now[row.target] = self._before[row.target] = row

    def last(self) -> list[Statement]:
        """Statements that write what has changed, each only onto the epoch that it came from."""
        return [
            keeping(self._before[target].epoch, row)
            for target, row in self.now.items()
            if row != self._before[target]
        ]


def keeping(epoch: int, row: BreakerRow) -> Statement:
    """The statement that replaces a breaker of this epoch."""
    return (
        sql.KEEP_BREAKER,
        (
            row.target, str(epoch), row.state, str(row.epoch), str(row.open_until),
            str(row.trips), str(row.successes), row.buckets, str(row.changed_at),
        ),
    )  # fmt: skip
