"""What the engine counts of the jobs that pass through it: waits, runs, outcomes; per queue.

All of it is counted in the engine's loop, a few tenths of a microsecond a job. The number of
labels is bounded: names of queues and kinds come from whoever enqueues, and there may be any
number of them.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atlasd.contracts.queue import Claimed, Failure, Finish, Release, Settlement

BOUNDS = (
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000,
    1_800_000, 7_200_000,
)  # fmt: skip
"""Upper ends of the buckets of waits and runs, in milliseconds."""
QUEUES = 200
"""Queues that are told apart; the rest are counted as `OTHER`."""
KINDS = 500
"""Pairs of queue and kind that are told apart."""
TARGETS = 200
"""Targets that are remembered of a queue."""
OTHER = "other"
MINUTES = 10
"""Minutes of the recent past that outcomes are kept of, minute by minute."""
ABROAD = 20_000
"""Jobs of workers without a connection that are remembered until they are settled."""


@dataclass(slots=True)
class Spread:
    """A histogram of milliseconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: int = 0


@dataclass(slots=True)
class Recent:
    """Outcomes of a queue in the minutes that are not long ago, by the minute's number."""

    done: dict[int, int] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)

    def note(self, counts: dict[int, int], minute: int, count: int) -> None:
        """Count so many more in a minute, and forget what is too old."""
        counts[minute] = counts.get(minute, 0) + count
        if len(counts) > MINUTES + 1:
            del counts[min(counts)]


class Measures:
    """Counters of one engine; read them in its loop."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`monotonic` gives seconds."""
        self._monotonic = monotonic
        self.waits: dict[str, Spread] = {}
        """From the moment at which a job was due to its claim, by queue."""
        self.runs: dict[str, Spread] = {}
        """How long handlers took, by queue."""
        self.outcomes: dict[tuple[str, str, str], int] = {}
        """By queue, kind and word: finished | failed | released."""
        self.recent: dict[str, Recent] = {}
        self.targets: dict[str, set[str]] = {}
        """What jobs of a queue call, by queue."""
        self._kinds: set[tuple[str, str]] = set()
        self._abroad: dict[int, tuple[Claimed, int]] = {}
        self._order: deque[int] = deque()

    # --- the hot path

    def given(self, jobs: Sequence[Claimed], lease: int) -> None:
        """Jobs were claimed with a lease of so many milliseconds."""
        queue, counts, total, spread = None, None, 0, None
        for job in jobs:
            if job[4] != queue:
                if spread is not None:
                    spread.sum += total
                queue, total = job[4], 0
                spread = self._spread(self.waits, queue)
                counts = spread.counts
            wait = job[3] - lease - job[8]  # lease_until, run_at
            assert counts is not None
            counts[bisect_left(BOUNDS, wait)] += 1
            total += max(wait, 0)
            if job[14]:
                self._aimed(job[4], job[14])
        if spread is not None:
            spread.sum += total

    def _aimed(self, queue: str, target: str) -> None:
        known = self.targets.get(queue)
        if known is None and len(self.targets) < QUEUES:
            known = self.targets[queue] = set()
        if known is not None and len(known) < TARGETS:
            known.add(target)

    def settled(
        self,
        settlements: Iterable[Settlement],
        jobs: Iterable[Claimed | None],
        held: Iterable[bool],
    ) -> None:
        """Outcomes of jobs, and whether each was accepted.

        Those of one queue, kind and outcome mostly come in a row, and are counted together.
        """
        queue, kind = "", ""
        what: type[Settlement] = Release
        count, quick = 0, 0
        slow: list[int] = []
        for one, job, kept in zip(settlements, jobs, held, strict=True):
            if job is None or not kept:
                continue
            if job[4] != queue or job[5] != kind or type(one) is not what:
                if count:
                    self._count(queue, kind, what, count, quick, slow)
                queue, kind, what = job[4], job[5], type(one)
                count, quick, slow = 0, 0, []
            count += 1
            if what is not Release:
                if took := one.took:  # type: ignore[union-attr]
                    slow.append(took)
                else:
                    quick += 1
        if count:
            self._count(queue, kind, what, count, quick, slow)

    def _count(
        self,
        queue: str,
        kind: str,
        what: type[Settlement],
        count: int,
        quick: int,
        slow: Sequence[int],
    ) -> None:
        key = (*self._pair(queue, kind), _WORDS[what])
        self.outcomes[key] = self.outcomes.get(key, 0) + count
        if what is Release:
            return
        spread = self._spread(self.runs, queue)
        spread.counts[0] += quick
        for took in slow:
            spread.counts[bisect_left(BOUNDS, took)] += 1
        spread.sum += sum(slow)
        recent = self._recent(queue)
        recent.note(recent.done if what is Finish else recent.failed, self._minute(), count)

    def _pair(self, queue: str, kind: str) -> tuple[str, str]:
        pair = (queue, kind)
        if pair not in self._kinds:
            if len(self._kinds) >= KINDS:
                return OTHER, OTHER
            self._kinds.add(pair)
        return pair

    def _spread(self, spreads: dict[str, Spread], queue: str) -> Spread:
        found = spreads.get(queue)
        if found is None:
            if len(spreads) >= QUEUES:
                queue = OTHER
            found = spreads.setdefault(queue, Spread())
        return found

    def _recent(self, queue: str) -> Recent:
        found = self.recent.get(queue)
        if found is None:
            if len(self.recent) >= QUEUES:
                queue = OTHER
            found = self.recent.setdefault(queue, Recent())
        return found

    # --- workers without a connection

    def lent(self, jobs: Sequence[Claimed], lease: int) -> None:
        """Jobs were claimed by a worker that is known by its leases alone."""
        self.given(jobs, lease)
        for job in jobs:
            if len(self._order) >= ABROAD:
                self._abroad.pop(self._order.popleft(), None)
            self._abroad[job.id] = (job, job.lease_until - lease)
            self._order.append(job.id)

    def returned(self, settlements: Sequence[Settlement], held: Sequence[bool], now: int) -> None:
        """What such a worker said of them; `now` is the store's clock."""
        jobs, timed = [], []
        for one in settlements:
            job, since = self._abroad.pop(one.id, (None, 0))
            jobs.append(job)
            timed.append(_timed(one, max(0, now - since)))
        self.settled(timed, jobs, held)

    # --- looking

    def claims(self, queue: str) -> int:
        """Jobs of a queue that were given out so far."""
        found = self.waits.get(queue)
        return sum(found.counts) if found is not None else 0

    def lately(self, queue: str, minutes: int) -> tuple[int, int]:
        """Finished and failed runs of the last whole minutes and the present one."""
        found = self.recent.get(queue, Recent())
        since = self._minute() - minutes
        return _since(found.done, since), _since(found.failed, since)

    def per_minute(self, queue: str) -> tuple[int, int]:
        """Finished and failed runs of the last whole minute; of this one when it is the first."""
        found, now = self.recent.get(queue, Recent()), self._minute()
        began = min((*found.done, *found.failed), default=now)
        minute = now if began == now else now - 1
        return found.done.get(minute, 0), found.failed.get(minute, 0)

    def _minute(self) -> int:
        return int(self._monotonic() // 60)


_WORDS: Mapping[type[Settlement], str] = {
    Finish: "finished", Failure: "failed", Release: "released",
}  # fmt: skip


def _timed(one: Settlement, took: int) -> Settlement:
    """An outcome with its time, where the worker did not say it."""
    return one if isinstance(one, Release) or one.took else one._replace(took=took)


def _since(counts: Mapping[int, int], minute: int) -> int:
    return sum(count for number, count in counts.items() if number >= minute)
