"""Delays, limits, crash loops and the host's budget: rules that hold for all values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services import restart
from atlasd.services.restart import Budget, Exit, FailureWindow, Outcome, delay, judge
from atlasd.services.spec import Backoff, Restart
from atlasd.states import Reason

BACKOFFS = st.builds(
    Backoff,
    base=st.floats(0.01, 60),
    factor=st.floats(1, 10),
    cap=st.floats(0.1, 600),
    jitter=st.floats(0, 0.9),
)


@given(backoff=BACKOFFS, failures=st.integers(-1, 1))
def test_the_first_failure_since_a_stable_run_waits_for_nothing(
    backoff: Backoff, failures: int
) -> None:
    assert delay(failures, backoff) == 0.0


@given(backoff=BACKOFFS, failures=st.integers(2, 100_000), spread=st.floats(0, 1))
def test_a_delay_stays_within_its_bounds(backoff: Backoff, failures: int, spread: float) -> None:
    seconds = delay(failures, backoff, lambda low, high: low + (high - low) * spread)
    least = min(backoff.cap, backoff.base) * (1 - backoff.jitter)
    assert least * (1 - 1e-9) <= seconds <= backoff.cap * (1 + backoff.jitter) * (1 + 1e-9)


@given(backoff=BACKOFFS, failures=st.integers(1, 2000))
def test_without_jitter_no_delay_is_shorter_than_the_one_before(
    backoff: Backoff, failures: int
) -> None:
    calm = replace(backoff, jitter=0.0)
    assert delay(failures + 1, calm) >= delay(failures, calm)


def test_the_defaults_are_those_of_the_semantics() -> None:
    middle = [delay(n, Backoff(), lambda low, high: (low + high) / 2) for n in range(1, 10)]
    assert middle == [0, 1, 2, 4, 8, 16, 32, 60, 60]


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 100),
    asks=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_a_budget_never_gives_more_than_its_burst_and_rate(
    rate: float, burst: int, asks: list[float]
) -> None:
    budget = Budget(rate=rate, burst=burst, now=0.0)
    now, given_at = 0.0, []
    for pause in asks:
        now += pause
        given_at.append(now + budget.take(now))
    for i, first in enumerate(given_at):
        for j in range(i, len(given_at)):
            span = given_at[j] - first
            assert j - i + 1 <= burst + rate * span + 1 + 1e-6
    assert given_at == sorted(given_at), "who asked first is served first"


def test_a_budget_fills_up_to_its_burst_and_no_further() -> None:
    budget = Budget(rate=10, burst=3, now=0.0)
    assert [budget.take(0.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])
    assert budget.tokens(0.1) == 0.0
    assert budget.tokens(1000.0) == 3.0


def test_a_new_budget_keeps_what_is_at_hand() -> None:
    budget = Budget(rate=10, burst=50, now=0.0)
    budget.change(rate=1, burst=2, now=0.0)
    assert [budget.take(0.0) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_a_budget_of_nothing_holds_back_for_long() -> None:
    budget = Budget(rate=0, burst=0, now=0.0)
    assert budget.take(0.0) == restart.STARVED


@given(
    gaps=st.lists(st.floats(0, 100), max_size=300),
    window=st.floats(1, 1000),
)
def test_a_window_counts_what_lies_within_it(gaps: list[float], window: float) -> None:
    failures, now, times = FailureWindow(), 0.0, []
    for gap in gaps:
        now += gap
        failures.add(now)
        times.append(now)
    kept = times[-FailureWindow.KEPT :]
    assert failures.within(now, window) == sum(now - t <= window for t in kept)
    again = FailureWindow()
    again.restore(failures.times())
    assert again.within(now, window) == failures.within(now, window)


@pytest.mark.parametrize(
    ("exit_", "policy", "kind", "outcome"),
    [
        (Exit(code=0), Restart(), "simple", Outcome.DONE),
        (Exit(code=0), Restart(policy="always"), "simple", Outcome.AGAIN),
        (Exit(code=0), Restart(policy="always"), "oneshot", Outcome.DONE),
        (Exit(code=0), Restart(success_codes=(3,)), "simple", Outcome.RESTART),
        (Exit(code=3), Restart(success_codes=(0, 3)), "simple", Outcome.DONE),
        (Exit(code=1), Restart(), "simple", Outcome.RESTART),
        (Exit(code=1), Restart(policy="never"), "simple", Outcome.GIVE_UP),
        (Exit(code=78), Restart(), "simple", Outcome.GIVE_UP),
        (Exit(code=78), Restart(policy="always"), "simple", Outcome.GIVE_UP),
        (Exit(code=125), Restart(no_restart_codes=(125,)), "simple", Outcome.GIVE_UP),
        (Exit(signal=15), Restart(), "simple", Outcome.RESTART),
        (Exit(signal=15), Restart(success_signals=("TERM",)), "simple", Outcome.DONE),
        (Exit(), Restart(), "simple", Outcome.RESTART),
        (Exit(signal=9, oom=True), Restart(), "simple", Outcome.RESTART),
    ],
)
def test_what_an_exit_calls_for(exit_: Exit, policy: Restart, kind: str, outcome: str) -> None:
    assert judge(exit_, policy, kind) == outcome


@pytest.mark.parametrize(
    ("exit_", "reason", "words"),
    [
        (Exit(code=3), Reason.EXIT_CODE, "exit code 3"),
        (Exit(code=78), Reason.EXIT_CODE, "its configuration is wrong"),
        (Exit(signal=11, core_dumped=True), Reason.SIGNAL, "killed by signal SEGV, core dumped"),
        (Exit(signal=40), Reason.SIGNAL, "killed by signal RTMIN+6"),
        (Exit(signal=9, oom=True), Reason.OOM_KILL, "out of memory"),
        (Exit(), Reason.EXIT_CODE, "exit code unknown"),
    ],
)
def test_an_exit_in_a_word_and_in_words(exit_: Exit, reason: Reason, words: str) -> None:
    assert restart.reason_of(exit_) is reason
    assert words in restart.describe(exit_, Restart())


def test_a_limit_counts_only_where_it_is_to_fail() -> None:
    window = FailureWindow()
    for second in range(3):
        window.add(float(second))
    limit = Restart(on_limit="fail", limit_count=3, limit_window=10.0)
    assert restart.limit_reached(limit, window, 2.0)
    assert not restart.limit_reached(limit, window, 11.5)
    assert not restart.limit_reached(replace(limit, on_limit="keep-trying"), window, 2.0)
    assert not restart.limit_reached(replace(limit, limit_count=None), window, 2.0)
