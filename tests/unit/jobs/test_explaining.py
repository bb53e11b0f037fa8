from dataclasses import replace
from typing import Any

import pytest

from atlasd.contracts.queue import BreakerRow, QueueLimits, Row
from atlasd.jobs.explaining import AHEAD, Around, explained
from atlasd.states import JobState
from tests.unit.jobs.test_ledger import row

NOW = 1_000_000
FREE = Around(now=NOW, limits=QueueLimits(), workers=1)
BANK = BreakerRow("bank", state="open", open_until=NOW + 8_000)


def waits(**rest: Any) -> Row:
    return row(state=JobState.AVAILABLE, attempt=0, worker="", **rest)


def final(state: JobState, reason: str) -> Row:
    return row(state=state, reason=reason, attempt=3, lost_count=5)


REASONS = [
    (row(worker="w"), FREE, "running", "worker w holds it, attempt 1 of 2"),
    (row(cancel_requested=True, worker=""), FREE, "running",
     "a worker holds it, attempt 1 of 2; it is asked"),
    (row(state=JobState.SCHEDULED, attempt=0, run_at=NOW + 5_000), FREE, "scheduled", "due in 5 s"),
    (row(state=JobState.SCHEDULED, run_at=NOW + 5_000), FREE, "retrying", "attempt 1 failed"),
    (waits(), replace(FREE, paused=True), "paused", "atlasctl queue resume mail"),
    (waits(target="bank"), replace(FREE, breaker=BANK), "breaker", "bank is open, for 8 s more"),
    (waits(target="bank"), replace(FREE, breaker=BANK._replace(state="forced_open")), "breaker",
     "atlasctl breaker close bank"),
    (waits(target="bank"), replace(FREE, breaker=BANK._replace(state="half_open")), "breaker",
     "one probe at a time"),
    (waits(), replace(FREE, workers=0, others=2), "no_worker", "of mail; 2 ask for other queues"),
    (waits(), replace(FREE, limits=QueueLimits(concurrency=4), running=4), "concurrency",
     "4 jobs of mail run, and no more than 4 may"),
    (waits(fair_key="acme"), replace(FREE, limits=QueueLimits(key_concurrency=1), running_of_key=1),
     "concurrency", "1 jobs of mail for acme run"),
    (waits(), replace(FREE, limits=QueueLimits(rate=5.0), ahead=49), "rate",
     "let out at 5 a second; 49 jobs rank before it, so that its turn comes in about 10 s"),
    (waits(fair_key="a"), replace(FREE, limits=QueueLimits(key_rate=2.0)), "rate", "for a are let"),
    (waits(priority=9), replace(FREE, ahead=1), "waiting",
     "one job ranks before it; urgent work that comes later can overtake it for 9 min at most"),
    (waits(priority=0), FREE, "waiting", "nothing that comes later overtakes it"),
    (waits(), replace(FREE, ahead=AHEAD, limits=QueueLimits(strict=True)), "waiting",
     "10000 jobs or more rank before it; as long as more urgent work comes, it waits"),
    (final(JobState.DEAD, "exhausted"), FREE, "exhausted", "given up after 3 attempts"),
    (final(JobState.DEAD, "buried"), FREE, "buried", "its handler gave it up"),
    (final(JobState.DEAD, "worker_lost"), FREE, "worker_lost", "lost its worker 5 times"),
    (final(JobState.CANCELLED, "discarded"), FREE, "discarded", "not worth another try"),
    (final(JobState.CANCELLED, "user"), FREE, "user", "somebody cancelled it"),
    (final(JobState.CANCELLED, "expired"), FREE, "expired", "expired before a worker began it"),
    (final(JobState.COMPLETED, ""), FREE, "completed", "it has ended: completed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("job", "around", "reason", "words"), REASONS, ids=[f"{r}-{w[:20]}" for _, _, r, w in REASONS]
)
def test_there_is_one_reason(job: Row, around: Around, reason: str, words: str) -> None:
    found, detail = explained(job, around)
    assert found == reason
    assert words in detail


def test_what_holds_up_all_comes_before_what_holds_up_some() -> None:
    crowded = replace(
        FREE, paused=True, workers=0, breaker=BANK, running=4, limits=QueueLimits(concurrency=1)
    )
    assert explained(waits(target="bank"), crowded)[0] == "paused"
    assert explained(waits(target="bank"), replace(crowded, paused=False))[0] == "breaker"
    assert explained(waits(), replace(crowded, paused=False, breaker=None))[0] == "no_worker"
