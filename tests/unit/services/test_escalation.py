"""The escalation of a stop: it always comes to its end, and a hurry never lengthens it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services.escalation import FOR_EVER, Escalation
from atlasd.services.signals import signal_name, signal_number
from atlasd.services.spec import Stop

STOPS = st.builds(
    Stop,
    timeout=st.floats(0, 100),
    escalation=st.lists(
        st.tuples(st.sampled_from(["INT", "QUIT"]), st.floats(0, 100)), max_size=3
    ).map(tuple),
    kill_mode=st.sampled_from(["mixed", "control-group", "process", "none"]),
)


def play(stop: Stop, hurry: tuple[float, float] | None = None) -> list[tuple[float, str]]:
    """When each signal is sent, with a hurry at a time to be over within so many seconds."""
    escalation, now, due = Escalation(stop), 0.0, 0.0
    sent: list[tuple[float, str]] = []
    while due != FOR_EVER:
        if hurry is not None and hurry[0] <= due:
            when, timeout = hurry
            hurry = None
            now = max(now, when)
            wait = escalation.hurry(now, timeout)
            due = min(due, now + wait) if wait is not None else due
            continue
        now = due
        step = escalation.next(now)
        if step is None:
            break
        sent.append((now, step[0]))
        due = now + step[2]
    return sent


@given(stop=STOPS)
def test_every_escalation_ends_as_its_mode_says(stop: Stop) -> None:
    sent = play(stop)
    names = [name for _, name in sent]
    rest = [name for name, _ in stop.escalation]
    assert names == [stop.signal, *rest, *([] if stop.kill_mode == "none" else ["KILL"])]
    assert [when for when, _ in sent] == sorted(when for when, _ in sent)


@given(stop=STOPS, when=st.floats(0, 200), timeout=st.floats(0, 200))
def test_a_hurry_never_lengthens_and_is_kept(stop: Stop, when: float, timeout: float) -> None:
    calm, hurried = play(stop), play(stop, (when, timeout))
    assert hurried[-1][0] <= calm[-1][0] + 1e-6
    assert hurried[-1][1] == calm[-1][1]
    if calm[-1][0] > when + timeout:
        assert hurried[-1][0] <= when + timeout + 1e-6


def test_a_second_hurry_may_only_shorten() -> None:
    escalation = Escalation(Stop(timeout=100))
    escalation.next(0.0)
    assert escalation.hurry(0.0, 10.0) == 10.0
    assert escalation.hurry(0.0, 20.0) is None
    assert escalation.hurry(0.0, 5.0) == 5.0
    assert escalation.extend(0.0, 500.0) is None


def test_more_time_is_given_to_the_step_under_way_alone() -> None:
    escalation = Escalation(Stop(timeout=10))
    assert escalation.extend(0.0, 50.0) is None, "nothing was sent yet"
    escalation.next(0.0)
    assert escalation.extend(5.0, 1.0) is None
    assert escalation.extend(5.0, 50.0) == 50.0
    assert escalation.next(55.0) == ("KILL", True, FOR_EVER)
    assert escalation.extend(55.0, 50.0) is None


@given(number=st.integers(1, 31) | st.integers(34, 64))
def test_each_signal_has_a_name_that_is_read_back(number: int) -> None:
    assert signal_number(signal_name(number)) == number


@pytest.mark.parametrize("name", ["TERM", "sigterm", "SIGTERM", "15"])
def test_a_signal_may_be_written_in_several_ways(name: str) -> None:
    assert signal_number(name) == 15


@pytest.mark.parametrize("name", ["", "NOSUCH", "0", "99", "RTMIN+99", "RTMIN+x", "TERM+1", "-1"])
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no signal is called"):
        signal_number(name)
