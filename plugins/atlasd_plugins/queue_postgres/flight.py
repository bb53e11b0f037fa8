"""One transaction with everything that waited for it: settlements, new jobs, heartbeats, claims.

It takes two round trips as a rule: one that settles and looks round, and one that writes the rest,
claims and commits. Limits, unique keys and breakers cost a trip more each, only where there are
any.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from atlasd.contracts.queue import (
    ClaimAsk,
    Claimed,
    Enqueued,
    Extended,
    Held,
    JobState,
    NewJob,
    Rules,
    Settlement,
)
from atlasd.errors import AtlasError
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.claiming import Claiming, Turn
from atlasd_plugins.queue_postgres.enqueuing import Enqueuing
from atlasd_plugins.queue_postgres.lanes import Lanes, Numbers
from atlasd_plugins.queue_postgres.link import Rows, Statement, Transaction
from atlasd_plugins.queue_postgres.room import Room
from atlasd_plugins.queue_postgres.settling import Breakers, Settling

IDEMPOTENCY = 86_400_000
"""Milliseconds that the answer to an idempotency key is remembered."""


@dataclass(slots=True, eq=False)
class Enqueue:
    """New jobs, and who waits for their numbers."""

    jobs: Sequence[NewJob]
    key: str
    future: "asyncio.Future[Sequence[Enqueued]]"


@dataclass(slots=True, eq=False)
class Exchange:
    """Settlements; a claim that came with them waits in `Waiting` from when they are done."""

    settlements: Sequence[Settlement]
    ask: ClaimAsk | None
    future: "asyncio.Future[tuple[Sequence[bool], Sequence[Claimed]]]"


@dataclass(slots=True, eq=False)
class Extend:
    """A heartbeat."""

    worker: str
    held: Sequence[Held]
    lease: int
    future: "asyncio.Future[Extended]"


Request = Enqueue | Exchange | Extend


@dataclass(slots=True)
class Landed:
    """What a flight has done, once it is committed."""

    answers: list[tuple[Any, Any]] = field(default_factory=list)
    """Futures, and their results or errors."""
    held: list[list[bool]] = field(default_factory=list)
    """Of each exchange, in order."""
    claimed: list[list[Claimed]] = field(default_factory=list)
    """Of each ask."""
    now: int = 0
    seconds: float = 0.0
    """That the commit took, with what was written and claimed in the same round trip."""
    wake: int = 0
    left: bool = False
    """Whether jobs are available that nobody here has claimed."""
    freed: bool = False
    """Whether jobs that were held are available again."""
    missed: bool = False
    """Whether a claim came out with less than it was to have: another host was quicker."""


class Flight:
    """Everything of one transaction; begun anew, it is made anew."""

    def __init__(
        self,
        work: Sequence[Request],
        asks: Sequence[ClaimAsk],
        *,
        lanes: Lanes,
        numbers: Numbers,
        rules: Rules,
        turn: Turn,
        room: Room,
    ) -> None:
        self._enqueues = [one for one in work if isinstance(one, Enqueue)]
        self._exchanges = [one for one in work if isinstance(one, Exchange)]
        self._extends = [one for one in work if isinstance(one, Extend)]
        self._busy = bool(work)
        self._rules = rules
        self._numbers = numbers
        self._room = room
        self._settling = Settling(lanes, rules)
        for one in self._exchanges:
            self._settling.add(one.settlements)
        self._enqueuing = Enqueuing(lanes, numbers, rules)
        self._breakers = Breakers(rules)
        self._claiming = Claiming(lanes, rules, turn, self._breakers, asks)
        self._last: list[Statement] = []
        self._number = ""
        """The server's for this transaction."""

    async def run(self, turn: Transaction) -> Landed:
        """All of it."""
        landed = Landed()
        settle, beats = self._settling.first(), self._beats()
        look = self._claiming.first()
        keys = [
            (sql.IDEMPOTENCY, (key, str(IDEMPOTENCY)))
            for key in sorted({one.key for one in self._enqueues if one.key})
        ]
        (clock, *rows) = await turn.ask((sql.BEGUN, ()), *settle, *beats, *look, *keys)
        ((now, self._number),) = clock
        landed.now = now
        await self._settling.take(turn, rows[: len(settle)], now)
        rows = rows[len(settle) :]
        landed.answers += self._beaten(rows[: len(beats)])
        rows = rows[len(beats) :]
        heads, fresh_keys = (rows[0], rows[1:]) if look else ([], rows)
        await self._enqueue(turn, landed, [bool(one) for one in fresh_keys], now)
        await self._breakers.judge(turn, self._settling.results, now)
        await self._enqueuing.write(turn, now)
        claims = await self._claiming.decide(turn, heads, self._enqueuing.fresh, now)
        before = [
            *self._settling.last(), *self._last, *self._enqueuing.rest(now),
            *self._breakers.last(),
        ]  # fmt: skip
        if not (self._busy or before or claims):
            await turn.undo()
            landed.claimed = self._claiming.claimed(())
            return landed
        began = perf_counter()
        done = await turn.commit(*before, *claims)
        landed.seconds = perf_counter() - began
        if done is None:
            answers = await self._claiming.again(turn, self._number)
        else:
            answers = done[len(before) :]
        landed.claimed = self._claiming.claimed(answers)
        self._tell(landed)
        return landed

    def _tell(self, landed: Landed) -> None:
        landed.held = [
            [self._settling.held(settled) for settled in one.settlements] for one in self._exchanges
        ]
        landed.wake = self._claiming.wake
        claimed = sum(map(len, landed.claimed))
        fresh = sum(count for count, _ in self._enqueuing.fresh.values())
        landed.freed = self._settling.released()
        landed.left = landed.freed or fresh > claimed
        landed.missed = bool(self._claiming.takes) and not claimed

    # --- heartbeats

    def _beats(self) -> list[Statement]:
        todo: list[Statement] = []
        for one in self._extends:
            ids = sql.array([held.id for held in one.held])
            tokens = sql.array([held.token for held in one.held])
            todo.append((sql.EXTEND, (ids, tokens, str(one.lease), one.worker)))
            reports = [(held.id, held.token, held.progress) for held in one.held if held.progress]
            if reports:
                self._last.append((sql.PROGRESS, (json.dumps(reports),)))
        return todo

    def _beaten(self, answers: Sequence[Rows]) -> list[tuple[Any, Any]]:
        done = []
        for one, rows in zip(self._extends, answers, strict=True):
            known: dict[int, bool] = dict(rows)
            extended = Extended(
                lost=tuple(held.id for held in one.held if held.id not in known),
                cancel=tuple(held.id for held in one.held if known.get(held.id)),
            )
            done.append((one.future, extended))
        return done

    # --- new jobs

    async def _enqueue(
        self, turn: Transaction, landed: Landed, fresh: Sequence[bool], now: int
    ) -> None:
        then = self._settling.then()
        count = sum(len(one.jobs) for one in self._enqueues) + len(then)
        if not self._enqueues and not then:
            return
        await self._numbers.reserve(turn.ask, count)
        if then:
            await self._enqueuing.add(turn, then, now)
        await self._room.look(turn, self._enqueues)
        keys = sorted({one.key for one in self._enqueues if one.key})
        first = {key for key, new in zip(keys, fresh, strict=True) if new}
        given: dict[str, Any] = {}
        for one in self._enqueues:
            if one.key and one.key not in first:
                if one.key not in given:
                    ((answer,),) = await turn.rows(sql.IDEMPOTENT_ANSWER, one.key)
                    given[one.key] = [Enqueued(i, JobState(s), o) for i, s, o in json.loads(answer)]
                landed.answers.append((one.future, given[one.key]))
                continue
            try:
                self._room.take(one.jobs)
            except AtlasError as error:
                landed.answers.append((one.future, error))
                if one.key:
                    self._last.append((sql.FORGET_KEY, (one.key,)))
                continue
            done = await self._enqueuing.add(turn, one.jobs, now)
            landed.answers.append((one.future, done))
            if one.key:
                # Another request of this very transaction may have the same key.
                first.discard(one.key)
                given[one.key] = done
                self._last.append((sql.KEEP_ANSWER, (one.key, json.dumps(done))))
