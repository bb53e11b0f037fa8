"""Schedules of jobs: what is asked, and what is answered."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from atlasd.control.models.base import Model

_STATES = Literal["waiting", "held", "paused", "disabled", "over"]


def _time(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        found = None
    if found is None or not 1970 < found.year < 2200:
        raise ValueError("expected a date or a time, such as 2026-03-08 or 2026-03-08T06:00:00Z")
    return found


class ScheduleRequest(Model):
    """Which schedule."""

    name: str = Field(min_length=1, max_length=128, description="Its name.", examples=["nightly"])


class SchedulePreviewRequest(ScheduleRequest):
    """How much of the future of which schedule."""

    count: int = Field(default=10, ge=1, le=1000, description="Runs to show.")
    start: Annotated[datetime, BeforeValidator(_time)] | None = Field(
        default=None,
        description="From when; by the schedule's own clock where no zone is said. Default: now.",
        examples=["2026-03-08"],
    )


class Schedule(Model):
    """A schedule, and how it stands."""

    name: str = Field(description="Its name.")
    plan: str = Field(description="When it fires, in short.")
    kind: str = Field(description="The handler of its jobs.")
    queue: str = Field(description="Their queue.")
    state: _STATES = Field(
        description="waiting for its next time; held: a run waits for the end of the job before; "
        "paused by an operator; disabled by the configuration; over: it never fires again."
    )
    detail: str = Field(description="More about it, in plain words; often empty.")
    next: datetime | None = Field(description="When it fires next.")
    last: datetime | None = Field(description="The last of its times that was dealt with.")
    job: int | None = Field(description="The last job that it enqueued.")
    job_state: str | None = Field(description="Where that job stands; null: it is forgotten.")


class Schedules(Model):
    """Every schedule of the configuration."""

    schedules: tuple[Schedule, ...] = Field(description="By name.")


class ScheduleSlot(Model):
    """What became of one of its times."""

    slot: datetime = Field(description="For when it was planned.")
    job: int | None = Field(description="The job that was enqueued.")
    reason: str = Field(
        description="Why none was: overlap, misfire, deadline; held: it waits for its turn."
    )


class ScheduleDetail(Schedule):
    """A schedule with all that is known."""

    misfire: Literal["skip", "once", "all"] = Field(description="What becomes of missed runs.")
    overlap: Literal["allow", "skip", "buffer_one", "replace"] = Field(
        description="What becomes of a run while the job before it has not ended."
    )
    start_deadline_seconds: float | None = Field(description="How late a run may be.")
    splay_seconds: float | None = Field(description="By up to how much a run is put off.")
    since: datetime | None = Field(
        description="When its plan, or its working after a pause, began: nothing before is made up."
    )
    slots: tuple[ScheduleSlot, ...] = Field(description="Its last times, the latest first.")


class ScheduledRun(Model):
    """A time that a schedule names."""

    at: datetime = Field(description="When.")
    local: str = Field(description="What the clock of its zone shows then.")
    mark: Literal["", "shifted", "skipped", "clock"] = Field(
        description="shifted: the clock skips the time, so it runs after the gap; skipped: nothing "
        "runs; clock: nothing runs, the clock is changed; empty: an ordinary run."
    )
    words: str = Field(description="The same in plain words.")
    starts: datetime | None = Field(description="When its job may start: later, with a splay.")


class SchedulePreview(Model):
    """What a schedule will do."""

    name: str = Field(description="Its name.")
    plan: str = Field(description="When it fires, in short.")
    runs: tuple[ScheduledRun, ...] = Field(description="In order.")


class ScheduleRun(Model):
    """The job of a schedule that was fired by hand."""

    name: str = Field(description="The schedule's name.")
    job: int = Field(description="The job's id.")


class SchedulePaused(Model):
    """Whether a schedule is paused now."""

    name: str = Field(description="Its name.")
    paused: bool = Field(description="Whether it is.")
