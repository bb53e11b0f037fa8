"""The breaker: closed, open, half-open, by a clock that stands still until it is wound."""

from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atlasd.breaker import Breaker, BreakerPolicy, BreakerState
from atlasd.clock import HandClock

POLICY = BreakerPolicy(failures=3, rest=timedelta(seconds=10), longest_rest=timedelta(seconds=40))


def opened(clock: HandClock) -> Breaker:
    breaker = Breaker(clock, POLICY)
    for _ in range(3):
        assert breaker.admit()
        breaker.failed()
    return breaker


def test_it_opens_at_the_last_of_the_failures_in_a_row() -> None:
    breaker = Breaker(HandClock(), POLICY)
    assert [breaker.failed() for _ in range(3)] == [False, False, True]
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit()


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(HandClock(), POLICY)
    breaker.failed()
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    breaker.failed()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit()


def test_after_its_rest_it_admits_one_call_at_a_time() -> None:
    clock = HandClock()
    breaker = opened(clock)
    clock.wind(9.9)
    assert not breaker.admit()
    assert breaker.remaining == pytest.approx(timedelta(seconds=0.1), abs=timedelta(microseconds=9))
    clock.wind(0.2)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit()
    assert not breaker.admit()


def test_a_try_that_succeeds_closes_it() -> None:
    clock = HandClock()
    breaker = opened(clock)
    clock.wind(10)
    assert breaker.admit()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.failures == 0
    assert breaker.remaining == timedelta(0)


def test_each_try_that_fails_doubles_the_rest_up_to_the_longest() -> None:
    clock = HandClock()
    breaker = opened(clock)
    rests = []
    for _ in range(4):
        rests.append(breaker.remaining.total_seconds())
        clock.wind(rests[-1])
        assert breaker.admit()
        assert breaker.failed()
    assert rests == [10, 20, 40, 40]


def test_a_try_that_is_withdrawn_leaves_the_place_to_another() -> None:
    clock = HandClock()
    breaker = opened(clock)
    clock.wind(10)
    assert breaker.admit()
    breaker.withdrawn()
    assert breaker.admit()


def test_a_call_from_before_that_fails_late_does_not_lengthen_the_rest() -> None:
    clock = HandClock()
    breaker = opened(clock)
    clock.wind(5)
    assert breaker.failed() is False
    assert breaker.remaining == timedelta(seconds=5)
    clock.wind(5)
    assert breaker.failed() is False  # half-open, and it isn't the one that was admitted
    assert breaker.admit()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"failures": 0}, "at the earliest"),
        ({"rest": timedelta(0)}, "more than no time"),
        ({"rest": timedelta(hours=1)}, "at most its longest rest"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BreakerPolicy(**change)  # type: ignore[arg-type]


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls and their ends: what holds always."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.breaker = Breaker(self.clock, POLICY)
        self.under_way = 0
        self.failures_in_a_row = 0

    @rule(seconds=st.floats(0, 50))
    def time_passes(self, seconds: float) -> None:
        self.clock.wind(seconds)

    @rule()
    def call(self) -> None:
        state = self.breaker.state
        admitted = self.breaker.admit()
        if state is BreakerState.CLOSED:
            assert admitted
        if state is BreakerState.OPEN:
            assert not admitted
        self.under_way += admitted

    @precondition(lambda self: self.under_way)
    @rule()
    def succeeds(self) -> None:
        self.under_way -= 1
        self.breaker.succeeded()
        self.failures_in_a_row = 0
        assert self.breaker.state is BreakerState.CLOSED

    @precondition(lambda self: self.under_way)
    @rule()
    def fails(self) -> None:
        self.under_way -= 1
        self.failures_in_a_row += 1
        opened_now = self.breaker.failed()
        assert opened_now <= (self.breaker.state is BreakerState.OPEN)

    @precondition(lambda self: self.under_way)
    @rule()
    def is_withdrawn(self) -> None:
        self.under_way -= 1
        self.breaker.withdrawn()

    @invariant()
    def it_is_closed_until_enough_have_failed_in_a_row(self) -> None:
        assert self.breaker.failures == self.failures_in_a_row
        closed = self.breaker.state is BreakerState.CLOSED
        assert closed == (self.failures_in_a_row < POLICY.failures)

    @invariant()
    def it_never_rests_longer_than_its_longest_rest(self) -> None:
        assert timedelta(0) <= self.breaker.remaining <= POLICY.longest_rest

    @invariant()
    def it_is_never_shut_for_good(self) -> None:
        if self.under_way == 0 and self.breaker.state is BreakerState.HALF_OPEN:
            assert self.breaker.admit()
            self.breaker.withdrawn()


TestBreakerMachine = BreakerMachine.TestCase
