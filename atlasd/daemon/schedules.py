"""From the configuration's schedules to those of the job engine."""

from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from atlasd.config import schedules as config
from atlasd.config.jobs import Jobs
from atlasd.config.units import format_duration
from atlasd.jobs.newjob import new_job
from atlasd.jobs.occurrences import Cron, Every, Once, Plan
from atlasd.jobs.schedule_operations import ScheduleOperations
from atlasd.jobs.schedules import Schedule

_JOB = (
    "kind", "queue", "args", "priority", "max_attempts", "timeout", "stall_after", "expires_in",
    "fair_key", "target", "tags", "keep_result",
)  # fmt: skip
_RETRY = ("base", "factor", "cap", "jitter", "within")


def schedules_of(jobs: Jobs, *, host: str) -> Mapping[str, Schedule]:
    """The schedules that `[jobs.schedules]` states, by name; `host` is part of their chance."""
    return {name: _schedule(name, one, host) for name, one in jobs.schedules.items()}


def _schedule(name: str, said: config.Schedule, host: str) -> Schedule:
    plan, words = _plan(said)
    job = {key: getattr(said, key) for key in _JOB if getattr(said, key) is not None}
    if said.retry is not None:
        retry = {key: getattr(said.retry, key) for key in _RETRY}
        job["retry"] = {key: value for key, value in retry.items() if value is not None}
    return Schedule(
        name=name,
        plan=plan,
        words=words,
        job=new_job(job, f"jobs.schedules.{name}"),
        misfire=said.misfire,
        start_deadline=round((said.start_deadline or 0.0) * 1000),
        overlap=said.overlap,
        splay=round(said.splay * 1000),
        enabled=said.enabled,
        seed=host,
    )


def _plan(said: config.Schedule) -> tuple[Plan, str]:
    if said.every is not None:
        return Every(round(said.every * 1000)), f"every {format_duration(said.every)}"
    zone = zone_of(said.zone)
    if said.at is not None:
        where = "" if said.at.tzinfo is not None else f" in {said.zone}"
        return Once(said.at, zone), f"at {said.at.isoformat(sep=' ')}{where}"
    assert said.cron is not None
    return Cron(said.cron, zone), f"{said.cron} in {said.zone}"


def zone_of(name: str) -> tzinfo:
    """A time zone; UTC also on a host that has no others."""
    return UTC if name == "UTC" else ZoneInfo(name)


def methods(operations: ScheduleOperations) -> Mapping[str, Callable[..., Any]]:
    """Each operation on schedules, by name, and what performs it."""
    return {
        "schedule.list": operations.list,
        "schedule.show": operations.show,
        "schedule.preview": operations.preview,
        "schedule.run": operations.run,
        "schedule.pause": operations.pause,
        "schedule.resume": operations.resume,
    }
