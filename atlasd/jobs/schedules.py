"""What becomes of a schedule's slots: fired, made up for, left out, held; pure, in milliseconds."""

import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from atlasd.contracts.queue import HELD, NewJob, ScheduleRow, SlotClaim
from atlasd.jobs.occurrences import Plan, shown
from atlasd.jobs.outcome import options

GRACE = 60_000
"""A slot that is later than this was missed."""
MOST = 100
"""Missed slots that are made up for at once, and that are noted."""
WINDOW = 86_400_000
"""How old a slot may be that is made up for, where the schedule doesn't say."""
COUNTED = 1_000
"""Missed slots that are looked at; when there are more, the older ones are not even counted."""
POLL = 1_000
"""How often it is looked whether the job has ended that a held slot waits for."""
FUTURE = 3_600_000
"""A slot that was claimed for a time further ahead was claimed by a clock that was wrong."""

MISFIRE, DEADLINE, OVERLAP = "misfire", "deadline", "overlap"
"""Why a slot has no job: it was missed, it came too late, the last job had not ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What is enqueued when."""

    name: str
    plan: Plan
    words: str
    """The plan in short: `30 2 * * * in America/New_York`; another plan has other words."""
    job: NewJob
    misfire: str = "once"
    """skip | once | all: what becomes of missed slots."""
    start_deadline: int = 0
    """How late a slot may be fired; 0: the window, for `all`, else any time."""
    overlap: str = "allow"
    """allow | skip | buffer_one | replace: what becomes of a slot while the last job goes on."""
    splay: int = 0
    """By up to how much a run is put off, by chance but always the same for a slot."""
    enabled: bool = True
    seed: str = ""
    """What else that chance depends on: the host, so that those of one plan don't run at once."""

    @property
    def digest(self) -> str:
        """Of what makes it another schedule, that begins anew."""
        return self.words if self.enabled else ""

    def too_late(self, slot: int, now: int) -> bool:
        """Whether a slot may not be fired any more."""
        return bool(self.start_deadline) and now - slot > self.start_deadline

    def put_off(self, slot: int) -> int:
        """By how much the run of a slot is put off."""
        return zlib.crc32(f"{self.seed}/{self.name}/{slot}".encode()) % (self.splay + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What is to be done about a schedule now."""

    claims: Sequence[SlotClaim] = ()
    """In the order in which they must be claimed."""
    cancel: bool = False
    """Whether the schedule's last job is to be cancelled first."""
    anew: bool = False
    """Whether it has to begin anew, since it has run ahead of the clock."""
    wake: int = 0
    """When there is something to decide again; 0: never."""
    missed: int = 0
    """Slots that were missed and are not made up for."""


@dataclass(slots=True)
class _Line:
    """The slots of one decision on their way through the rule of overlap."""

    schedule: Schedule
    now: int
    busy: bool
    held: int
    claims: list[SlotClaim] = field(default_factory=list)
    cancel: bool = False

    def fire(self, slot: int) -> None:
        self.claims.append(
            SlotClaim(self.schedule.name, slot, job_of(self.schedule, slot, self.now))
        )
        self.busy = True

    def leave(self, slot: int, reason: str) -> None:
        self.claims.append(SlotClaim(self.schedule.name, slot, None, reason))

    def hold(self, slot: int) -> None:
        self.leave(slot, HELD)
        self.held = slot

    def look_at_held(self) -> None:
        """Fire the slot that is held if its time has come, or leave it when that is over."""
        slot = self.held
        if slot and self.schedule.too_late(slot, self.now):
            self.leave(slot, DEADLINE)
            self.held = 0
        elif slot and not self.busy:
            self.fire(slot)
            self.held = 0

    def due(self, slot: int) -> None:
        """Decide what becomes of a slot that is to be fired."""
        overlap = self.schedule.overlap
        if overlap == "allow" or not self.busy:
            self.fire(slot)
        elif overlap == "skip" or (overlap == "buffer_one" and self.held):
            self.leave(slot, OVERLAP)
        elif overlap == "buffer_one":
            self.hold(slot)
        else:
            self.cancel = True
            if self.held:
                self.leave(self.held, OVERLAP)
            self.hold(slot)


def decide(schedule: Schedule, row: ScheduleRow, now: int, *, busy: bool) -> Decision:
    """What is to be done; `busy` is whether the job that it fired last has not ended."""
    if not schedule.enabled or row.paused:
        return Decision()
    if row.slot > now + FUTURE:
        return Decision(anew=True)
    due = _due(schedule, row, now)
    chosen = _chosen(schedule, due, now)
    line = _Line(schedule=schedule, now=now, busy=busy, held=row.held)
    line.look_at_held()
    for slot in due[-MOST:]:
        if slot in chosen:
            line.due(slot)
        else:
            line.leave(slot, DEADLINE if schedule.too_late(slot, now) else MISFIRE)
    missed = sum(claim.reason in (MISFIRE, DEADLINE) for claim in line.claims)
    wake = schedule.plan.after(now) or 0
    if line.held:
        wake = min(wake, now + POLL) if wake else now + POLL
    return Decision(
        claims=tuple(line.claims),
        cancel=line.cancel,
        wake=wake,
        missed=missed + len(due[:-MOST]),
    )


def _due(schedule: Schedule, row: ScheduleRow, now: int) -> list[int]:
    """Slots that nobody has claimed yet, the earliest first."""
    floor = max(row.slot, row.since)
    found = itertools.takewhile(lambda slot: slot > floor, schedule.plan.back(now))
    return list(itertools.islice(found, COUNTED))[::-1]


def _chosen(schedule: Schedule, due: Sequence[int], now: int) -> frozenset[int]:
    """Those that are to be fired: the one whose time it is, and what is made up for."""
    if not due:
        return frozenset()
    if schedule.misfire == "all":
        oldest = now - (schedule.start_deadline or WINDOW)
        chosen = [slot for slot in due if slot >= oldest][-MOST:]
    elif schedule.misfire == "once" or now - due[-1] <= GRACE:
        chosen = [due[-1]]
    else:
        chosen = []
    chosen = [slot for slot in chosen if not schedule.too_late(slot, now)]
    # Each would only be cancelled for the next.
    return frozenset(chosen[-1:] if schedule.overlap == "replace" else chosen)


def job_of(schedule: Schedule, slot: int, now: int) -> NewJob:
    """The job of a slot that is fired now; it knows for when it was planned, and how late it is."""
    known = dict(options(schedule.job.options))
    known["schedule"] = schedule.name
    known["scheduled_for"] = shown(slot)
    known["late_by"] = max(0, now - slot)
    run_at = slot + schedule.put_off(slot)
    return schedule.job._replace(
        options=json.dumps(known, ensure_ascii=False, separators=(",", ":")),
        run_at=run_at if run_at > now else 0,
    )
