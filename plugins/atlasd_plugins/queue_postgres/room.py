"""How much a queue with a size limit still takes.

A queue is counted while its row is locked, and no further than its size. A large one isn't counted
for every job: a sixteenth of what is free may be given away for a second without looking again, so
that several hosts together may pass a limit by that little.
"""

import json
from collections.abc import Callable, Sequence
from typing import Protocol

from atlasd.contracts.queue import NewJob, Rules
from atlasd.errors import AtlasError
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.link import Transaction

LARGE = 10_000
PART = 16
FOR = 1.0
"""Seconds."""


class Enqueuer(Protocol):
    """What wants room."""

    jobs: Sequence[NewJob]


class Room:
    """What is free, as far as this host knows."""

    def __init__(self, rules: Rules, monotonic: Callable[[], float]) -> None:
        self._rules = rules
        self._monotonic = monotonic
        self._free: dict[str, int] = {}
        """In the present transaction."""
        self._waiting: dict[str, int] = {}
        self._given: dict[str, tuple[int, float]] = {}
        """What may be taken unseen, and until when."""

    async def look(self, turn: Transaction, work: Sequence[Enqueuer]) -> None:
        """Count the queues that these jobs go to, if they have a limit."""
        self._free.clear()
        wanted: dict[str, int] = {}
        for one in work:
            for job in one.jobs:
                wanted[job.queue] = wanted.get(job.queue, 0) + 1
        sizes = {queue: self._rules.limits(queue).size for queue in wanted}
        look = []
        for queue in sorted(queue for queue, size in sizes.items() if size):
            left, until = self._given.get(queue, (0, 0.0))
            if wanted[queue] <= left and self._monotonic() < until:
                self._given[queue] = (left - wanted[queue], until)
                self._free[queue] = wanted[queue]
            else:
                look.append(queue)
        if not look:
            return
        _, *counts = await turn.ask(
            (sql.LOCK_QUEUES, (json.dumps(look),)),
            *((sql.WAITING, (queue, str(sizes[queue] + 1))) for queue in look),
        )
        for queue, rows in zip(look, counts, strict=True):
            waiting = rows[0][0] if rows else 0
            self._waiting[queue] = waiting
            free = self._free[queue] = sizes[queue] - waiting
            if sizes[queue] >= LARGE and free > wanted[queue]:
                part = (free - wanted[queue]) // PART
                self._given[queue] = (part, self._monotonic() + FOR)

    def take(self, jobs: Sequence[NewJob]) -> None:
        """Room for all of them. Raises `AtlasError` `job.queue_full`, and takes none then."""
        wanted: dict[str, int] = {}
        for job in jobs:
            if job.queue in self._free:
                wanted[job.queue] = wanted.get(job.queue, 0) + 1
        for queue, count in wanted.items():
            if count > self._free[queue]:
                size = self._rules.limits(queue).size
                waiting = size - self._free[queue]
                raise AtlasError(
                    "job.queue_full",
                    f"the queue {queue} has {waiting} of at most {size} waiting jobs: "
                    f"{count} more are not taken",
                    hint="enqueue later, add workers, or raise the queue's `size`",
                    details={"queue": queue, "waiting": waiting, "size": size},
                )
        for queue, count in wanted.items():
            self._free[queue] -= count
