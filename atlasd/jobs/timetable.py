"""Schedules at work: sleeps until the next slot is due, claims it, enqueues its job."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from atlasd.contracts.queue import Filter, QueueStore, ScheduleRow, SlotClaim
from atlasd.errors import AtlasError, nearest
from atlasd.jobs.schedules import Decision, Schedule, decide, job_of
from atlasd.states import JOB_FINAL

LOOK = 60.0
"""Seconds after which it looks at the clock though nothing is due: somebody may have set it."""
RETRY = 1.0
"""Seconds before a store that failed is tried again."""
REPLACED = "replaced"
"""The reason of a job that was cancelled for the next one of its schedule."""

_log = logging.getLogger("atlasd.jobs")


@dataclass(slots=True)
class Tally:
    """What schedules have done since the start."""

    fired: dict[str, int] = field(default_factory=dict)
    """Jobs that were enqueued, by schedule."""
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)
    """Slots without a job, by schedule and reason."""
    lateness: dict[str, int] = field(default_factory=dict)
    """Milliseconds by which the last job came too late, by schedule."""

    def note(self, claim: SlotClaim, now: int) -> None:
        """Count a slot that was claimed now."""
        name = claim.schedule
        if claim.job is None:
            key = (name, claim.reason)
            self.left_out[key] = self.left_out.get(key, 0) + 1
        else:
            self.fired[name] = self.fired.get(name, 0) + 1
            self.lateness[name] = max(0, now - (claim.slot or now))


class Timetable:
    """All schedules of the configuration; runs in the loop of the job engine."""

    def __init__(self, store: QueueStore, *, due_in: Callable[[int], object]) -> None:
        """`due_in` hears after how many milliseconds a job that is put off has its time."""
        self.schedules: Mapping[str, Schedule] = {}
        self.tally = Tally()
        self._store = store
        self._due_in = due_in
        self._gone: set[str] = set()
        self._only_mine = False
        self._kept = False
        self._seen: dict[str, tuple[ScheduleRow, int]] = {}
        """What each was decided on last, and when there is something to decide again."""
        self._now = 0
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()

    def follow(self, schedules: Mapping[str, Schedule], *, shared: bool) -> None:
        """Work by these from now on; in a `shared` store others may have schedules of their own."""
        self._gone |= self.schedules.keys() - schedules.keys()
        self._gone -= schedules.keys()
        self._only_mine = not shared
        self.schedules = schedules
        self._kept = False
        self._changed.set()

    async def run(self) -> None:
        """Fire what is due, until cancelled."""
        trouble = ""
        while True:
            self._changed.clear()
            try:
                pause = await self._round()
                trouble = ""
            except AtlasError as error:
                if error.message != trouble:
                    _log.error("schedules: %s (%s)", error.message, error.hint)
                trouble = error.message
                pause = RETRY
            except Exception:  # noqa: BLE001  without this task nothing fires any more
                _log.exception("schedules: an unexpected error")
                pause = LOOK
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def _round(self) -> float:
        wake = await self.turn()
        if not wake:
            return LOOK
        return min(LOOK, max(0.0, (wake - await self._store.now()) / 1000.0))

    async def turn(self) -> int:
        """Fire what is due now; when there is something to do again, 0: never."""
        async with self._lock:
            while not self._kept:
                await self._keep()
            # Those that the store has noted, also when they are exchanged from here on.
            schedules = self.schedules
            if not schedules:
                return 0
            rows = {row.schedule: row for row in await self._store.schedules()}
            now = await self._store.now()
            if now < self._now:
                self._seen.clear()  # the clock was set back
            self._now = now
            lacking = schedules.keys() - rows.keys()
            if lacking:  # another host, which has them no longer, took them away
                self._kept = False
            # At once, so that all that is due together shares a commit, and one that fails keeps
            # no other from its time.
            wakes = await asyncio.gather(
                *(
                    self._look(one, rows[name], now)
                    for name, one in schedules.items()
                    if name in rows
                ),
                return_exceptions=True,
            )
            for wake in wakes:
                if isinstance(wake, BaseException):
                    raise wake
            known = [wake for wake in wakes if isinstance(wake, int) and wake]
            return now if lacking else min(known, default=0)

    async def _keep(self) -> None:
        """Tell the store which schedules there are. They may be exchanged while it is awaited."""
        schedules, gone = self.schedules, set(self._gone)
        if self._only_mine:
            gone |= {row.schedule for row in await self._store.schedules()} - schedules.keys()
        digests = {name: one.digest for name, one in schedules.items()}
        await self._store.keep_schedules(digests, gone=sorted(gone))
        self._gone -= gone
        self._seen.clear()
        self._kept = schedules is self.schedules

    async def _look(self, schedule: Schedule, row: ScheduleRow, now: int) -> int:
        seen, wake = self._seen.get(schedule.name, (None, 0))
        if row == seen and (not wake or now < wake):
            return wake
        busy = schedule.overlap != "allow" and await self.is_busy(row)
        found = decide(schedule, row, now, busy=busy)
        if found.anew:
            _log.warning(
                "schedule %s has run ahead of the clock, which was set back; it begins anew",
                schedule.name,
            )
            await self._store.pause_schedule(schedule.name, paused=True)
            await self._store.pause_schedule(schedule.name, paused=False)
            return now
        if found.cancel:
            await self._store.cancel(Filter(ids=(row.job,)), reason=REPLACED, limit=1)
        if found.claims:
            await self._claim(found, now)
            # What was claimed is another row; one that was only waiting is cancelled by now.
            return now if found.cancel else found.wake
        self._seen[schedule.name] = (row, found.wake)
        return found.wake

    async def _claim(self, found: Decision, now: int) -> None:
        answers = await self._store.fire(found.claims)
        for claim, job in zip(found.claims, answers, strict=True):
            if job:
                self._note(claim, now)
        if found.missed and any(answers):
            name = found.claims[0].schedule
            _log.warning("schedule %s: %d runs were missed and left out", name, found.missed)

    def _note(self, claim: SlotClaim, now: int) -> None:
        self.tally.note(claim, now)
        if claim.job is not None and claim.job.run_at:
            self._due_in(claim.job.run_at - now)

    # --- operators

    async def is_busy(self, row: ScheduleRow) -> bool:
        """Whether the last job of a schedule has not ended."""
        last = await self._store.get(row.job) if row.job else None
        return last is not None and last.state not in JOB_FINAL

    async def run_now(self, name: str) -> int:
        """Fire a schedule beside its plan; the job's id."""
        schedule = self.one(name)
        now = await self._store.now()
        claim = SlotClaim(name, 0, job_of(schedule, now, now)._replace(run_at=0))
        (found,) = await self._store.fire((claim,))
        self._note(claim, now)
        return found

    async def pause(self, name: str, *, paused: bool) -> None:
        """Have a schedule fire no more, or again from now on."""
        self.one(name)
        async with self._lock:
            await self._store.pause_schedule(name, paused=paused)
        self._changed.set()

    def one(self, name: str) -> Schedule:
        """A schedule by its name; raises `schedule.unknown`."""
        return known(self.schedules, name)

    async def rows(self, names: Sequence[str]) -> Mapping[str, ScheduleRow]:
        """What the store remembers of schedules, by name."""
        found = {row.schedule: row for row in await self._store.schedules()}
        return {name: found.get(name, ScheduleRow(name)) for name in names}


def known(schedules: Mapping[str, Schedule], name: str) -> Schedule:
    """A schedule by its name; raises `schedule.unknown`."""
    if name not in schedules:
        raise AtlasError(
            "schedule.unknown",
            f"there is no schedule {name!r}",
            hint=nearest(name, tuple(schedules)) or "the configuration has none: [jobs.schedules]",
        )
    return schedules[name]
