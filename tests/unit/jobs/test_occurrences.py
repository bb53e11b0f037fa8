"""When plans fall due: daylight saving in three zones by hand, and any plan against a calendar."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.jobs.occurrences import Cron, Every, Occurrence, Once, Plan

HOUR = 3_600_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def utc(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def walked(plan: Plan, start: str, end: str) -> list[Occurrence]:
    return list(itertools.takewhile(lambda one: one.at <= ms(end), plan.walk(ms(start))))


def forwards(plan: Plan, start: int, end: int) -> list[int]:
    found = []
    at = plan.after(start)
    while at is not None and at <= end:
        found.append(at)
        at = plan.after(at)
    return found


def backwards(plan: Plan, start: int, end: int) -> list[int]:
    return list(itertools.takewhile(lambda at: at > start, plan.back(end)))[::-1]


def last(plan: Plan, moment: int) -> int | None:
    return next(plan.back(moment), None)


# Expected instants are written out from the zones' rules.
#
# New York 2026: at 2:00 on March 8 (07:00 UTC) the clock goes to 3:00; at 2:00 on November 1
# (06:00 UTC) it goes back to 1:00. UTC-5, in summer UTC-4.
# Lord Howe 2026: at 2:00 on April 5 (15:00 UTC the day before) back by half an hour, to 1:30; at
# 2:00 on October 4 (15:30 UTC the day before) on to 2:30. UTC+10:30, in summer UTC+11.
# Casablanca 2026: at 3:00 on February 15 (02:00 UTC) back to 2:00 for the month of Ramadan; at 2:00
# on March 22 (02:00 UTC) on to 3:00. UTC+1, in Ramadan UTC.
TABLE = [
    ("America/New_York", "30 2 * * *", "2026-03-07", "2026-03-10",
     ["2026-03-07 07:30:00", "2026-03-08 07:00:00 shifted", "2026-03-09 06:30:00"]),
    ("America/New_York", "30 1 * * *", "2026-10-31", "2026-11-03",
     ["2026-10-31 05:30:00", "2026-11-01 05:30:00", "2026-11-01 06:30:00 skipped",
      "2026-11-02 06:30:00"]),
    ("America/New_York", "0 2 * * *", "2026-11-01", "2026-11-02",
     ["2026-11-01 07:00:00"]),
    ("America/New_York", "0,30 2,3 * * *", "2026-03-08", "2026-03-09",
     ["2026-03-08 07:00:00 shifted", "2026-03-08 07:00:00 skipped", "2026-03-08 07:00:00 skipped",
      "2026-03-08 07:30:00"]),
    ("America/New_York", "0 30 2 * * *", "2026-03-08", "2026-03-09",
     ["2026-03-08 07:00:00 shifted"]),
    ("America/New_York", "0 30 1 * * *", "2026-11-01", "2026-11-02",
     ["2026-11-01 05:30:00", "2026-11-01 06:30:00 skipped"]),
    ("America/New_York", "*/30 * * * *", "2026-03-08T06:00", "2026-03-08T08:00",
     ["2026-03-08 06:30:00", "2026-03-08 07:00:00 clock", "2026-03-08 07:00:00",
      "2026-03-08 07:30:00", "2026-03-08 08:00:00"]),
    ("America/New_York", "*/30 * * * *", "2026-11-01T05:00", "2026-11-01T07:00",
     ["2026-11-01 05:30:00", "2026-11-01 06:00:00 clock", "2026-11-01 06:00:00",
      "2026-11-01 06:30:00", "2026-11-01 07:00:00"]),
    ("America/New_York", "15 * * * *", "2026-03-08T06:00", "2026-03-08T08:00",
     ["2026-03-08 06:15:00", "2026-03-08 07:00:00 clock", "2026-03-08 07:15:00"]),
    ("America/New_York", "0 9 * * MON-FRI", "2026-03-06", "2026-03-10",
     ["2026-03-06 14:00:00", "2026-03-09 13:00:00"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-03T12:00", "2026-04-06",
     ["2026-04-03 14:45:00", "2026-04-04 14:45:00", "2026-04-04 15:15:00 skipped",
      "2026-04-05 15:15:00"]),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-02T12:00", "2026-10-05",
     ["2026-10-02 15:45:00", "2026-10-03 15:30:00 shifted", "2026-10-04 15:15:00"]),
    ("Australia/Lord_Howe", "*/20 * * * *", "2026-04-04T14:20", "2026-04-04T16:00",
     ["2026-04-04 14:40:00", "2026-04-04 15:00:00 clock", "2026-04-04 15:10:00",
      "2026-04-04 15:30:00", "2026-04-04 15:50:00"]),
    ("Australia/Lord_Howe", "*/10 2 * * *", "2026-04-04T15:00", "2026-04-04T16:30",
     ["2026-04-04 15:30:00", "2026-04-04 15:40:00", "2026-04-04 15:50:00",
      "2026-04-04 16:00:00", "2026-04-04 16:10:00", "2026-04-04 16:20:00"]),
    ("Australia/Lord_Howe", "*/10 2 * * *", "2026-10-03T15:00", "2026-10-03T16:30",
     ["2026-10-03 15:30:00 clock", "2026-10-03 15:30:00", "2026-10-03 15:40:00",
      "2026-10-03 15:50:00"]),
    ("Africa/Casablanca", "30 2 * * *", "2026-02-14", "2026-02-17",
     ["2026-02-14 01:30:00", "2026-02-15 01:30:00", "2026-02-15 02:30:00 skipped",
      "2026-02-16 02:30:00"]),
    ("Africa/Casablanca", "30 2 * * *", "2026-03-21", "2026-03-24",
     ["2026-03-21 02:30:00", "2026-03-22 02:00:00 shifted", "2026-03-23 01:30:00"]),
    ("UTC", "30 2 * * *", "2026-03-08", "2026-03-10",
     ["2026-03-08 02:30:00", "2026-03-09 02:30:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "expression", "start", "end", "expected"), TABLE)
def test_daylight_saving(
    zone: str, expression: str, start: str, end: str, expected: list[str]
) -> None:
    plan = Cron(expression, ZoneInfo(zone))
    found = walked(plan, start, end)
    assert [f"{utc(one.at)} {one.mark}".rstrip() for one in found] == expected
    assert all(bool(one.words) == bool(one.mark) for one in found)
    runs = [one.at for one in found if one.runs]
    assert forwards(plan, ms(start), ms(end)) == runs
    assert backwards(plan, ms(start), ms(end)) == runs


def test_marks_say_why() -> None:
    plan = Cron("30 2 * * *", ZoneInfo("America/New_York"))
    (shifted,) = walked(plan, "2026-03-08", "2026-03-09")
    assert shifted.wall == "2026-03-08 03:00:00-04:00"
    assert shifted.words == "02:30:00 is skipped by the clock: it runs right after the gap"
    often = Cron("*/20 * * * *", ZoneInfo("America/New_York"))
    spring = walked(often, "2026-03-08T06:50", "2026-03-08T07:00")[0]
    assert spring.words == (
        "the clock goes from 02:00 to 03:00: 3 times that the plan names are left out"
    )
    autumn = walked(often, "2026-11-01T05:50", "2026-11-01T06:00")[0]
    assert autumn.words == (
        "the clock goes from 02:00 to 01:00: 3 times that the plan names come again"
    )


def test_in_the_middle_of_an_hour_that_comes_twice_nothing_runs_again() -> None:
    """A restart at the second 1:10 knows that 1:30 has been."""
    plan = Cron("30 1 * * *", ZoneInfo("America/New_York"))
    at = ms("2026-11-01T06:10")
    assert utc(plan.after(at) or 0) == "2026-11-02 06:30:00"
    assert utc(last(plan, at) or 0) == "2026-11-01 05:30:00"


ZONES = ("America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Europe/Berlin", "UTC")
FIELD = st.one_of(st.integers(0, 59).map(str), st.sampled_from(["0,30", "*/20", "15-45/15", "*"]))
HOURS = st.one_of(st.integers(0, 4).map(str), st.sampled_from(["1,2,3", "*/2", "1-3", "*"]))
DAYS = st.sampled_from(["*", "*", "*", "1,15", "SUN", "L"])


@st.composite
def expressions(draw: st.DrawFn) -> str:
    minute, hour, day = draw(FIELD), draw(HOURS), draw(DAYS)
    month_day, week_day = ("*", day) if day == "SUN" else (day, "*")
    plain = f"{minute} {hour} {month_day} * {week_day}"
    return f"0 {plain}" if draw(st.booleans()) else plain


STARTS = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 6, 1)),  # noqa: DTZ001  naive, as st wants
    st.sampled_from(["2026-03-08T05", "2026-11-01T04", "2026-04-04T13", "2026-10-03T13",
                     "2026-02-15T00", "2026-03-22T00", "2026-03-28T23", "2026-10-24T23"])
    .flatmap(lambda text: st.integers(0, 240).map(
        lambda minutes: datetime.fromisoformat(text) + timedelta(minutes=minutes))),
)  # fmt: skip


@given(expressions(), st.sampled_from(ZONES), STARTS, st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_each_run_is_one_of_the_calendar_and_comes_once(
    expression: str, zone: str, start: datetime, hours: int
) -> None:
    """Against every minute of the span, named by the zone's own clock."""
    info = ZoneInfo(zone)
    plan = Cron(expression, info)
    low = ms(start.isoformat()) // 60_000 * 60_000
    high = low + hours * HOUR
    found = forwards(plan, low, high)
    assert found == sorted(set(found))
    assert backwards(plan, low, high) == found
    assert found == [one.at for one in itertools.takewhile(
        lambda one: one.at <= high, plan.walk(low)) if one.runs]  # fmt: skip
    assert found == by_minutes(expression, info, plan.follows_clock, low, high)


def by_minutes(
    expression: str, zone: ZoneInfo, follows_clock: bool, low: int, high: int
) -> list[int]:
    """The same by looking at every minute, and at what the clock showed a minute before."""
    minute, hour, day, _, week_day = expression.split()[-5:]
    found = []
    for at in range(low + 60_000, high + 1, 60_000):
        now = datetime.fromtimestamp(at / 1000, zone)
        before = datetime.fromtimestamp(at / 1000 - 60, zone).replace(tzinfo=None)
        wall = now.replace(tzinfo=None)
        if follows_clock:
            names = [wall]
        else:
            names = [] if now.fold else [wall]
            passed = before + timedelta(minutes=1)
            while passed < wall:  # times that were skipped
                names.append(passed)
                passed += timedelta(minutes=1)
        if any(matches(one, minute, hour, day, week_day) for one in names):
            found.append(at)
    return found


def matches(wall: datetime, minute: str, hour: str, day: str, week_day: str) -> bool:
    last = (wall + timedelta(days=1)).month != wall.month
    return (
        wall.minute in numbers(minute, 60)
        and wall.hour in numbers(hour, 24)
        and (last if day == "L" else wall.day in numbers(day, 32))
        and (week_day == "*" or wall.weekday() == 6)
    )


def numbers(field: str, end: int) -> set[int]:
    span, _, step = field.partition("/")
    if span == "*":
        return set(range(0, end, int(step or 1)))
    if "-" in span:
        first, last = map(int, span.split("-"))
        return set(range(first, last + 1, int(step or 1)))
    return set(map(int, span.split(",")))


def test_seconds() -> None:
    plan = Cron("*/20 * * * * *", UTC)
    start = ms("2026-01-01")
    assert [utc(at)[-8:] for at in forwards(plan, start, start + 60_000)] == [
        "00:00:20", "00:00:40", "00:01:00",
    ]  # fmt: skip
    assert plan.after(start + 20_001) == start + 40_000
    assert last(plan, start + 39_999) == start + 20_000


def test_a_rare_day_is_found_and_a_calendar_that_ends_is_no_error() -> None:
    plan = Cron("0 0 29 2 *", ZoneInfo("Europe/Berlin"))
    assert utc(plan.after(ms("2026-01-01")) or 0) == "2028-02-28 23:00:00"
    assert utc(last(plan, ms("2026-01-01")) or 0) == "2024-02-28 23:00:00"
    assert last(plan, ms("0001-01-02")) is None


@given(st.integers(1, 10**7), st.integers(0, 2 * 10**12))
def test_an_interval_is_counted_from_the_epoch(seconds: int, moment: int) -> None:
    plan = Every(seconds * 1000)
    after, until = plan.after(moment), last(plan, moment)
    assert after is not None
    assert until is not None
    assert until <= moment < after
    assert after - until == seconds * 1000
    assert until % (seconds * 1000) == 0
    assert next(iter(plan.walk(moment))).at == after


def test_an_interval_of_odd_length() -> None:
    first, second = itertools.islice(Every(1500).walk(ms("2026-01-01")), 2)
    assert (first.wall, second.wall) == (
        "2026-01-01 00:00:01.500000+00:00", "2026-01-01 00:00:03+00:00",
    )  # fmt: skip
    assert second.at - first.at == 1500


@pytest.mark.parametrize(
    ("wall", "zone", "expected", "mark"),
    [
        ("2026-12-24T18:00:00", "Europe/Berlin", "2026-12-24 17:00:00", ""),
        ("2026-12-24T18:00:00", "UTC", "2026-12-24 18:00:00", ""),
        ("2026-12-24T18:00:00+05:00", "Europe/Berlin", "2026-12-24 13:00:00", ""),
        ("2026-03-08T02:30:00", "America/New_York", "2026-03-08 07:00:00", "shifted"),
        ("2026-11-01T01:30:00", "America/New_York", "2026-11-01 05:30:00", ""),
    ],
)
def test_a_single_time(wall: str, zone: str, expected: str, mark: str) -> None:
    plan = Once(datetime.fromisoformat(wall), ZoneInfo(zone))
    assert utc(plan.at) == expected
    (found,) = plan.walk(plan.at - 1)
    assert found.mark == mark
    assert list(plan.walk(plan.at)) == []
    assert (plan.after(plan.at - 1), plan.after(plan.at)) == (plan.at, None)
    assert (last(plan, plan.at - 1), last(plan, plan.at)) == (None, plan.at)
