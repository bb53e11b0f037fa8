"""Settings of schedules, `[jobs.schedules.NAME]`: when they fire, and which job."""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from atlasd.config.fields import Duration, Names, Section, setting, spelled
from atlasd.config.units import WrongValueError
from atlasd.errors import nearest

JOB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
"""What a kind, a queue, a fair key, a target and a tag may be called, as where jobs are made."""

LONGEST = 366 * 86400.0
"""Seconds; a job takes no longer duration."""
ARGS_LIMIT = 1_048_576
"""Characters that the arguments may have as JSON, as where jobs are made."""
_FIRST_YEAR, _LAST_YEAR = 1971, 2199

CRON = 'a cron expression such as "30 2 * * *", with seconds first if there are six fields'
ZONE = 'the name of a time zone such as "Europe/Berlin"'
AT = 'a date and time such as "2026-12-24T18:00:00"'
JOB_NAME_EXPECTED = "a name of letters, digits and _ . : / -, at most 128"
_MINUTE_FIRST = ("minute", "hour", "day of month", "month", "day of week")
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = {"day-of-month": "day of month", "day-of-week": "day of week"}
_RANGES = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31, or L for the last",
    "month": "1 to 12, or JAN to DEC",
    "day of week": "0 (Sunday) to 7, or SUN to SAT, as MON#1 for the first Monday",
}


def _cron(text: object) -> str:
    """The expression in five or six fields, one space between them."""
    from cronsim import CronSim, CronSimError

    if not isinstance(text, str) or not text.strip():
        raise WrongValueError(CRON)
    words = text.split()
    if words[0].startswith("@"):
        if len(words) > 1 or words[0].lower() not in _ALIASES:
            hint = nearest(words[0], tuple(_ALIASES))
            raise WrongValueError(CRON, hint=hint)
        words = _ALIASES[words[0].lower()].split()
    if len(words) not in (5, 6):
        raise WrongValueError(CRON, got=f"{text!r}, which has {len(words)} fields")
    expression = " ".join(words)
    try:
        next(CronSim(expression, datetime.now(UTC).replace(tzinfo=None)))
    except CronSimError as error:
        raise _bad_field(words, str(error)) from None
    except StopIteration:
        raise WrongValueError(CRON, got=f"{text!r}, which names no day of any year") from None
    return expression


def _bad_field(words: list[str], said: str) -> WrongValueError:
    """What is wrong with one field, from what cronsim says: `Bad day-of-month`."""
    named = said.removeprefix("Bad ")
    field = _FIELDS.get(named, named)
    names = _MINUTE_FIRST if len(words) == 5 else ("second", *_MINUTE_FIRST)
    if field not in names:
        return WrongValueError(CRON, hint=said)
    text = words[names.index(field)]
    if field == "day of month" and re.fullmatch(r"[0-9,-]+", text):
        days = [int(day) for day in re.findall(r"[0-9]+", text)]
        if days and all(1 <= day <= 31 for day in days) and days == sorted(days):
            month = words[names.index("month")]
            return WrongValueError(
                "days that some month has",
                got=f"day {text} of month {month}, which never comes",
                hint="write L for a month's last day",
            )
    return WrongValueError(f"{_RANGES[field]} as the {field}", got=repr(text))


def _zone(text: object) -> str:
    from zoneinfo import ZoneInfo, available_timezones

    if not isinstance(text, str) or not text:
        raise WrongValueError(ZONE)
    if text == "UTC":
        return text
    try:
        ZoneInfo(text)
    except (KeyError, OSError, ValueError):  # unknown, a folder, or an odd name, as with ..
        known = available_timezones()
        if not known:
            hint = "this host has no time zones: install the package tzdata"
        else:
            alike = {name.lower(): name for name in known}
            hint = nearest(text, tuple(known))
            close = nearest(text.lower(), tuple(alike))
            if close.startswith("did you mean"):
                hint = f"did you mean {alike[close.split(chr(39))[1]]!r}?"
            elif hint.startswith("known"):
                hint = "`timedatectl list-timezones` lists them"
        raise WrongValueError(ZONE, hint=hint) from None
    return text


def _at(text: object) -> datetime:
    if isinstance(text, datetime):
        raise WrongValueError(AT, hint="put it in quotes")
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None or not isinstance(text, str) or len(text) <= len("2026-12-24"):
        raise WrongValueError(AT)
    if found.microsecond:
        raise WrongValueError("a time in whole seconds")
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise WrongValueError(f"a year from {_FIRST_YEAR} to {_LAST_YEAR}")
    return found


def _job_name(text: object) -> str:
    if not isinstance(text, str) or JOB_NAME.fullmatch(text) is None:
        raise WrongValueError(JOB_NAME_EXPECTED)
    return text


def _args(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongValueError("a table of arguments")
    for key, one in value.items():
        try:
            json.dumps(one, allow_nan=False)
        except (TypeError, ValueError):
            raise WrongValueError(
                "what JSON has: text, numbers, true, false, lists and tables",
                hint="put a date in quotes",
                below=(key,),
            ) from None
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    if size > ARGS_LIMIT:
        raise WrongValueError(
            f"arguments of at most {ARGS_LIMIT} characters", got=f"{size} of them"
        )
    return value


CronText = Annotated[str, spelled(_cron, CRON, "string")]
Zone = Annotated[str, spelled(_zone, ZONE, "string")]
At = Annotated[datetime, spelled(_at, AT, "string", show=datetime.isoformat)]
JobName = Annotated[str, spelled(_job_name, JOB_NAME_EXPECTED, "string")]
Args = Annotated[dict[str, Any], spelled(_args, "a table of arguments", "table")]


class JobRetry(Section):
    """How a job that failed is tried again."""

    base: Duration = setting(5.0, "Wait after the first failure. Duration.", ge=0.001, le=LONGEST)
    factor: float = setting(
        2.0, "What each wait is multiplied by for the next.", ge=1, le=100, allow_inf_nan=False
    )
    cap: Duration = setting(3600.0, "The longest wait. Duration.", le=LONGEST)
    jitter: float = setting(
        0.5, "Part of the wait that chance may take away.", ge=0, le=1, allow_inf_nan=False
    )
    within: Duration | None = setting(
        None, "Time after which it isn't tried again, from its making. Duration.", le=LONGEST
    )


class Schedule(Section):
    """A job that is enqueued by the clock; one of cron, every and at says when."""

    cron: CronText | None = setting(
        None,
        'Cron expression of five fields, six with seconds first, or "@daily" and its like.',
    )
    every: Duration | None = setting(
        None, "Fixed interval, counted from 1970-01-01T00:00:00Z. Duration.", ge=1
    )
    at: At | None = setting(None, "A single date and time, by the clock of the zone.")
    zone: Zone = setting("UTC", "Time zone whose clock cron and at go by.")
    kind: JobName = setting(..., "The handler of the job.")
    queue: JobName = setting("default", "The queue of the job.")
    args: Args = setting({}, "Arguments of the job.")
    misfire: Literal["skip", "once", "all"] = setting(
        "once",
        "What becomes of runs that were missed, as atlasd was down: skip, once (the last of "
        "them), all (at most 100, and of the last day or `start_deadline`).",
    )
    start_deadline: Duration | None = setting(
        None, "A run that would come later than this is left out. Duration.", gt=0
    )
    overlap: Literal["allow", "skip", "buffer_one", "replace"] = setting(
        "allow",
        "What becomes of a run while the job of the one before has not ended: allow, skip, "
        "buffer_one (one waits for its end), replace (it is cancelled).",
    )
    splay: Duration = setting(
        0.0,
        "By up to how much a run is put off, by chance but always the same for one run. Duration.",
        le=86400,
    )
    enabled: bool = setting(True, "false: it is known, and never fires.")
    priority: int = setting(5, "Priority of the job, 0 (the most urgent) to 9.", ge=0, le=9)
    max_attempts: int = setting(10, "Failures after which the job is dead.", ge=1, le=1000)
    retry: JobRetry | None = setting(None, "How it is tried again; without it as any job.")
    timeout: Duration | None = setting(
        None, "Time that a run of the job may take. Duration.", gt=0, le=LONGEST
    )
    stall_after: Duration | None = setting(
        None,
        "Time without a progress report after which a run is stalled. Duration.",
        gt=0,
        le=LONGEST,
    )
    expires_in: Duration | None = setting(
        None,
        "Time after which the job is cancelled if nobody has begun it. Duration.",
        gt=0,
        le=LONGEST,
    )
    fair_key: JobName | None = setting(None, "Whose share of the queue it takes.")
    target: JobName | None = setting(None, "What its circuit breaker belongs to.")
    tags: Names = setting((), "Tags of the job.")
    keep_result: bool = setting(True, "false: what the handler returns is not kept.")
