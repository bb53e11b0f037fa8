from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.jobs.verdict import CALM, DEGRADED, OK, STALLED, WORDS, QueueHealth, Seen, judge, settle

CALM_QUEUE = Seen(
    available=0, running=0, scheduled=0, waited=0.0, idle=0.0, workers=1, max_wait=600.0
)
WAITING = replace(CALM_QUEUE, available=3, waited=10.0)


@pytest.mark.parametrize(
    ("seen", "word", "reason"),
    [
        (CALM_QUEUE, OK, "no job waits"),
        (WAITING, OK, "3 jobs wait, the first for 10 s"),
        (replace(WAITING, paused=True, idle=900, workers=0), OK, "paused by an operator; 3"),
        (replace(WAITING, idle=61, workers=0), STALLED, "3 jobs wait, and no worker asks for them"),
        (replace(WAITING, available=1, idle=61, workers=0), STALLED, "one job waits, and no"),
        (replace(WAITING, idle=59, workers=0), OK, "3 jobs wait"),
        (replace(WAITING, idle=61, shut=("bank",)), STALLED, "the breaker of bank is open"),
        (replace(WAITING, idle=200), STALLED, "nothing was begun for 3 min, though workers ask"),
        (replace(WAITING, idle=200, running=1), OK, "3 jobs wait"),
        (replace(WAITING, waited=900), DEGRADED, "has waited 15 min, more than 10 min"),
        (replace(WAITING, waited=900, workers=0), DEGRADED, "no worker is connected"),
        (replace(CALM_QUEUE, finished=10, failed=10), DEGRADED, "10 of the last 20 runs failed"),
        (replace(CALM_QUEUE, finished=9, failed=9), OK, "no job waits"),
        (replace(WAITING, shut=("bank",)), DEGRADED, "of bank is open: jobs for it wait"),
        (replace(CALM_QUEUE, shut=("bank",)), OK, "no job waits"),
        (replace(WAITING, size=100, scheduled=87), DEGRADED, "90 of at most 100 jobs wait"),
        (replace(WAITING, size=100, scheduled=86), OK, "3 jobs wait"),
    ],
)  # fmt: skip
def test_a_word_and_its_reason(seen: Seen, word: str, reason: str) -> None:
    found, why = judge(seen)
    assert found == word
    assert reason in why


def test_it_gets_worse_at_once_and_better_after_a_while() -> None:
    health = settle(None, OK, "fine", 0.0)
    health = settle(health, DEGRADED, "late", 10.0)
    assert (health.word, health.since) == (DEGRADED, 10.0)
    health = settle(health, STALLED, "still", 11.0)
    assert (health.word, health.since) == (STALLED, 11.0)
    health = settle(health, OK, "fine", 20.0)
    assert (health.word, health.reason) == (STALLED, "still")
    health = settle(health, STALLED, "again", 40.0)
    health = settle(health, OK, "fine", 49.0)
    assert health.word == STALLED, "it has to be better without a break"
    health = settle(health, OK, "fine", 49.0 + CALM)
    assert (health.word, health.reason, health.since) == (OK, "fine", 49.0 + CALM)


def test_a_pause_is_believed_at_once() -> None:
    health = settle(settle(None, STALLED, "still", 0.0), OK, "paused by an operator", 1.0)
    assert health.word == OK


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.floats(0.1, 20.0)), max_size=60))
def test_it_does_not_flap(steps: list[tuple[str, float]]) -> None:
    now, health = 0.0, QueueHealth(word=OK, reason="", since=0.0)
    recovered: list[float] = []
    for word, passed in steps:
        now += passed
        before, health = health, settle(health, word, word, now)
        assert WORDS.index(health.word) >= WORDS.index(word) or health.word == word
        if WORDS.index(health.word) < WORDS.index(before.word):
            recovered.append(now)
    assert all(b - a >= CALM for a, b in pairwise(recovered))
