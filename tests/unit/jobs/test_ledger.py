import pytest

from atlasd.contracts.queue import BreakerRow, Failure, Row
from atlasd.jobs import ledger
from atlasd.jobs.ledger import OTHER, Died, HeardRules, Ledger
from atlasd.jobs.rules import QueueRules
from atlasd.states import JobState


def row(**rest: object) -> Row:
    made = Row(
        7, JobState.RUNNING, "mail", "send", "{}", 5, 0, 0, 0, 1, 2, 1, 0, 0, "w", "", 0, 0, "", "",
        cancel_requested=False, finalized_at=0, reason="", fingerprint="", errors="", result="",
        progress="", options="", requeued_from="",
    )  # fmt: skip
    return made._replace(**rest)  # type: ignore[arg-type]


def test_retries_and_deaths_are_counted_and_told() -> None:
    told: list[Died] = []
    book = Ledger(died=told.append)
    rules = HeardRules(QueueRules(), book)
    failure = Failure(7, 1, "ValueError", "no such address")
    rules.failed(row(), failure, 0)
    assert (book.retries, book.deaths, told) == ({("mail", "send"): 1}, {}, [])
    to = rules.failed(row(attempt=2), failure, 0)
    assert book.deaths == {("mail", "exhausted"): 1}
    assert told == [
        Died(to.fingerprint, "mail", "send", "exhausted", 7, "ValueError: no such address")
    ]
    rules.failed(row(), failure._replace(verdict="discard"), 0)
    assert len(told) == 1, "what is not worth another try is no death"
    rules.lost(row(), 0, why="lease")
    rules.lost(row(lost_count=4), 0, why="lease")
    assert book.retries == {("mail", "send"): 2}
    assert book.deaths["mail", "worker_lost"] == 1


def test_breakers_that_move_are_told_once() -> None:
    moves: list[tuple[str, str]] = []
    book = Ledger(moved=lambda old, new: moves.append((old.state, new.state)))
    rules = HeardRules(QueueRules(), book)
    shut = rules.breaker(BreakerRow("bank"), [(True, 1, 0)] * 20, 0)
    assert shut.state == "open"
    rules.breaker(shut, [(True, 1, 0)], 0)
    assert moves == [("closed", "open")]
    assert book.trips == {"bank": 1}


def test_the_rules_beneath_can_be_exchanged() -> None:
    rules = HeardRules(QueueRules(), Ledger())
    assert rules.keep(JobState.DEAD, "")[0] == 180 * 86_400_000
    rules.now = QueueRules(chance=lambda: 0.0)
    assert rules.failed(row(), Failure(7, 1, "E"), 0).run_at == 5_000


def test_the_number_of_labels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LABELS", 1)
    book = Ledger()
    rules = HeardRules(QueueRules(), book)
    for name in ("a", "b", "c"):
        rules.failed(row(queue=name), Failure(7, 1, "E"), 0)
    assert book.retries == {("a", "send"): 1, (OTHER, OTHER): 2}
