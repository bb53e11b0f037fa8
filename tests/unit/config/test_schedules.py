"""Schedules: what a configuration makes of them, and what it refuses."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from atlasd.config.jobs import Jobs
from atlasd.config.load import Offers
from atlasd.config.schedules import Schedule as Section
from atlasd.contracts.secrets import (
    Reference,
    Resolved,
    Sealed,
    SecretBackend,
    SecretsPolicy,
    SecretStore,
    SecretValue,
)
from atlasd.daemon.schedules import schedules_of
from atlasd.jobs.outcome import options
from atlasd.jobs.schedules import Schedule
from tests.unit.config.desk import Desk


def never(settings: Any, context: Any) -> AbstractAsyncContextManager[SecretStore]:
    raise AssertionError("validation opens nothing")


def one(desk: Desk, text: str) -> Schedule:
    config = desk.load(f'[jobs.schedules.x]\nkind = "report.make"\n{text}')
    return schedules_of(config.settings.jobs, host="web1")["x"]


def test_every_setting_arrives(desk: Desk) -> None:
    found = one(
        desk,
        """
        cron = "30 2 * * *"
        zone = "America/New_York"
        queue = "reports"
        args = { days = 1, of = ["a", { b = true }] }
        misfire = "all"
        start_deadline = "2h"
        overlap = "buffer_one"
        splay = "10m"
        priority = 2
        max_attempts = 3
        retry = { base = "1s", factor = 3, cap = "1m", jitter = 0.0, within = "1h" }
        timeout = "5m"
        stall_after = "30s"
        expires_in = "1d"
        fair_key = "acme"
        target = "bank"
        tags = ["a", "b"]
        keep_result = false
        """,
    )
    assert found.words == "30 2 * * * in America/New_York"
    assert found.plan.zone == ZoneInfo("America/New_York")
    assert (found.misfire, found.overlap, found.enabled) == ("all", "buffer_one", True)
    assert (found.start_deadline, found.splay, found.seed) == (7_200_000, 600_000, "web1")
    job = found.job
    assert (job.queue, job.kind, job.args) == (
        "reports", "report.make", '{"days":1,"of":["a",{"b":true}]}',
    )  # fmt: skip
    assert (job.priority, job.max_attempts, job.expires_in) == (2, 3, 86_400_000)
    assert (job.fair_key, job.target) == ("acme", "bank")
    assert options(job.options) == {
        "timeout": 300_000, "stall_after": 30_000, "tags": ["a", "b"], "keep_result": False,
        "retry": {"base": 1000, "factor": 3.0, "cap": 60_000, "jitter": 0.0, "within": 3_600_000},
    }  # fmt: skip


def test_defaults(desk: Desk) -> None:
    found = one(desk, 'every = "15m"')
    assert (found.words, found.plan.zone) == ("every 15m", UTC)
    assert (found.misfire, found.overlap, found.splay) == ("once", "allow", 0)
    assert (found.job.queue, found.job.args, found.job.options) == ("default", "{}", "")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('cron = "@daily"', "0 0 * * * in UTC"),
        ('cron = "@Weekly"', "0 0 * * 0 in UTC"),
        ('cron = "  5   4 * * sun "', "5 4 * * sun in UTC"),
        ('cron = "*/5 * * * * *"', "*/5 * * * * * in UTC"),
        ('cron = "0 0 L * *"\nzone = "Europe/Berlin"', "0 0 L * * in Europe/Berlin"),
        ('cron = "0 0 29 2 *"', "0 0 29 2 * in UTC"),
        ('at = "2026-12-24T18:00:00"', "at 2026-12-24 18:00:00 in UTC"),
        ('at = "2026-12-24 18:00:00+01:00"', "at 2026-12-24 18:00:00+01:00"),
    ],
)
def test_plans(desk: Desk, said: str, words: str) -> None:
    found = one(desk, said)
    assert found.words == words
    now = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert found.plan.after(now) is not None


def test_what_makes_it_another_schedule(desk: Desk) -> None:
    plain = one(desk, 'cron = "@daily"').digest
    assert one(desk, 'cron = "0 0 * * *"\npriority = 1\noverlap = "skip"').digest == plain
    for other in (
        'cron = "1 0 * * *"', 'cron = "@daily"\nzone = "Europe/Berlin"', 'every = "1d"',
        'cron = "@daily"\nenabled = false',
    ):  # fmt: skip
        assert one(desk, other).digest != plain


def test_a_secret_among_the_arguments_is_refused(desk: Desk) -> None:
    def resolve(
        policy: SecretsPolicy, wanted: Sequence[Reference | Sealed], /
    ) -> Mapping[Reference | Sealed, Resolved | Exception]:
        return {one: Resolved(value=SecretValue("hunter2hunter2")) for one in wanted}

    desk.resolve = resolve
    desk.offers = Offers(
        check_types={},
        plugin_settings={},
        secret_backends={"fernet": SecretBackend(name="fernet", summary="", open=never)},
    )
    (said,) = desk.says(
        '[jobs.schedules.x]\nevery = "1h"\nkind = "x"\nargs = { deep = ["${secret:bank}"] }'
    )
    assert said == (
        "atlasd.toml:4:18: jobs.schedules.x.args.deep[0]: a secret, and what a job is made of is "
        "kept in the queue and shown; have the handler read it: `secrets` of the worker's service"
    )


@pytest.mark.parametrize(
    "said",
    [
        'at = "9999-12-31T23:59:59"\nzone = "America/New_York"',
        'at = "0001-01-01T00:00:00"',
        'at = "2026-12-24T18:00:00.5"',
        'every = "1h"\ntimeout = "367d"',
        'every = "1h"\nexpires_in = "367d"',
        'every = "1h"\nretry = { within = "367d" }',
        'every = "1h"\nretry = { factor = 0.5 }',
        f'every = "1h"\nargs = {{ x = "{"y" * 1_048_576}" }}',
        'every = "1h"\nargs = { x = nan }',
        'cron = "@daily"\nzone = "../UTC"',
        'cron = "@daily"\nzone = "America"',
        'cron = "@daily"\nzone = "/etc/localtime"',
        'cron = "@reboot"',
        'cron = ""',
    ],
)
def test_what_no_job_could_be_made_of_is_refused_when_it_is_read(desk: Desk, said: str) -> None:
    (told,) = desk.says(f'[jobs.schedules.x]\nkind = "x"\n{said}')
    assert told.startswith("atlasd.toml:")
    assert ": jobs.schedules.x." in told
    assert len(told) < 400


@given(
    st.text(alphabet="0123456789*/,-LMONSU#@ ", max_size=20) | st.text(max_size=8),
    st.sampled_from(["UTC", "America/New_York"]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_plan_that_fires_or_a_mistake(text: str, zone: str) -> None:
    try:
        found = Section.model_validate({"kind": "x", "cron": text, "zone": zone})
    except ValidationError:
        return
    schedule = schedules_of(Jobs(schedules={"x": found}), host="")["x"]
    now = round(datetime(2026, 3, 7, tzinfo=UTC).timestamp() * 1000)
    assert schedule.plan.after(now) is not None
