"""What a handler, a command and a server are told of the schedule that enqueued their job."""

from datetime import UTC, datetime, timedelta
from typing import Any

from atlasd.worker.command import environment
from atlasd.worker.context import Context
from atlasd.worker.feed import Job
from atlasd.worker.push import headers


def context(options: dict[str, Any] | None) -> Context:
    job = Job(
        id=7, token=1, attempt=1, lease_until=0, queue="reports", kind="report.make", args={},
        priority=5, run_at=1000, created_at=0, max_attempts=3, lost_count=0, expires_at=0,
        fair_key="", target="", options=options,
    )  # fmt: skip
    return Context(job, lambda _id, _report: None)


def test_a_job_of_a_schedule() -> None:
    found = context(
        {"schedule": "nightly", "scheduled_for": "2026-03-08T07:00:00Z", "late_by": 1500}
    )
    assert found.schedule == "nightly"
    assert found.scheduled_for == datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert found.late_by == timedelta(seconds=1.5)
    told = environment(found)
    assert told["ATLASD_JOB_SCHEDULE"] == "nightly"
    assert told["ATLASD_JOB_SCHEDULED_FOR"] == "2026-03-08T07:00:00+00:00"
    assert headers(found)["Atlasd-Job-Schedule"] == "nightly"
    assert headers(found)["Atlasd-Job-Scheduled-For"] == "2026-03-08T07:00:00+00:00"


def test_a_job_that_somebody_enqueued() -> None:
    for options in (None, {"tags": ["a"]}):
        found = context(options)
        assert (found.schedule, found.scheduled_for, found.late_by) == ("", None, timedelta())
        assert environment(found)["ATLASD_JOB_SCHEDULED_FOR"] == ""
        assert not [name for name in headers(found) if "Schedule" in name]
