"""Facts are numbered without a gap, kept within a bound, and what is lost is counted."""

import json

from hypothesis import given
from hypothesis import strategies as st

from atlasd.clock import HandClock
from atlasd.services.journal import KEPT_BYTES, Journal


def seqs(lines: list[bytes]) -> list[int]:
    return [json.loads(line)["event"]["seq"] for line in lines]


@given(sizes=st.lists(st.integers(0, 30_000), max_size=60), since=st.integers(-1, 70))
def test_what_is_kept_and_what_is_lost_are_together_what_there_was(
    sizes: list[int], since: int
) -> None:
    journal = Journal(HandClock())
    for size in sizes:
        journal.add("status", detail="x" * size)
    kept, lost = journal.since(since)
    asked = max(since, 1)
    assert journal.next_seq == len(sizes) + 1
    assert lost + len(kept) == max(0, journal.next_seq - asked)
    assert seqs(kept) == list(range(asked + lost, journal.next_seq))
    assert sum(map(len, kept)) <= KEPT_BYTES


def test_nothing_is_lost_of_a_journal_that_has_kept_everything() -> None:
    journal = Journal(HandClock())
    assert journal.since(0) == ([], 0)
    journal.add("status")
    assert journal.since(0)[1] == 0
    assert seqs(journal.since(0)[0]) == [1]


def test_one_fact_is_kept_however_large_it_is() -> None:
    journal = Journal(HandClock())
    journal.add("status", detail="x" * 2 * KEPT_BYTES)
    assert seqs(journal.since(1)[0]) == [1]


def test_listeners_hear_each_fact_until_they_have_enough() -> None:
    clock = HandClock(monotonic=5.0, wall=1_000.0)
    journal = Journal(clock)
    heard: list[bytes] = []
    stop = journal.listen(heard.append)
    journal.add("transition", service="web", instance=0)
    stop()
    stop()
    journal.add("transition")
    assert [json.loads(line) for line in heard] == [
        {
            "event": {
                "seq": 1,
                "time": 1000.0,
                "monotonic": 5.0,
                "kind": "transition",
                "service": "web",
                "instance": 0,
            }
        }
    ]


def test_a_listener_may_leave_while_a_fact_is_told() -> None:
    journal = Journal(HandClock())
    heard: list[str] = []

    def first(_: bytes) -> None:
        heard.append("first")
        stop()

    stop = journal.listen(first)
    journal.listen(lambda _: heard.append("second"))
    journal.add("status")
    journal.add("status")
    assert heard == ["first", "second", "second"]
