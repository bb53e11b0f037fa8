"""Schedules of the queue store in memory: since when each holds, what became of its slots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from atlasd.contracts.queue import HELD, WITHOUT_JOB, NewJob, ScheduleRow, Slot, SlotClaim

REMEMBERED = 100
"""Slots of a schedule that are kept for people to see."""


@dataclass
class Ledger:
    """What is remembered of schedules."""

    rows: dict[str, ScheduleRow] = field(default_factory=dict)
    slots: dict[str, dict[int, Slot]] = field(default_factory=dict)

    def fire(self, claim: SlotClaim, enqueue: Callable[[NewJob], int]) -> int:
        """Claim one slot; see `QueueStore.fire`."""
        row = self.rows.get(claim.schedule, ScheduleRow(claim.schedule))
        if claim.slot and claim.slot <= row.slot and claim.slot != row.held:
            return 0
        job = enqueue(claim.job) if claim.job is not None else 0
        if claim.slot:
            made = Slot(claim.schedule, claim.slot, job, claim.reason)
            slots = self.slots.setdefault(claim.schedule, {})
            slots[claim.slot] = made
            for old in sorted(slots)[:-REMEMBERED]:
                del slots[old]
            if claim.reason == HELD:
                row = row._replace(held=claim.slot)
            elif claim.slot == row.held:
                row = row._replace(held=0)
        self.rows[claim.schedule] = row._replace(slot=max(row.slot, claim.slot), job=job or row.job)
        return job or WITHOUT_JOB

    def keep(self, digests: Mapping[str, str], gone: Sequence[str], now: int) -> None:
        """Note which schedules there are; see `QueueStore.keep_schedules`."""
        for name in gone:
            self.rows.pop(name, None)
            self.slots.pop(name, None)
        for name, digest in digests.items():
            row = self.rows.get(name, ScheduleRow(name))
            if row.digest != digest:
                self.rows[name] = _begun(row, now)._replace(digest=digest)

    def pause(self, name: str, now: int, *, paused: bool) -> None:
        """Have a schedule fire no more, or again; see `QueueStore.pause_schedule`."""
        row = self.rows.get(name) or ScheduleRow(name, since=now)
        if row.paused and not paused:
            row = _begun(row, now)
        self.rows[name] = row._replace(held=0 if paused else row.held, paused=paused)

    def all(self) -> Sequence[ScheduleRow]:
        """Every schedule, by name."""
        return sorted(self.rows.values())

    def last(self, name: str, limit: int) -> Sequence[Slot]:
        """Its last slots, the latest first."""
        slots = self.slots.get(name, {})
        return [slots[slot] for slot in sorted(slots, reverse=True)[:limit]]


def _begun(row: ScheduleRow, now: int) -> ScheduleRow:
    """A schedule that begins now: what a wrong clock claimed is no bar to it."""
    return row._replace(since=now, slot=min(row.slot, now), held=0)
