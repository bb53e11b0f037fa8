"""The generic cell rate algorithm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.jobs.rate import allowed, next_allowed, sane, take


def test_a_burst_goes_at_once_and_then_one_each_interval() -> None:
    assert allowed(0.0, 1_000_000, rate=10.0, burst=5) == 5
    tat = take(0.0, 1_000_000, 5, rate=10.0)
    assert allowed(tat, 1_000_000, rate=10.0, burst=5) == 0
    assert next_allowed(tat, rate=10.0, burst=5) == 1_000_100
    assert allowed(tat, 1_000_100, rate=10.0, burst=5) == 1
    assert allowed(tat, 1_000_450, rate=10.0, burst=5) == 4


def test_idle_time_is_saved_up_to_a_burst_only() -> None:
    tat = take(0.0, 0, 1, rate=1.0)
    assert allowed(tat, 3_600_000, rate=1.0, burst=3) == 3


@given(
    st.floats(0.1, 1000.0),
    st.integers(1, 50),
    st.lists(st.integers(0, 5_000), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_than_rate_and_burst(
    rate: float, burst: int, pauses: list[int]
) -> None:
    now, tat = 1_000_000, 0.0
    sent: list[tuple[int, int]] = []
    for pause in pauses:
        now += pause
        count = allowed(tat, now, rate=rate, burst=burst)
        assert 0 <= count <= burst
        if count:
            tat = take(tat, now, count, rate=rate)
            sent.append((now, count))
        # Whoever waits as long as he is told finds his turn.
        assert allowed(tat, next_allowed(tat, rate=rate, burst=burst), rate=rate, burst=burst) >= 1
    for first in range(len(sent)):
        total = 0
        for moment, count in sent[first:]:
            total += count
            window = (moment - sent[first][0]) / 1000.0
            assert total <= burst + rate * window + 1e-6 * total + 1e-6


def test_a_slow_rate_is_exact() -> None:
    tat = take(0.0, 0, 1, rate=1 / 3600)
    assert next_allowed(tat, rate=1 / 3600, burst=1) == pytest.approx(3_600_000, abs=1)


def test_a_clock_that_went_back_shuts_nothing() -> None:
    tat = take(0.0, 10_000_000, 3, rate=1.0)
    assert sane(tat, 10_000_000, rate=1.0, burst=3) == tat
    assert sane(tat, 6_400_000, rate=1.0, burst=3) == 6_400_000
