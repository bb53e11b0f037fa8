"""How many instances a backlog wants, look by look, on a clock that the test winds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.jobs.scaling import Backlog, ScalePolicy, Scaler, Wish

POLICY = ScalePolicy(low=1, high=8, target_wait=10.0, quiet=60.0)


def backlog(available: int = 0, oldest: float = 0.0, running: int = 0, ended: int = 0) -> Backlog:
    return Backlog("email", available, oldest, running, ended)


def test_nothing_to_do_changes_nothing() -> None:
    scaler = Scaler(POLICY)
    assert [scaler.look(float(now), 1, [backlog()]) for now in range(300)] == [None] * 300


def test_late_jobs_double_the_instances_while_the_rate_is_not_known() -> None:
    scaler = Scaler(POLICY)
    late = backlog(available=100, oldest=42.0, running=1)
    assert scaler.look(0.0, 2, [late]) == Wish(4, "oldest job of email waits 42 s, target 10 s")
    # The new ones have half of the target to show their effect.
    assert scaler.look(1.0, 4, [late]) is None
    assert scaler.look(5.9, 4, [late]) is None
    assert scaler.look(6.0, 4, [late]) == Wish(8, "oldest job of email waits 42 s, target 10 s")
    assert scaler.look(30.0, 8, [late]) is None


def test_a_known_rate_says_how_many() -> None:
    scaler = Scaler(POLICY)
    for now in range(5):  # ten a second and instance
        assert scaler.look(float(now), 1, [backlog(90, 1.0, 1, ended=10 * now)]) is None
    found = scaler.look(5.0, 1, [backlog(available=450, oldest=1.0, running=1, ended=50)])
    assert found == Wish(5, "450 jobs of email wait, work for 45 s, target 10 s")


def test_late_jobs_that_will_be_done_in_time_ask_for_no_more() -> None:
    scaler = Scaler(POLICY)
    for now in range(5):
        scaler.look(float(now), 2, [backlog(90, 1.0, 2, ended=20 * now)])
    assert scaler.look(5.0, 2, [backlog(90, 30.0, 2, ended=100)]) is None


def test_no_more_instances_than_jobs() -> None:
    scaler = Scaler(POLICY)
    found = scaler.look(0.0, 4, [backlog(available=1, oldest=42.0, running=4)])
    assert found is not None
    assert found.instances == 5


def test_none_at_all_become_one_when_there_is_a_job() -> None:
    scaler = Scaler(ScalePolicy(low=0, high=8, target_wait=10.0))
    assert scaler.look(0.0, 0, [backlog()]) is None
    assert scaler.look(1.0, 0, [backlog(available=5, oldest=1.0)]) is None
    assert scaler.look(9.0, 0, [backlog(available=5, oldest=11.0)]) is not None


def test_less_to_do_is_believed_after_the_quiet_time_and_acted_on_by_halves() -> None:
    scaler = Scaler(POLICY)
    current, changes = 8, []
    for now in range(400):
        wish = scaler.look(float(now), current, [backlog(running=0)])
        if wish is not None:
            changes.append((now, wish))
            current = wish.instances
    assert [(at, wish.instances) for at, wish in changes] == [(60, 4), (121, 2), (182, 1)]
    assert changes[0][1].reason == "1 would have done for the last 60 s"


def test_one_busy_moment_in_the_quiet_time_keeps_them() -> None:
    scaler = Scaler(POLICY)
    for now in range(120):
        running = 4 if now == 50 else 1
        wish = scaler.look(float(now), 4, [backlog(running=running)])
        assert wish is None or now > 110
    assert scaler.look(120.0, 4, [backlog(running=1)]) == Wish(
        2, "1 would have done for the last 60 s"
    )


def test_what_is_held_back_asks_for_nothing() -> None:
    scaler = Scaler(POLICY)
    paused = Backlog("email", 1000, 500.0, 0, 0, held_back=True)
    assert scaler.look(0.0, 2, [paused]) is None
    other = Backlog("pdf", 10, 30.0, 2, 0)
    assert scaler.look(1.0, 2, [paused, other]) == Wish(
        4, "oldest job of pdf waits 30 s, target 10 s"
    )


def test_the_bounds_are_kept_whatever_is_there() -> None:
    assert Scaler(POLICY).look(0.0, 0, [backlog()]) == Wish(1, "there are to be at least 1")
    assert Scaler(POLICY).look(0.0, 9, [backlog()]) == Wish(8, "there are to be at most 8")


looks = st.lists(
    st.tuples(
        st.floats(0.1, 100.0), st.integers(0, 10_000), st.floats(0, 1000), st.integers(0, 100),
        st.integers(0, 1000), st.booleans(),
    ),
    max_size=60,
)  # fmt: skip


@given(looks, st.integers(0, 5), st.integers(1, 20), st.integers(1, 4))
def test_whatever_it_sees_it_keeps_its_promises(
    seen: list[tuple[float, int, float, int, int, bool]], low: int, more: int, slots: int
) -> None:
    policy = ScalePolicy(low=low, high=low + more, target_wait=10.0, slots=slots)
    scaler, now, current, ended, changed = Scaler(policy), 0.0, low, 0, 0.0
    for step, available, oldest, running, done, held_back in seen:
        now += step
        ended += done
        one = Backlog("a", available, oldest, running, ended, held_back)
        wish = scaler.look(now, current, [one])
        if wish is None:
            continue
        assert low <= wish.instances <= low + more
        assert wish.instances != current
        assert wish.reason
        if wish.instances > current:
            assert available, "nothing waits, and yet there are to be more"
            assert not held_back
        else:
            assert now - changed >= policy.quiet
            assert wish.instances >= current // 2
        current, changed = wish.instances, now


@pytest.mark.parametrize("load", [0.3, 1.0, 2.5, 4.0, 6.5])
def test_an_even_load_finds_its_number_and_stays_there(load: float) -> None:
    """`load` is the work that arrives, in instances; each does five jobs a second."""
    scaler = Scaler(POLICY)
    queue: list[float] = []
    current, ended, changes = 1, 0, []
    owed = spare = 0.0
    for tick in range(6000):
        now = tick / 10.0
        owed += load * 0.5
        while owed >= 1:
            owed -= 1
            queue.append(now)
        spare = min(spare + current * 0.5, current)
        done = min(int(spare), len(queue))
        spare -= done
        ended += done
        del queue[:done]
        if tick % 20 == 0:
            oldest = now - queue[0] if queue else 0.0
            busy = min(current, math.ceil(load))
            wish = scaler.look(now, current, [Backlog("a", len(queue), oldest, busy, ended)])
            if wish is not None:
                changes.append((now, current, wish.instances))
                current = wish.instances
    late = [change for change in changes if change[0] > 300]
    assert not late, changes
    assert not queue or now - queue[0] <= 10.0
    assert math.ceil(load) <= current <= math.ceil(load) + 2, changes
