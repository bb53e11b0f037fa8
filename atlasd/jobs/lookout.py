"""Looks at every queue now and then, and says how it does."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from atlasd.contracts.queue import QueueCount, QueueLimits, QueueStore
from atlasd.errors import AtlasError
from atlasd.jobs import circuit, verdict
from atlasd.jobs.measures import Measures
from atlasd.jobs.sessions import Session, Visitor
from atlasd.jobs.verdict import QueueHealth, Seen
from atlasd.states import JOB_FINAL, JobState

EVERY = 5.0
"""Seconds between two looks."""
FRESH = 1.0
"""Seconds for which a look is good enough for somebody who asks."""
LATELY = 5
"""Minutes whose runs are judged."""
SILENCE = 60.0
"""Seconds after which a worker without a connection, which said nothing, is gone."""

_log = logging.getLogger("atlasd.jobs")

Moved = Callable[[str, QueueHealth | None, QueueHealth], object]
"""Told a queue, and its verdict before and now, when the word changed."""


class Lookout:
    """What is known of queues beside their rows: verdicts, and who works them."""

    def __init__(
        self,
        store: QueueStore,
        measures: Measures,
        sessions: Mapping[str, Session],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`sessions` are the connections of workers; clocks give seconds."""
        self.found: dict[str, QueueHealth] = {}
        """By queue; times there are wall time."""
        self.visitors: dict[str, Visitor] = {}
        """Workers without a connection, by name."""
        self._store = store
        self._measures = measures
        self._sessions = sessions
        self._monotonic = monotonic
        self._wall = wall
        self._marks: dict[str, tuple[int, int]] = {}
        """By queue how many jobs were begun, and have ended."""
        self._moved_at: dict[str, float] = {}
        self._limits: Callable[[str], QueueLimits] | None = None
        self._moved: Moved = lambda _queue, _before, _after: None
        self._looked = 0.0

    async def run(
        self, limits: Callable[[str], QueueLimits], moved: Moved, tick: Callable[[], object]
    ) -> None:
        """Look for ever; `tick` is called each time."""
        self._limits, self._moved = limits, moved
        while True:
            try:
                await self.look(limits, moved)
            except AtlasError as error:
                _log.debug("queues cannot be looked at: %s", error.message)
            tick()
            await asyncio.sleep(EVERY)

    async def refresh(self) -> None:
        """Look now, unless that was done just before: somebody asks."""
        if self._limits is not None and self._monotonic() - self._looked >= FRESH:
            await self.look(self._limits, self._moved)

    async def look(self, limits: Callable[[str], QueueLimits], moved: Moved) -> None:
        """Judge every queue once."""
        self._looked = self._monotonic()
        counts = await self._store.count()
        paused = await self._store.paused()
        now = await self._store.now()
        shut = {row.target for row in await self._store.breakers() if circuit.is_shut(row)}
        self._forget()
        by_queue = by_state(counts)
        for queue in {*by_queue, *self.found}:
            states = by_queue.get(queue, {})
            word, reason = verdict.judge(
                self._seen(queue, states, limits(queue), now, shut, paused=queue in paused)
            )
            before = self.found.get(queue)
            after = verdict.settle(before if states else None, word, reason, self._wall())
            self.found[queue] = after
            if after.word != (before.word if before is not None else verdict.OK):
                moved(queue, before, after)
            if not states:
                # It has no job left at all: nothing is to be said of it any longer.
                for known in (self.found, self._marks, self._moved_at):
                    del known[queue]

    def _seen(
        self,
        queue: str,
        states: Mapping[JobState, QueueCount],
        limits: QueueLimits,
        now: int,
        shut: set[str],
        *,
        paused: bool,
    ) -> Seen:
        def jobs(state: JobState) -> int:
            return states[state].jobs if state in states else 0

        available = jobs(JobState.AVAILABLE)
        oldest = states[JobState.AVAILABLE].oldest if available else 0
        mark = (self._measures.claims(queue), sum(map(jobs, JOB_FINAL)))
        if self._marks.get(queue) != mark or not available:
            self._marks[queue] = mark
            self._moved_at[queue] = self._monotonic()
        finished, failed = self._measures.lately(queue, LATELY)
        return Seen(
            available=available, running=jobs(JobState.RUNNING),
            scheduled=jobs(JobState.SCHEDULED),
            waited=max(0.0, (now - oldest) / 1000.0) if oldest else 0.0,
            idle=self._monotonic() - self._moved_at[queue],
            workers=len(self.workers(queue)), paused=paused,
            shut=tuple(sorted(shut & self._measures.targets.get(queue, set()))),
            size=limits.size, max_wait=limits.max_wait / 1000.0, finished=finished, failed=failed,
        )  # fmt: skip

    # --- workers

    def workers(self, queue: str) -> Sequence[Session | Visitor]:
        """Those that ask for jobs of a queue."""
        connected: list[Session | Visitor] = [
            one
            for one in self._sessions.values()
            if not one.draining and (queue in one.queues or not one.queues)
        ]
        return [*connected, *(one for one in self.visitors.values() if queue in one.queues)]

    def asked(self) -> set[str]:
        """Queues that workers ask for."""
        known = [*(one.queues for one in self._sessions.values())]
        known += [one.queues for one in self.visitors.values()]
        return {queue for queues in known for queue in queues}

    def visited(self, worker: str, queues: Sequence[str]) -> None:
        """A worker without a connection has said something; no queues: as before."""
        known = self.visitors.get(worker)
        if known is None and len(self.visitors) >= 1000:
            self._forget()
        names = tuple(queues) or (known.queues if known is not None else ())
        self.visitors[worker] = Visitor(said=worker, queues=names, seen=self._monotonic())

    def _forget(self) -> None:
        oldest = self._monotonic() - SILENCE
        for worker in [name for name, one in self.visitors.items() if one.seen < oldest]:
            del self.visitors[worker]


def by_state(counts: Sequence[QueueCount]) -> Mapping[str, Mapping[JobState, QueueCount]]:
    """Counts by queue and state."""
    found: dict[str, dict[JobState, QueueCount]] = {}
    for one in counts:
        found.setdefault(one.queue, {})[one.state] = one
    return found
