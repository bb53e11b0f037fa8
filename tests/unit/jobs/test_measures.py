from collections.abc import Callable

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.queue import Claimed, Failure, Finish, Release, Settlement
from atlasd.jobs import measures
from atlasd.jobs.measures import BOUNDS, OTHER, Measures

LEASE = 30_000
NOW = 1_000_000


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def counted(clock: HandClock) -> Measures:
    return Measures(clock.monotonic)


def claimed(id: int = 1, queue: str = "mail", kind: str = "send", waited: int = 0) -> Claimed:
    return Claimed(
        id, 1, 1, NOW + LEASE, queue, kind, "{}", 5, NOW - waited, NOW - waited, 3, 0, 0, "", "", ""
    )


def test_waits_are_from_the_moment_a_job_was_due(counted: Measures) -> None:
    counted.given(
        [claimed(1, waited=3), claimed(2, waited=40), claimed(3, "slow", waited=7)], LEASE
    )
    counted.given([claimed(4, waited=10_000_000), claimed(5, waited=-5)], LEASE)
    mail, slow = counted.waits["mail"], counted.waits["slow"]
    assert (sum(mail.counts), mail.sum) == (4, 10_000_043)
    assert mail.counts[BOUNDS.index(5)] == 1
    assert mail.counts[BOUNDS.index(50)] == 1
    assert mail.counts[-1] == 1, "what is above every bound"
    assert mail.counts[0] == 1, "a clock that went back makes no negative wait"
    assert (sum(slow.counts), slow.sum) == (1, 7)
    assert (counted.claims("mail"), counted.claims("slow"), counted.claims("none")) == (4, 1, 0)


def test_outcomes_are_told_apart(counted: Measures) -> None:
    jobs = [claimed(1), claimed(2), claimed(3, kind="other"), claimed(4), claimed(5), None]
    said: list[Settlement] = [
        Finish(1, 1, "", 7), Finish(2, 1), Failure(3, 1, "E", took=90), Release(4, 1),
        Finish(5, 1), Finish(6, 1),
    ]  # fmt: skip
    counted.settled(said, jobs, [True, True, True, True, False, True])
    assert counted.outcomes == {
        ("mail", "send", "finished"): 2,
        ("mail", "other", "failed"): 1,
        ("mail", "send", "released"): 1,
    }
    runs = counted.runs["mail"]
    assert (sum(runs.counts), runs.sum) == (3, 97)
    assert (runs.counts[0], runs.counts[BOUNDS.index(100)]) == (1, 1)


def test_the_recent_past_is_counted_by_minutes(counted: Measures, clock: HandClock) -> None:
    def finish(count: int) -> None:
        counted.settled([Finish(1, 1)] * count, [claimed()] * count, [True] * count)

    finish(3)
    assert counted.per_minute("mail") == (3, 0), "the first minute is all there is"
    clock.wind(60)
    finish(1)
    assert counted.per_minute("mail") == (3, 0), "the last whole minute"
    assert counted.lately("mail", 1) == (4, 0)
    assert counted.lately("mail", 0) == (1, 0)
    for _ in range(20):
        clock.wind(60)
        finish(1)
    assert counted.per_minute("mail") == (1, 0)
    assert len(counted.recent["mail"].done) == measures.MINUTES + 1
    clock.wind(600)
    assert counted.per_minute("mail") == (0, 0)
    assert counted.lately("none", 5) == (0, 0)


def test_the_number_of_labels_is_bounded(
    counted: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "QUEUES", 2)
    monkeypatch.setattr(measures, "KINDS", 2)
    for number in range(5):
        job = claimed(number, f"q{number}")
        counted.given([job], LEASE)
        counted.settled([Finish(number, 1)], [job], [True])
    assert set(counted.waits) == set(counted.runs) == {"q0", "q1", OTHER}
    assert counted.outcomes == {
        ("q0", "send", "finished"): 1,
        ("q1", "send", "finished"): 1,
        (OTHER, OTHER, "finished"): 3,
    }


def test_workers_without_a_connection_are_timed_by_their_leases(
    counted: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "ABROAD", 2)
    counted.lent([claimed(1), claimed(2), claimed(3)], LEASE)
    counted.returned([Finish(1, 1), Finish(2, 1), Finish(3, 1, "", 9)], [True] * 3, NOW + 700)
    assert counted.outcomes == {("mail", "send", "finished"): 2}, "the oldest was forgotten"
    assert counted.runs["mail"].sum == 709
    counted.returned([Finish(2, 1)], [False], NOW)
    assert counted.outcomes == {("mail", "send", "finished"): 2}


@pytest.mark.parametrize("make", [Finish, lambda i, t: Failure(i, t, "E")])
def test_nothing_is_counted_for_a_lost_lease(
    counted: Measures, make: Callable[[int, int], Finish | Failure]
) -> None:
    counted.settled([make(1, 1)], [claimed()], [False])
    assert not counted.outcomes
    assert not counted.runs
