"""Delays between attempts."""

from hypothesis import given
from hypothesis import strategies as st

from atlasd.jobs.retry import Retry, delay

POLICIES = st.builds(
    Retry,
    base=st.integers(1, 100_000),
    factor=st.floats(1.0, 10.0),
    cap=st.integers(1, 10_000_000),
    jitter=st.one_of(st.floats(0.0, 1.0), st.just("full")),
)


def test_without_chance_they_double_up_to_the_cap() -> None:
    policy = Retry(base=5_000, factor=2.0, cap=60_000)
    assert [delay(policy, n, 0.0) for n in range(1, 7)] == [
        5_000, 10_000, 20_000, 40_000, 60_000, 60_000,
    ]  # fmt: skip


def test_chance_takes_at_most_the_jitter_away() -> None:
    assert delay(Retry(base=1000, jitter=0.5), 1, 0.999999) == 500
    assert delay(Retry(base=1000, jitter="full"), 1, 0.999999) == 0


def test_the_thousandth_failure_overflows_nothing() -> None:
    assert delay(Retry(factor=10.0), 100_000, 0.0) == Retry().cap


@given(POLICIES, st.integers(1, 500), st.floats(0.0, 1.0, exclude_max=True))
def test_a_delay_lies_between_its_floor_and_the_cap(
    policy: Retry, failures: int, chance: float
) -> None:
    found = delay(policy, failures, chance)
    full = delay(policy, failures, 0.0)
    part = 1.0 if policy.jitter == "full" else policy.jitter
    assert round(full * (1 - part)) - 1 <= found <= full <= policy.cap
    assert full >= min(policy.base, policy.cap)
