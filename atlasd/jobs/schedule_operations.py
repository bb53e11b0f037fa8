"""What core does when it is asked about schedules: one method an operation."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from atlasd.contracts.queue import HELD, Row, ScheduleRow, Slot
from atlasd.jobs.asking import Ask, Body
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.schedules import Schedule
from atlasd.jobs.timetable import known

HISTORY = 20
"""Slots that are shown of one schedule."""
WALKED = 100_000
"""Times that a preview looks at, at most: a plan may leave out many in a row."""


class ScheduleOperations:
    """Operations on schedules, as plain values. See `atlasd.jobs.operations.JobOperations`."""

    def __init__(self, ask: Ask, schedules: Callable[[], Mapping[str, Schedule]]) -> None:
        """`schedules` are those of the configuration in force; what they did is in the store."""
        self._ask = ask
        self._schedules = schedules

    async def list(self, *, actor: str) -> Body:
        """`schedule.list`."""
        del actor
        schedules = self._schedules()

        async def look(engine: JobEngine) -> list[Body]:
            store = engine.store
            rows = await engine.timetable.rows(tuple(schedules))
            now = await store.now()
            found = []
            for name, one in sorted(schedules.items()):
                row = rows[name]
                last = (await store.slots(name, 1) if row.slot else ()) or (None,)
                job = await store.get(row.job) if row.job else None
                found.append(_schedule(one, row, last[0], job, now))
            return found

        return {"schedules": await self._ask(look)}

    async def show(self, *, name: str, actor: str) -> Body:
        """`schedule.show`."""
        del actor
        schedule = known(self._schedules(), name)

        async def look(engine: JobEngine) -> Body:
            store = engine.store
            row = (await engine.timetable.rows((name,)))[name]
            slots = await store.slots(name, HISTORY)
            job = await store.get(row.job) if row.job else None
            now = await store.now()
            return {
                **_schedule(schedule, row, slots[0] if slots else None, job, now),
                "misfire": schedule.misfire, "overlap": schedule.overlap,
                "start_deadline_seconds": _seconds(schedule.start_deadline),
                "splay_seconds": _seconds(schedule.splay),
                "since": _when(row.since),
                "slots": [
                    {"slot": _when(one.slot), "job": one.job or None, "reason": one.reason}
                    for one in slots
                ],
            }  # fmt: skip

        return await self._ask(look)

    async def preview(self, *, name: str, count: int, start: datetime | None, actor: str) -> Body:
        """`schedule.preview`: from the configuration alone."""
        del actor
        schedule = known(self._schedules(), name)
        moment = start or datetime.now(UTC)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=schedule.plan.zone)
        # What falls on the very moment that was asked from is part of the answer. Rare days take
        # a while to be found.
        start_ms = round(moment.timestamp() * 1000) - 1
        found = await asyncio.to_thread(_preview, schedule, start_ms, count)
        return {"name": name, "plan": schedule.words, "runs": found}

    async def run(self, *, name: str, actor: str) -> Body:
        """`schedule.run`."""
        del actor
        known(self._schedules(), name)
        job = await self._ask(lambda engine: engine.timetable.run_now(name))
        return {"name": name, "job": job}

    async def pause(self, *, name: str, actor: str) -> Body:
        """`schedule.pause`."""
        del actor
        return await self._paused(name, paused=True)

    async def resume(self, *, name: str, actor: str) -> Body:
        """`schedule.resume`."""
        del actor
        return await self._paused(name, paused=False)

    async def _paused(self, name: str, *, paused: bool) -> Body:
        known(self._schedules(), name)
        await self._ask(lambda engine: engine.timetable.pause(name, paused=paused))
        return {"name": name, "paused": paused}


def _preview(schedule: Schedule, moment: int, count: int) -> list[Body]:
    found: list[Body] = []
    with contextlib.suppress(OverflowError):  # the calendar ends
        _walk(schedule, moment, count, found)
    return found


def _walk(schedule: Schedule, moment: int, count: int, found: list[Body]) -> None:
    for one in itertools.islice(schedule.plan.walk(moment), WALKED):
        starts = _when(one.at + schedule.put_off(one.at)) if one.runs else None
        found.append(
            {"at": _when(one.at), "local": one.wall, "mark": one.mark, "words": one.words,
             "starts": starts}
        )  # fmt: skip
        count -= one.runs
        if not count:
            return


def standing(
    schedule: Schedule, row: ScheduleRow, last: Slot | None, now: int
) -> tuple[str, str, int]:
    """How a schedule stands: a word, a sentence, and when it fires next (0: it doesn't)."""
    if not schedule.enabled:
        return "disabled", "its `enabled` is false", 0
    if row.paused:
        return "paused", f"`atlasctl schedule resume {schedule.name}` has it fire again", 0
    following = schedule.plan.after(now) or 0
    if row.held:
        return "held", f"the run of {_said(row.held)} waits for job {row.job} to end", following
    if not following:
        return "over", "its time is past", 0
    if last is not None and not last.job and last.reason != HELD:
        return (
            "waiting",
            f"the run of {_said(last.slot)} was left out: {_why(last.reason)}",
            following,
        )
    return "waiting", "", following


def _why(reason: str) -> str:
    return {
        "overlap": "the job before it had not ended",
        "misfire": "nobody was there to fire it",
        "deadline": "it was too late for it",
    }.get(reason, reason)


def _schedule(
    schedule: Schedule, row: ScheduleRow, last: Slot | None, job: Row | None, now: int
) -> Body:
    state, detail, following = standing(schedule, row, last, now)
    return {
        "name": schedule.name, "plan": schedule.words, "kind": schedule.job.kind,
        "queue": schedule.job.queue, "state": state, "detail": detail,
        "next": _when(following), "last": _when(row.slot), "job": row.job or None,
        "job_state": job.state.value if job is not None else None,
    }  # fmt: skip


def _said(moment: int) -> str:
    return f"{_when(moment):%Y-%m-%d %H:%M:%SZ}"


def _when(moment: int) -> datetime | None:
    return datetime.fromtimestamp(moment / 1000.0, tz=UTC) if moment else None


def _seconds(milliseconds: int) -> float | None:
    return milliseconds / 1000.0 if milliseconds else None
