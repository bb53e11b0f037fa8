"""What becomes of slots: every misfire policy over changes of the clock, overlap, deadlines."""

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.contracts.queue import HELD, NewJob, ScheduleRow, SlotClaim
from atlasd.jobs.occurrences import Cron, Every, Once
from atlasd.jobs.schedules import (
    COUNTED,
    FUTURE,
    GRACE,
    MOST,
    POLL,
    WINDOW,
    Decision,
    Schedule,
    decide,
    job_of,
)

MINUTE = 60_000
HOUR = 60 * MINUTE
NIGHTLY = NewJob("reports", "report.make", '{"days":1}')
T0 = 1_800_000_000_000 // HOUR * HOUR


def hourly(**rest: Any) -> Schedule:
    return Schedule(name="hourly", plan=Every(HOUR), words="every 1h", job=NIGHTLY, **rest)


def row(**rest: Any) -> ScheduleRow:
    return ScheduleRow("hourly", since=T0, slot=T0, **rest)


def told(found: Decision) -> list[tuple[int, str]]:
    """The slots, as hours after T0, each with its job's fate."""
    return [((claim.slot - T0) // HOUR, _fate(claim)) for claim in found.claims]


def _fate(claim: SlotClaim) -> str:
    return "fired" if claim.job is not None else claim.reason


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# --- daylight saving under each policy: expected instants are those of the zones' rules, see
# test_occurrences


@pytest.mark.parametrize(
    ("zone", "expression", "down", "up", "slots"),
    [
        # Down over the night in which 2:30 doesn't exist: 3:00 summer time stands for it.
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00", "2026-03-09T12:00",
         ["2026-03-08T07:00", "2026-03-09T06:30"]),
        # Down over the night in which 1:30 comes twice: it is owed once.
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00", "2026-11-01T12:00",
         ["2026-11-01T05:30"]),
        # Back up in the middle of the hour's second coming: what was owed was at the first.
        ("America/New_York", "30 1 * * *", "2026-11-01T05:00", "2026-11-01T06:45",
         ["2026-11-01T05:30"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-02T18:00", "2026-10-04T18:00",
         ["2026-10-03T15:30", "2026-10-04T15:15"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-03T18:00", "2026-04-05T18:00",
         ["2026-04-04T14:45", "2026-04-05T15:15"]),
        ("Africa/Casablanca", "30 2 * * *", "2026-02-14T12:00", "2026-02-16T12:00",
         ["2026-02-15T01:30", "2026-02-16T02:30"]),
        ("Africa/Casablanca", "30 2 * * *", "2026-03-21T12:00", "2026-03-23T12:00",
         ["2026-03-22T02:00", "2026-03-23T01:30"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("misfire", ["skip", "once", "all"])
def test_what_was_missed_while_the_clock_changed(
    misfire: str, zone: str, expression: str, down: str, up: str, slots: list[str]
) -> None:
    schedule = Schedule(
        name="n", plan=Cron(expression, ZoneInfo(zone)), words="", job=NIGHTLY, misfire=misfire,
        start_deadline=3 * WINDOW if misfire == "all" else 0,
    )  # fmt: skip
    found = decide(schedule, ScheduleRow("n", slot=ms(down), since=ms(down)), ms(up), busy=False)
    assert [claim.slot for claim in found.claims] == [ms(slot) for slot in slots]
    fired = [claim.job is not None for claim in found.claims]
    wanted = {"skip": [False] * len(slots), "once": [False] * (len(slots) - 1) + [True],
              "all": [True] * len(slots)}  # fmt: skip
    assert fired == wanted[misfire]
    # The same start once more finds nothing owed.
    done = ScheduleRow("n", slot=found.claims[-1].slot, since=ms(down))
    assert decide(schedule, done, ms(up), busy=False).claims == ()


# --- misfire


def test_a_slot_on_time_is_fired_whatever_the_policy() -> None:
    for misfire in ("skip", "once", "all"):
        found = decide(hourly(misfire=misfire), row(), T0 + HOUR + 5, busy=False)
        assert told(found) == [(1, "fired")]
        assert found.wake == T0 + 2 * HOUR
        assert found.missed == 0


@pytest.mark.parametrize(("late", "fate"), [(GRACE, "fired"), (GRACE + 1, "misfire")])
def test_what_is_still_on_time(late: int, fate: str) -> None:
    found = decide(hourly(misfire="skip"), row(), T0 + HOUR + late, busy=False)
    assert told(found) == [(1, fate)]


def test_down_for_some_hours() -> None:
    now = T0 + 4 * HOUR + 30 * MINUTE
    skip = decide(hourly(misfire="skip"), row(), now, busy=False)
    assert (told(skip), skip.missed) == ([(n, "misfire") for n in (1, 2, 3, 4)], 4)
    once = decide(hourly(misfire="once"), row(), now, busy=False)
    assert told(once) == [(1, "misfire"), (2, "misfire"), (3, "misfire"), (4, "fired")]
    every = decide(hourly(misfire="all"), row(), now, busy=False)
    assert (told(every), every.missed) == ([(n, "fired") for n in (1, 2, 3, 4)], 0)


def test_all_has_a_window_and_a_number() -> None:
    now = T0 + 100 * HOUR
    found = decide(hourly(misfire="all"), row(), now, busy=False)
    fired = [slot for slot, fate in told(found) if fate == "fired"]
    assert fired == list(range(100 - WINDOW // HOUR, 101))
    wider = decide(hourly(misfire="all", start_deadline=1000 * HOUR), row(), now, busy=False)
    assert len(told(wider)) == MOST
    often = Schedule(name="o", plan=Every(1000), words="", job=NIGHTLY, misfire="all")
    many = decide(often, ScheduleRow("o", slot=T0), T0 + 12 * HOUR, busy=False)
    assert [claim.slot for claim in many.claims] == [
        T0 + 12 * HOUR - n * 1000 for n in range(MOST - 1, -1, -1)
    ]
    assert many.missed == COUNTED - MOST


def test_a_deadline_holds_for_every_policy() -> None:
    now = T0 + 3 * HOUR + 10 * MINUTE
    for misfire in ("once", "all"):
        short = decide(hourly(misfire=misfire, start_deadline=5 * MINUTE), row(), now, busy=False)
        assert told(short) == [(1, "deadline"), (2, "deadline"), (3, "deadline")]
    found = decide(hourly(misfire="all", start_deadline=2 * HOUR), row(), now, busy=False)
    assert told(found) == [(1, "deadline"), (2, "fired"), (3, "fired")]


def test_nothing_is_owed_from_before_the_plan_or_for_a_pause() -> None:
    now = T0 + 5 * HOUR
    new = ScheduleRow("hourly", since=T0 + 4 * HOUR + 1)
    assert told(decide(hourly(misfire="all"), new, now, busy=False)) == [(5, "fired")]
    for schedule, kept in ((hourly(), row(paused=True)), (hourly(enabled=False), row())):
        assert decide(schedule, kept, now, busy=False) == Decision()


def test_a_single_time_fires_once_and_is_over() -> None:
    at = datetime.fromtimestamp(T0 // 1000, UTC)
    once = Schedule(name="x", plan=Once(at, UTC), words="", job=NIGHTLY)
    before = decide(once, ScheduleRow("x", since=T0 - HOUR), T0 - 1, busy=False)
    assert (before.claims, before.wake) == ((), T0)
    found = decide(once, ScheduleRow("x", since=T0 - HOUR), T0, busy=False)
    assert ([claim.slot for claim in found.claims], found.wake) == ([T0], 0)
    assert decide(once, ScheduleRow("x", since=T0 + 1), T0 + HOUR, busy=False).claims == ()


def test_a_claim_far_ahead_was_made_by_a_clock_that_was_wrong() -> None:
    assert decide(hourly(), row()._replace(slot=T0 + FUTURE + 1), T0, busy=False).anew
    near = decide(hourly(), row()._replace(slot=T0 + FUTURE), T0, busy=False)
    assert (near.anew, near.claims) == (False, ())


# --- overlap


def test_overlap_while_the_last_job_goes_on() -> None:
    now = T0 + HOUR
    assert told(decide(hourly(), row(), now, busy=True)) == [(1, "fired")]
    skip = decide(hourly(overlap="skip"), row(), now, busy=True)
    assert (told(skip), skip.missed) == ([(1, "overlap")], 0)
    buffer = decide(hourly(overlap="buffer_one"), row(), now, busy=True)
    assert (told(buffer), buffer.cancel, buffer.wake) == ([(1, HELD)], False, now + POLL)
    replace = decide(hourly(overlap="replace"), row(), now, busy=True)
    assert (told(replace), replace.cancel, replace.wake) == ([(1, HELD)], True, now + POLL)
    for overlap in ("skip", "buffer_one", "replace"):
        free = decide(hourly(overlap=overlap), row(), now, busy=False)
        assert (told(free), free.cancel) == ([(1, "fired")], False)


def test_one_waits_at_most() -> None:
    kept = row(job=7, held=T0 + HOUR)._replace(slot=T0 + HOUR)
    buffer = decide(hourly(overlap="buffer_one"), kept, T0 + 2 * HOUR, busy=True)
    assert told(buffer) == [(2, "overlap")]
    replace = decide(hourly(overlap="replace"), kept, T0 + 2 * HOUR, busy=True)
    assert (told(replace), replace.cancel) == ([(1, "overlap"), (2, HELD)], True)


def test_what_is_held_is_fired_when_the_job_has_ended() -> None:
    kept = row(job=7, held=T0 + HOUR)._replace(slot=T0 + HOUR)
    early = decide(hourly(overlap="buffer_one"), kept, T0 + HOUR + 1, busy=True)
    assert (early.claims, early.wake) == ((), T0 + HOUR + 1 + POLL)
    found = decide(hourly(overlap="buffer_one"), kept, T0 + HOUR + 30 * MINUTE, busy=False)
    assert told(found) == [(1, "fired")]
    assert found.wake == T0 + 2 * HOUR
    both = decide(hourly(overlap="buffer_one"), kept, T0 + 2 * HOUR, busy=False)
    assert told(both) == [(1, "fired"), (2, HELD)]
    late = hourly(overlap="buffer_one", start_deadline=10 * MINUTE)
    assert told(decide(late, kept, T0 + HOUR + 11 * MINUTE, busy=True)) == [(1, "deadline")]


def test_overlap_among_what_is_made_up_for() -> None:
    now = T0 + 3 * HOUR
    expected = {
        "allow": ["fired", "fired", "fired"],
        "skip": ["fired", "overlap", "overlap"],
        "buffer_one": ["fired", HELD, "overlap"],
        "replace": ["misfire", "misfire", "fired"],
    }
    for overlap, fates in expected.items():
        found = decide(hourly(misfire="all", overlap=overlap), row(), now, busy=False)
        assert [fate for _, fate in told(found)] == fates, overlap


# --- the job


def test_the_job_knows_its_time_and_how_late_it_is() -> None:
    template = NIGHTLY._replace(options='{"timeout":5000}', priority=2)
    schedule = hourly()
    schedule = Schedule(name="n", plan=schedule.plan, words="", job=template)
    made = job_of(schedule, T0, T0 + 1500)
    assert json.loads(made.options) == {
        "timeout": 5000, "schedule": "n", "scheduled_for": "2027-01-15T08:00:00Z", "late_by": 1500,
    }  # fmt: skip
    assert (made.queue, made.kind, made.args, made.priority, made.run_at) == (
        "reports", "report.make", '{"days":1}', 2, 0,
    )  # fmt: skip


def test_splay_is_the_same_for_a_slot_and_differs_between_slots_and_hosts() -> None:
    spread = hourly(splay=10 * MINUTE, seed="a")
    times = [job_of(spread, T0 + n * HOUR, T0 + n * HOUR).run_at - T0 - n * HOUR for n in range(50)]
    again = [spread.put_off(T0 + n * HOUR) for n in range(50)]
    assert times == again
    assert len(set(times)) > 40
    assert all(0 <= one <= 10 * MINUTE for one in times)
    assert hourly(splay=10 * MINUTE, seed="b").put_off(T0) != spread.put_off(T0)
    assert job_of(spread, T0, T0 + 11 * MINUTE).run_at == 0, "it is late enough"


# --- any course of things


@given(
    st.lists(st.integers(0, 5 * HOUR), max_size=40),
    st.sampled_from(["skip", "once", "all"]),
    st.sampled_from(["allow", "skip", "buffer_one", "replace"]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_over_any_restarts_each_slot_is_decided_once_and_none_is_lost(
    steps: list[int], misfire: str, overlap: str, data: st.DataObject
) -> None:
    schedule = hourly(misfire=misfire, overlap=overlap)
    kept, now = row(), T0
    decided: dict[int, str] = {}
    for step in steps:
        now += step
        found = decide(schedule, kept, now, busy=data.draw(st.booleans()))
        assert not found.wake or found.wake > now
        for claim in found.claims:
            before = decided.get(claim.slot)
            assert before in (None, HELD), "no slot is decided twice"
            assert claim.slot > kept.slot or claim.slot == kept.held
            decided[claim.slot] = _fate(claim)
            held = claim.slot if claim.reason == HELD else kept.held
            kept = kept._replace(
                slot=max(kept.slot, claim.slot),
                held=0 if held == claim.slot and claim.reason != HELD else held,
            )
    assert sorted(decided) == list(range(T0 + HOUR, now + 1, HOUR))
    assert sum(fate == HELD for fate in decided.values()) == (1 if kept.held else 0)
    if misfire == "all" and overlap == "allow":
        assert set(decided.values()) <= {"fired"}
