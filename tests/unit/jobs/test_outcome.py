"""What becomes of jobs that failed or lost their worker."""

import json

from atlasd.contracts.queue import Failure, Row
from atlasd.jobs import outcome
from atlasd.states import JobState

NOW = 1_800_000_000_000


def row(**changes: object) -> Row:
    base = Row(
        id=7, state=JobState.RUNNING, queue="email", kind="email.send", args="{}", priority=5,
        run_at=NOW - 1000, rank_at=NOW, created_at=NOW - 5000, attempt=1, max_attempts=3, token=1,
        lost_count=0, lease_until=NOW + 30_000, worker="w", unique_key="", unique_until=0,
        expires_at=0, fair_key="", target="", cancel_requested=False, finalized_at=0, reason="",
        fingerprint="", errors="", result="", progress="", options="", requeued_from="",
    )  # fmt: skip
    return base._replace(**changes)  # type: ignore[arg-type]


def failure(**changes: object) -> Failure:
    base = Failure(7, 1, "ValueError", "no such address: 17", ("a:b", "c:d"))
    return base._replace(**changes)  # type: ignore[arg-type]


def test_attempts_left_mean_a_later_try_with_the_error_kept() -> None:
    to = outcome.failed(row(), failure(), NOW, 0.0)
    assert to.state is JobState.SCHEDULED
    assert to.run_at == NOW + 5_000
    (entry,) = json.loads(to.errors)
    assert entry == {
        "at": NOW, "attempt": 1, "error": "ValueError", "message": "no such address: 17",
        "frames": ["a:b", "c:d"],
    }  # fmt: skip


def test_none_left_means_dead() -> None:
    to = outcome.failed(row(attempt=3), failure(), NOW, 0.0)
    assert (to.state, to.reason) == (JobState.DEAD, "exhausted")


def test_retry_after_is_never_undercut() -> None:
    assert outcome.failed(row(), failure(retry_after=60_000), NOW, 0.9).run_at == NOW + 60_000
    assert outcome.failed(row(), failure(retry_after=1), NOW, 0.0).run_at == NOW + 5_000


def test_discard_and_bury_end_it_at_once() -> None:
    to = outcome.failed(row(), failure(verdict="discard"), NOW, 0.0)
    assert (to.state, to.reason) == (JobState.CANCELLED, "discarded")
    to = outcome.failed(row(), failure(verdict="bury"), NOW, 0.0)
    assert (to.state, to.reason) == (JobState.DEAD, "buried")


def test_the_job_has_a_retry_policy_of_its_own() -> None:
    own = json.dumps({"retry": {"base": 100, "factor": 1.0, "within": 4_000}})
    assert outcome.failed(row(options=own), failure(), NOW, 0.0).state is JobState.DEAD
    fresh = row(options=own, created_at=NOW - 10)
    assert outcome.failed(fresh, failure(), NOW, 0.0).run_at == NOW + 100


def test_twenty_errors_are_kept_the_last_ones() -> None:
    errors = ""
    for attempt in range(1, 31):
        to = outcome.failed(
            row(attempt=attempt, max_attempts=99, errors=errors), failure(), NOW, 0.0
        )
        errors = to.errors
    assert [entry["attempt"] for entry in json.loads(errors)] == list(range(11, 31))


def test_a_lost_worker_costs_little_at_first_and_kills_in_the_end() -> None:
    first = outcome.lost(row(), NOW, 0.0, why="connection")
    assert first.state is JobState.SCHEDULED
    assert first.run_at <= NOW + 2_000
    assert first.lost
    again = row(lost_count=outcome.LOST_LIMIT - 1, attempt=2, max_attempts=10)
    to = outcome.lost(again, NOW, 0.0, why="lease")
    assert (to.state, to.reason) == (JobState.DEAD, "worker_lost")
    assert "lease" in json.loads(to.errors)[-1]["message"]


def test_equal_failures_have_one_fingerprint() -> None:
    def print_(**changes: object) -> str:
        return outcome.failed(row(), failure(**changes), NOW, 0.0).fingerprint

    assert print_(message="no such address: 18") == print_()
    assert print_(error="KeyError") != print_()
    assert print_(frames=("a:b", "x:y")) != print_()
    no_frames = {"frames": ()}
    assert print_(**no_frames, message="user 5 is gone") == print_(
        **no_frames, message="user 77 is gone"
    )
    assert print_(**no_frames, message="gone") != print_(**no_frames, message="broken")
