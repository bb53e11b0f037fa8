"""Thresholds: what a sequence of probe results makes of an instance's health, and when to ask."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services.probing import (
    JITTER,
    LEAST_PAUSE,
    START_DELAY,
    ProbeState,
    Result,
    Thresholds,
    Verdict,
    advance,
    next_delay,
)
from atlasd.services.spec import Probe
from atlasd.states import Health

PASS, WARN, FAIL, UNKNOWN = Health.PASS, Health.WARN, Health.FAIL, Health.UNKNOWN
GOOD = (PASS, WARN)

results = st.lists(st.tuples(st.sampled_from(list(Health)), st.floats(0, 30)), max_size=40)
thresholds = st.builds(
    Thresholds,
    interval=st.floats(0.1, 60),
    fail_after=st.integers(1, 5),
    pass_after=st.integers(1, 5),
    start_period=st.floats(0, 60),
)


def play(limits: Thresholds, *sequence: Health, age: float = 1000.0) -> list[Verdict]:
    """The verdicts after each of the results, all at one age."""
    state = ProbeState()
    verdicts = []
    for health in sequence:
        verdicts.append(advance(limits, state, Result(health=health, detail="why"), age=age))
        state = verdicts[-1].state
    return verdicts


def after(limits: Thresholds, *sequence: Health, age: float = 1000.0) -> Health:
    return play(limits, *sequence, age=age)[-1].health


def test_a_starting_instance_passes_with_the_first_pass() -> None:
    assert after(Thresholds(pass_after=5), FAIL, PASS) is PASS


def test_it_fails_only_after_enough_failures_in_a_row() -> None:
    limits = Thresholds(fail_after=3)
    assert after(limits, PASS, FAIL, FAIL) is PASS
    assert after(limits, PASS, FAIL, FAIL, PASS, FAIL, FAIL) is PASS
    assert after(limits, PASS, FAIL, FAIL, FAIL) is FAIL


def test_after_a_relapse_it_must_pass_several_times_in_a_row() -> None:
    limits = Thresholds(fail_after=1, pass_after=2)
    assert after(limits, PASS, FAIL, PASS) is FAIL
    assert after(limits, PASS, FAIL, PASS, FAIL, PASS) is FAIL
    assert after(limits, PASS, FAIL, PASS, PASS) is PASS
    assert after(limits, PASS, FAIL, WARN, WARN) is WARN


def test_a_warning_is_no_failure() -> None:
    limits = Thresholds(fail_after=1)
    assert after(limits, WARN) is WARN
    assert after(limits, PASS, WARN) is WARN
    assert after(limits, WARN, PASS) is PASS


def test_a_warning_does_not_settle_a_start() -> None:
    limits = Thresholds(fail_after=1, pass_after=2)
    assert [v.state.settled for v in play(limits, WARN, WARN, PASS, WARN)] == [
        False,
        False,
        True,
        True,
    ]
    assert after(limits, WARN, FAIL, PASS) is PASS


def test_failures_in_the_start_period_are_forgiven() -> None:
    limits = Thresholds(fail_after=1, start_period=10)
    early = play(limits, FAIL, FAIL, FAIL, age=9.9)
    assert [v.health for v in early] == [UNKNOWN] * 3
    assert all(v.forgiven for v in early)
    late = advance(limits, early[-1].state, Result(health=FAIL), age=10.0)
    assert late.health is FAIL
    assert not late.forgiven


def test_a_probe_that_cannot_run_says_unknown_and_why() -> None:
    verdict = play(Thresholds(fail_after=1), PASS, UNKNOWN)[-1]
    assert verdict.health is UNKNOWN
    assert verdict.changed
    assert verdict.warning == "why"
    assert play(Thresholds(fail_after=1), PASS)[-1].warning == ""


def test_a_broken_probe_between_failures_breaks_their_row() -> None:
    limits = Thresholds(fail_after=2)
    assert after(limits, PASS, FAIL, UNKNOWN, FAIL) is not FAIL
    assert after(limits, PASS, FAIL, UNKNOWN, FAIL, FAIL) is FAIL


def test_thresholds_of_a_probe_are_never_below_one() -> None:
    limits = Thresholds.of(Probe(kind="file", fail_after=0, pass_after=-1, interval=0))
    assert (limits.fail_after, limits.pass_after) == (1, 1)
    assert limits.interval > 0


@given(thresholds, results)
def test_what_a_verdict_must_have_seen(
    limits: Thresholds, sequence: list[tuple[Health, float]]
) -> None:
    """Each verdict is justified by the results before it, whatever came before those."""
    state = ProbeState()
    seen: list[tuple[Health, bool]] = []
    for health, age in sequence:
        verdict = advance(limits, state, Result(health=health), age=age)
        forgiven = health is FAIL and age < limits.start_period
        seen.append((health, forgiven))
        if health is UNKNOWN:
            assert verdict.health is UNKNOWN
        if verdict.changed and verdict.health is FAIL:
            assert seen[-limits.fail_after :] == [(FAIL, False)] * limits.fail_after
        if verdict.changed and verdict.health in GOOD:
            assert verdict.health is health
            if verdict.previous is FAIL and state.settled:
                assert all(h in GOOD for h, _ in seen[-limits.pass_after :])
        assert verdict.previous is state.health
        assert verdict.state.attempts == state.attempts + 1
        state = verdict.state


@given(thresholds, results)
def test_nothing_but_counted_failures_makes_it_fail(
    limits: Thresholds, sequence: list[tuple[Health, float]]
) -> None:
    state = ProbeState()
    for health, age in sequence:
        counted = health is FAIL and age >= limits.start_period
        state = advance(limits, state, Result(health=UNKNOWN if counted else health), age=age).state
        assert state.health is not FAIL


def delays(limits: Thresholds, count: int, uniform: float = 0.5) -> list[float]:
    state = ProbeState()
    found = []
    for _ in range(count):
        state = advance(limits, state, Result(health=FAIL), age=0).state
        found.append(next_delay(limits, state, took=0, uniform=lambda: uniform))
    return found


def test_while_starting_the_pauses_grow_from_250_ms_to_the_interval() -> None:
    found = delays(Thresholds(interval=10, start_period=1000), 40)
    assert found[0] == START_DELAY
    assert all(a <= b for a, b in pairwise(found))
    assert found[-1] == 10


def test_a_start_is_noticed_within_about_a_quarter_of_its_duration() -> None:
    total = 0.0
    for pause in delays(Thresholds(interval=1000, start_period=1000), 40):
        assert pause <= START_DELAY + 0.26 * total
        total += pause


def test_once_it_has_passed_it_is_asked_every_interval() -> None:
    limits = Thresholds(interval=10)
    state = play(limits, FAIL, PASS)[-1].state
    assert next_delay(limits, state, took=0, uniform=lambda: 0.5) == 10
    assert next_delay(limits, state, took=2, uniform=lambda: 0.5) == 8


def test_a_short_interval_is_kept_while_starting_too() -> None:
    assert delays(Thresholds(interval=0.125), 1) == [0.125]


@given(thresholds, st.integers(0, 500), st.booleans(), st.floats(0, 100), st.floats(0, 0.999))
def test_pauses_stay_in_their_bounds(
    limits: Thresholds, attempts: int, settled: bool, took: float, uniform: float
) -> None:
    state = ProbeState(attempts=attempts, settled=settled)
    pause = next_delay(limits, state, took=took, uniform=lambda: uniform)
    least = min(LEAST_PAUSE, limits.interval) * (1 - JITTER)
    assert least <= pause <= limits.interval * (1 + JITTER)


@pytest.mark.parametrize("uniform", [0.0, 0.999])
def test_pauses_are_spread(uniform: float) -> None:
    state = ProbeState(settled=True)
    pause = next_delay(Thresholds(interval=10), state, took=0, uniform=lambda: uniform)
    assert pause == pytest.approx(9 if uniform == 0 else 11, abs=0.01)
