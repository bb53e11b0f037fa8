"""Lanes as this host knows them: their numbers, and whose turn it is among them."""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence

from atlasd.contracts.queue import Lane, NewJob
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.link import Link, Rows, Statement, Transaction

Key = tuple[str, str, str]
"""Queue, fair key, target."""


class Lanes:
    """A lane never changes and is never deleted, so what was once read stays true."""

    def __init__(self) -> None:
        self.by_id: dict[int, Lane] = {}
        self.by_key: dict[Key, Lane] = {}

    async def make(self, link: Link, jobs: Iterable[NewJob]) -> None:
        """Have a lane for each of these jobs, in a transaction of its own.

        A lane without jobs does no harm, while one that is undone with a failed enqueue would have
        to be forgotten here.
        """
        by_key = self.by_key
        unknown = {
            key for job in jobs if (key := (job.queue, job.fair_key, job.target)) not in by_key
        }
        if not unknown:
            return
        # In order, so that two hosts that make the same ones do not wait for each other in turn.
        keys = json.dumps(sorted(unknown))
        queues = json.dumps(sorted({queue for queue, _, _ in unknown}))
        *_, rows = await link.run(
            (sql.ADD_QUEUES, (queues,)), (sql.ADD_LANES, (keys,)), (sql.LANES_BY_KEY, (keys,))
        )
        self._learn(rows)

    async def know(self, turn: Transaction, numbers: Iterable[int]) -> None:
        """Read the lanes that other hosts have made."""
        unknown = [number for number in set(numbers) if number not in self.by_id]
        if unknown:
            self._learn(await turn.rows(sql.LANES_BY_ID, sql.array(unknown)))

    def _learn(self, rows: Rows) -> None:
        for number, queue, fair_key, target in rows:
            if number not in self.by_id:
                lane = Lane(id=number, queue=queue, fair_key=fair_key, target=target)
                self.by_id[number] = self.by_key[queue, fair_key, target] = lane


class Numbers:
    """Numbers for new jobs: a hundred at a time are this host's alone, and never given twice."""

    BLOCK = 100

    def __init__(self) -> None:
        self._free: list[range] = []
        self._left = 0

    async def reserve(self, ask: Callable[[Statement], Awaitable[list[Rows]]], count: int) -> None:
        """Have at least so many at hand. A sequence is not undone with a transaction."""
        missing = count - self._left
        if missing > 0:
            blocks = -(-missing // self.BLOCK)
            (rows,) = await ask((sql.NUMBERS, (str(blocks),)))
            self._free += [range(first, first + self.BLOCK) for (first,) in rows]
            self._left += blocks * self.BLOCK

    def take(self, count: int) -> Sequence[int]:
        """So many of what was reserved, in order."""
        taken: list[int] = []
        while len(taken) < count:
            block = self._free[0]
            part = block[: count - len(taken)]
            taken += part
            if len(part) == len(block):
                del self._free[0]
            else:
                self._free[0] = block[len(part) :]
        self._left -= count
        return taken
