"""Delays between attempts: they grow, they end at the longest, and chance spreads them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.retry import RetryPolicy, delay

PLAIN = RetryPolicy(first=timedelta(seconds=1), longest=timedelta(seconds=60), jitter=0)


def test_delays_double_up_to_the_longest() -> None:
    seconds = [delay(PLAIN, attempt, 0.5).total_seconds() for attempt in range(1, 9)]
    assert seconds == [1, 2, 4, 8, 16, 32, 60, 60]


def test_an_attempt_however_late_has_a_delay() -> None:
    assert delay(PLAIN, 10**9, 0.5) == timedelta(seconds=60)
    steady = RetryPolicy(first=timedelta(seconds=3), factor=1.0, jitter=0)
    assert delay(steady, 10**9, 0.5) == timedelta(seconds=3)


def test_attempts_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        delay(PLAIN, 0, 0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": timedelta(0)}, "more than nothing"),
        ({"first": timedelta(hours=1)}, "at most the longest"),
        ({"factor": 0.5}, "do not shrink"),
        ({"jitter": 1.0}, "less than 1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RetryPolicy(**change)  # type: ignore[arg-type]


@given(
    attempt=st.integers(1, 1000),
    chance=st.floats(0, 1, exclude_max=True),
    factor=st.floats(1, 1000),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_chance_spreads_a_delay_by_no_more_than_the_jitter(
    attempt: int, chance: float, factor: float, jitter: float
) -> None:
    policy = RetryPolicy(factor=factor, jitter=jitter)
    middle = delay(policy, attempt, 0.5)
    assert policy.first <= middle + timedelta(microseconds=1)
    assert middle <= policy.longest
    spread = middle * jitter + timedelta(microseconds=2)
    assert middle - spread <= delay(policy, attempt, chance) <= middle + spread
    assert delay(policy, attempt + 1, 0.5) >= middle
