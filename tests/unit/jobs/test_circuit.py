"""Circuit breakers of targets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.contracts.queue import BreakerRow
from atlasd.jobs import circuit
from atlasd.jobs.circuit import CircuitPolicy, after, tick

POLICY = CircuitPolicy()
NOW = 1_800_000_000_000


def results(
    row: BreakerRow, failures: int, successes: int = 0, took: int = 5
) -> list[tuple[bool, int, int]]:
    return [(True, took, row.epoch)] * failures + [(False, took, row.epoch)] * successes


def opened(now: int = NOW) -> BreakerRow:
    row = BreakerRow("bank")
    return after(row, results(row, 20), now, POLICY)


def test_it_opens_when_half_of_enough_calls_failed() -> None:
    row = BreakerRow("bank")
    assert after(row, results(row, 19), NOW, POLICY).state == "closed"
    assert after(row, results(row, 10, 10), NOW, POLICY).state == "open"
    assert after(row, results(row, 9, 11), NOW, POLICY).state == "closed"


def test_failures_older_than_the_window_are_forgotten() -> None:
    row = BreakerRow("bank")
    row = after(row, results(row, 19), NOW, POLICY)
    later = NOW + circuit.BUCKET * circuit.BUCKETS
    assert after(row, results(row, 1), later, POLICY).state == "closed"
    assert after(row, results(row, 1), later - circuit.BUCKET, POLICY).state == "open"


def test_slow_calls_open_it_too() -> None:
    policy = CircuitPolicy(slow_after=1_000)
    row = BreakerRow("bank")
    assert after(row, results(row, 0, 20, took=1_001), NOW, policy).state == "open"
    assert after(row, results(row, 0, 20, took=1_000), NOW, policy).state == "closed"


def test_it_is_half_open_after_its_time_and_closes_by_three_probes() -> None:
    row = opened()
    assert NOW + 13_500 <= row.open_until <= NOW + 16_500
    assert tick(row, row.open_until - 1).state == "open"
    row = tick(row, row.open_until)
    assert row.state == "half_open"
    for state in ("half_open", "half_open", "closed"):
        row = after(row, results(row, 0, 1), NOW + 20_000, POLICY)
        assert row.state == state
    assert row.trips == 0


def test_a_probe_that_fails_opens_it_for_longer_up_to_the_cap() -> None:
    row, rests = opened(), []
    for _ in range(9):
        now = row.open_until
        row = tick(row, now)
        row = after(row, results(row, 1), now, POLICY)
        assert row.state == "open"
        rests.append((row.open_until - now) / 1000)
    assert rests[0] == pytest.approx(30, rel=0.11)
    assert rests[1] == pytest.approx(60, rel=0.11)
    assert rests[-1] == pytest.approx(600, rel=0.11)


def test_results_of_an_older_epoch_say_nothing() -> None:
    row = opened()
    late = results(BreakerRow("bank"), 0, 50)
    assert after(row, late, NOW, POLICY) == row
    half = tick(row, row.open_until)
    assert after(half, late, NOW + 20_000, POLICY) == half


@pytest.mark.parametrize("state", ["forced_open", "disabled"])
def test_a_forced_state_stays(state: str) -> None:
    row = BreakerRow("bank", state=state)
    assert after(row, results(row, 100), NOW, POLICY) == row
    assert tick(row, NOW + 10**9) == row


def test_metrics_only_counts_and_never_opens() -> None:
    row = BreakerRow("bank", state="metrics_only")
    row = after(row, results(row, 100), NOW, POLICY)
    assert row.state == "metrics_only"
    assert "100" in row.buckets
    assert not circuit.is_shut(row)


def test_an_open_one_can_be_asked_to_wait_longer() -> None:
    row = opened()
    assert circuit.lengthen(row, NOW + 99_000).open_until == NOW + 99_000
    assert circuit.lengthen(row, NOW).open_until == row.open_until


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("result"), st.booleans(), st.integers(0, 3)),
            st.tuples(st.just("wait"), st.integers(0, 700_000), st.just(0)),
        ),
        max_size=120,
    )
)
def test_every_change_of_state_is_an_epoch_and_only_legal_ones_happen(
    steps: list[tuple[str, int, int]],
) -> None:
    legal = {
        ("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open"),
    }  # fmt: skip
    row, now = BreakerRow("bank"), NOW
    for kind, what, behind in steps:
        if kind == "wait":
            now += what
            found = tick(row, now)
        else:
            found = after(row, [(bool(what), 1, row.epoch - behind)] * 7, now, POLICY)
        if found.state != row.state:
            assert (row.state, found.state) in legal or found.epoch > row.epoch + 1
            assert found.epoch > row.epoch
        row = found


def test_a_clock_that_went_back_keeps_no_breaker_open_for_longer() -> None:
    later = 10_000_000
    opened = BreakerRow(
        "api", "open", epoch=1, open_until=later + 15_000, trips=1, changed_at=later
    )
    back = circuit.tick(opened, later - 3_600_000)
    assert (back.state, back.epoch) == ("open", 1)
    assert back.open_until == later - 3_600_000 + 15_000
    assert circuit.tick(back, later - 3_600_000 + 15_000).state == "half_open"


def test_what_the_future_counted_is_not_counted() -> None:
    later = 10_000_000
    row = circuit.after(BreakerRow("api"), [(True, 0, 0)] * 19, later, CircuitPolicy())
    row = circuit.after(row, [(True, 0, 0)], later - 3_600_000, CircuitPolicy())
    assert row.state == "closed"
