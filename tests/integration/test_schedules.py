"""Schedules through a real daemon: fired by the second, killed, reloaded, told of by commands."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemons import Atlas, atlas, until
from tests.integration.test_jobs import ctl, ctl_json, worker

EVERY_SECOND = """
[jobs.schedules.tick]
cron = "* * * * * *"
kind = "shop.scheduled"
misfire = "all"
"""
QUIET = """
[jobs.schedules.nightly]
cron = "30 2 * * *"
zone = "America/New_York"
kind = "report.make"
args = { days = 1 }
"""


@pytest.fixture
def daemon() -> Iterator[Atlas]:
    with atlas() as made:
        yield made


def lines(out: Path) -> list[list[str]]:
    return [line.split() for line in out.read_text().splitlines()] if out.exists() else []


def idle(daemon: Atlas) -> bool:
    (queue,) = ctl_json(daemon, "queue", "list")["queues"]
    return not queue["available"] + queue["running"] + queue["scheduled"]


def test_each_second_is_fired_once_though_the_daemon_is_killed(daemon: Atlas) -> None:
    daemon.configure(EVERY_SECOND)
    core = daemon.up()
    worker(daemon)
    out = daemon.root / "out"
    for ran in (2, 4):
        until(lambda count=ran: len(lines(out)) > count, "the schedule's jobs")  # type: ignore[misc]
        os.kill(core.pid, signal.SIGKILL)
        core.wait()
        core = daemon.up()
    until(lambda: len(lines(out)) > 8, "the schedule's jobs")
    assert ctl(daemon, "schedule", "pause", "tick").stdout == "tick is paused\n"
    shown = ctl_json(daemon, "schedule", "show", "tick")
    until(lambda: idle(daemon), "the last job")
    # Each job is of another second, and each second since the first has its job: those for which
    # nobody was there are made up for.
    jobs = {row[2]: int(row[1]) for row in lines(out)}
    assert Counter(jobs.values()).most_common(1)[0][1] == 1
    seconds = sorted(jobs.values())
    assert seconds == list(range(seconds[0], seconds[-1] + 1))
    assert datetime.fromisoformat(shown["last"]).timestamp() == seconds[-1]
    slots = {datetime.fromisoformat(one["slot"]).timestamp(): one["job"] for one in shown["slots"]}
    assert {str(job): int(slot) for slot, job in slots.items()}.items() <= jobs.items()


def test_a_schedule_by_the_commands(daemon: Atlas) -> None:
    daemon.configure(QUIET)
    atlasd = daemon.up()
    (one,) = ctl_json(daemon, "schedule", "list")["schedules"]
    assert (one["name"], one["state"], one["job"]) == ("nightly", "waiting", None)
    assert "30 2 * * * in America/New_York" in ctl(daemon, "schedule", "list").stdout
    said = ctl(daemon, "schedule", "preview", "nightly", "--from", "2026-03-08", "--count", "2")
    assert said.stdout == (
        "30 2 * * * in America/New_York\n"
        "LOCAL                      UTC                   MARK\n"
        "2026-03-08 03:00:00-04:00  2026-03-08 07:00:00Z  shifted  02:30:00 is skipped by the "
        "clock: it runs right after the gap\n"
        "2026-03-09 02:30:00-04:00  2026-03-09 06:30:00Z\n"
    )
    runs = ctl_json(daemon, "schedule", "preview", "nightly", "--from", "2026-03-08")["runs"]
    assert len(runs) == 10
    assert ctl(daemon, "schedule", "run", "nightly").stdout == "nightly: job 1 is enqueued\n"
    job = ctl_json(daemon, "job", "show", "1")
    assert (job["kind"], job["args"], job["options"]["schedule"]) == (
        "report.make", {"days": 1}, "nightly",
    )  # fmt: skip
    assert "last job   1 (available)" in ctl(daemon, "schedule", "show", "nightly").stdout
    ctl(daemon, "schedule", "pause", "nightly")
    assert " paused " in ctl(daemon, "schedule", "list").stdout
    # A worker without Python is told the time, too.
    (claimed,) = daemon.client.call("job.work", worker="w", limit=1)["jobs"]
    assert datetime.fromisoformat(claimed["options"]["scheduled_for"]).tzinfo is not None
    assert claimed["options"]["late_by"] == 0
    atlasd.terminate()
    atlasd.wait()
    daemon.up()
    (one,) = ctl_json(daemon, "schedule", "list")["schedules"]
    assert (one["state"], one["next"]) == ("paused", None)
    resumed = ctl(daemon, "schedule", "resume", "nightly").stdout
    assert resumed == "nightly is waiting for its next time\n"
    for words, code, hint in (
        (("show", "nigtly"), 3, "did you mean 'nightly'?"),
        (("preview", "nightly", "--from", "soon"), 2, "expected a date or a time"),
    ):
        done = ctl(daemon, "schedule", *words)
        assert (done.returncode, hint in done.stderr) == (code, True), done.stderr


def test_a_reload_takes_schedules_live(daemon: Atlas) -> None:
    daemon.configure("")
    daemon.up()
    assert ctl_json(daemon, "schedule", "list")["schedules"] == []
    daemon.configure(EVERY_SECOND)
    assert ctl(daemon, "config", "reload").returncode == 0

    def fired() -> Any:
        (one,) = ctl_json(daemon, "schedule", "list")["schedules"]
        return one["job"]

    until(fired, "the new schedule's first job")
    metrics = daemon.http("/metrics")[2]
    assert 'atlasd_schedule_fired_total{schedule="tick"}' in metrics
    assert 'atlasd_schedule_lateness_seconds{schedule="tick"}' in metrics
    daemon.configure(EVERY_SECOND.replace('cron = "* * * * * *"', 'cron = "61 * * * * *"'))
    refused = ctl(daemon, "config", "reload")
    assert refused.returncode != 0
    assert "jobs.schedules.tick.cron: expected 0 to 59 as the second, got '61'" in refused.stderr
    daemon.configure("")
    assert ctl(daemon, "config", "reload").returncode == 0
    assert ctl_json(daemon, "schedule", "list")["schedules"] == []
