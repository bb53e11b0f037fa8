from hypothesis import given
from hypothesis import strategies as st

from atlasd.checks.schedule import JITTER, SPREAD, Pace, first, following

PACES = st.builds(Pace, interval=st.floats(0.01, 86400), deadline=st.floats(0.01, 86400))
CHANCES = st.floats(0, 1, exclude_max=True)


@given(PACES, CHANCES)
def test_first_runs_are_spread_but_never_later_than_their_interval(
    pace: Pace, chance: float
) -> None:
    assert 0 <= first(pace, chance) <= min(SPREAD, pace.interval)


@given(PACES, st.floats(0, 1e6), st.floats(0, 1e5), CHANCES)
def test_runs_begin_an_interval_apart_and_never_back_to_back(
    pace: Pace, began: float, took: float, chance: float
) -> None:
    now = began + took
    wait = following(pace, began, now, chance)
    assert wait >= pace.interval / 10
    apart = now + wait - began
    slack = 1e-6 * (1 + began + took)
    if took < pace.interval * (0.9 - JITTER):
        assert pace.interval * (1 - JITTER) - slack <= apart <= pace.interval * (1 + JITTER) + slack


@given(PACES)
def test_a_run_may_not_outlast_its_interval(pace: Pace) -> None:
    assert pace.limit <= pace.interval
    assert pace.limit <= pace.deadline
