"""Jobs on their way out of the PostgreSQL queue: whose turn it is, and their leases.

Lanes without limits are claimed by all hosts at once; who comes second skips what is locked. What
has to be exact across hosts (concurrency, rates, probes of breakers) is decided while the queue's
or the breaker's row is locked. Shares of fair keys are even on each host, so they are in the sum.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from atlasd.contracts.queue import ClaimAsk, Claimed, Lane, Rules, Turns
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.lanes import Lanes
from atlasd_plugins.queue_postgres.link import Rows, Statement, Transaction
from atlasd_plugins.queue_postgres.settling import Breakers

COUNTED = 4_000
"""Jobs of all lanes together that are counted at most, as a rule."""


class Take(NamedTuple):
    """A claim from one lane, and who asked."""

    ask: int
    lane: Lane
    until: int


class Turn:
    """What one host remembers of whose turn it was."""

    def __init__(self) -> None:
        self.virtual = 0.0
        self.lanes_seen = 1

    def depth(self, wanted: int) -> int:
        """How far the jobs of each lane are worth counting."""
        seen = self.lanes_seen
        if seen <= 1:
            return 1
        return wanted if seen * wanted <= COUNTED else max(4, COUNTED // seen, 2 * wanted // seen)


class Claiming:
    """The claims of one transaction."""

    def __init__(
        self, lanes: Lanes, rules: Rules, turn: Turn, breakers: Breakers, asks: Sequence[ClaimAsk]
    ) -> None:
        self._lanes = lanes
        self._rules = rules
        self._turn = turn
        self._breakers = breakers
        self._asks = asks
        self._wanted = min(sum(ask.limit for ask in asks), 10_000)
        self._queues = sorted({queue for ask in asks for queue in ask.queues})
        self._running: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._numbers: dict[str, int] = {}
        """Of the queues that are locked."""
        self.takes: list[Take] = []
        self.wake = 0
        """When a shut gate opens by itself; 0: unknown."""

    def first(self) -> list[Statement]:
        """The statement that finds lanes with jobs."""
        if not self._asks:
            return []
        depth = self._turn.depth(self._wanted)
        return [(sql.HEADS, (json.dumps(self._queues), str(depth)))]

    async def decide(
        self, turn: Transaction, heads: Rows, fresh: Mapping[int, Sequence[int]], now: int
    ) -> list[Statement]:
        """The statements that claim; `fresh` are jobs of this transaction, by lane."""
        if len(heads) > 1 and self._turn.lanes_seen <= 1:
            # They were thought to be one, of which nobody needs to know how many jobs it has.
            self._turn.lanes_seen = len(heads)
            (heads,) = await turn.ask(*self.first())
        await self._lanes.know(turn, (lane for lane, _, _ in heads))
        lanes = self._with_jobs(heads, fresh)
        if not lanes:
            return []
        targets = {lane.target for lane in lanes if lane.target}
        if targets:
            await self._breakers.gates(turn, targets, now)
            await self._count_probes(turn, targets)
        await self._count(turn, lanes)
        todo: list[Statement] = []
        turns = Turns(virtual=self._turn.virtual, rates=dict(self._rates))
        for number, ask in enumerate(self._asks):
            todo += self._pick(number, ask, lanes, turns, now)
        self._turn.virtual = turns.virtual
        changed = [
            (self._numbers[key.split("/", 1)[0]], key, value)
            for key, value in turns.rates.items()
            if self._rates.get(key) != value
        ]
        if changed:
            todo.append((sql.KEEP_RATES, (json.dumps(changed),)))
        return todo

    def _with_jobs(self, heads: Rows, fresh: Mapping[int, Sequence[int]]) -> list[Lane]:
        found: dict[int, Lane] = {}
        for number, rank, jobs in heads:
            lane = found[number] = self._lanes.by_id[number]
            lane.head, lane.available = rank, jobs
        for number, (jobs, rank) in fresh.items():
            lane = self._lanes.by_id[number]
            if number in found:
                lane.head, lane.available = min(lane.head, rank), lane.available + jobs
            elif lane.queue in self._queues:
                found[number] = lane
                lane.head, lane.available = rank, jobs
        self._turn.lanes_seen = len(found)
        if len(found) == 1 and heads:
            # Nothing depends on how many there are.
            (lane,) = found.values()
            lane.available = max(lane.available, self._wanted)
        return list(found.values())

    async def _count(self, turn: Transaction, lanes: Sequence[Lane]) -> None:
        """Lock the queues that have limits, and read what is used of them."""
        names = {lane.queue: self._rules.limits(lane.queue) for lane in lanes}
        limited = sorted(
            name
            for name, one in names.items()
            if one.concurrency or one.key_concurrency or one.rate or one.key_rate
        )
        if not limited:
            return
        text = json.dumps(limited)
        locked = await turn.rows(sql.LOCK_QUEUES, text)
        self._numbers = {name: number for number, name in locked}
        numbers = sql.array(list(self._numbers.values()))
        running, rates = await turn.ask((sql.RUNNING_OF_QUEUES, (text,)), (sql.RATES, (numbers,)))
        await self._lanes.know(turn, (number for number, _ in running))
        for number, count in running:
            self._add(self._lanes.by_id[number], count)
        self._rates = dict(rates)

    async def _count_probes(self, turn: Transaction, targets: set[str]) -> None:
        half_open = sorted(
            name
            for name in targets
            if (row := self._breakers.now.get(name)) is not None and row.state == "half_open"
        )
        if half_open:
            rows = await turn.rows(sql.RUNNING_OF_TARGETS, json.dumps(half_open))
            for target, count in rows:
                self._running[f"target:{target}"] = count

    def _add(self, lane: Lane, count: int, *, probes: bool = False) -> None:
        keys = [lane.queue, f"{lane.queue}/{lane.fair_key}"]
        if probes and lane.target:
            keys.append(f"target:{lane.target}")
        for key in keys:
            self._running[key] = self._running.get(key, 0) + count

    def _pick(
        self, number: int, ask: ClaimAsk, lanes: Sequence[Lane], turns: Turns, now: int
    ) -> list[Statement]:
        queues = set(ask.queues)
        mine = [lane for lane in lanes if lane.available > 0 and lane.queue in queues]
        if not mine:
            return []
        picks, wake = self._rules.pick(
            mine,
            ask.limit,
            now,
            paused=frozenset(),
            breakers=self._breakers.now,
            running=self._running,
            turns=turns,
        )
        if wake:
            self.wake = min(self.wake, wake) if self.wake else wake
        todo: list[Statement] = []
        until = now + ask.lease
        for pick in picks:
            lane = self._lanes.by_id[pick.lane]
            lane.available -= pick.jobs
            self._add(lane, pick.jobs, probes=True)
            breaker = self._breakers.now.get(lane.target) if lane.target else None
            epoch = breaker.epoch if breaker is not None else 0
            self.takes.append(Take(number, lane, until))
            values = (lane.id, pick.jobs, until, ask.worker, epoch, now)
            todo.append((sql.CLAIM, tuple(map(str, values))))
        return todo

    async def again(self, turn: Transaction, number: str) -> list[Rows]:
        """The rows of `takes`, when they were lost with the connection that committed them."""
        return [
            await turn.after(
                (sql.CLAIMED, (str(take.lane.id), self._asks[take.ask].worker, number))
            )
            for take in self.takes
        ]

    def claimed(self, answers: Sequence[Rows]) -> list[list[Claimed]]:
        """The jobs of each ask, by rank; `answers` belong to the statements of `takes`."""
        found: list[list[tuple[int, Claimed]]] = [[] for _ in self._asks]
        for take, rows in zip(self.takes, answers, strict=False):
            lane, until = take.lane, take.until
            queue, fair_key, target = lane.queue, lane.fair_key, lane.target
            found[take.ask] += [
                (
                    rank,
                    Claimed(
                        job, token, attempt, until, queue, kind, args, priority, run_at, created,
                        most, lost, expires, fair_key, target, options,
                    ),
                )
                for (
                    rank, job, token, attempt, kind, args, priority, run_at, created, most, lost,
                    expires, options,
                ) in rows
            ]  # fmt: skip
        for one in found:
            # What an UPDATE returns comes in no order.
            one.sort()
        return [[job for _, job in one] for one in found]
