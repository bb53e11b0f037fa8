import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.contracts.queue import Row
from atlasd.errors import AtlasError
from atlasd.jobs.records import line_of, record_of, row_of, same
from atlasd.states import JobState

ERROR = {
    "at": 1_800_000_000_123, "attempt": 2, "error": "ValueError", "message": "no",
    "frames": ["shop:send"], "generation": 4,
}  # fmt: skip
DEAD = Row(
    7, JobState.DEAD, "mail", "mail.send", '{"to":"é"}', 3, 1_800_000_000_000, 1_800_000_000_000,
    1_700_000_000_001, 2, 2, 5, 1, 0, "", "", 0, 0, "acme", "bank", cancel_requested=False,
    finalized_at=1_800_000_000_123, reason="exhausted", fingerprint="f00",
    errors=json.dumps([ERROR], separators=(",", ":")), result="", progress="",
    options='{"tags":["a"]}', requeued_from="dead",
)  # fmt: skip


def test_a_line_has_all_that_the_job_was() -> None:
    record = json.loads(line_of(DEAD))
    back = row_of(record, "line 1")
    assert back.unique_key.startswith("import:")
    lost = {"id": 0, "unique_key": "", "rank_at": DEAD.rank_at}
    assert back._replace(**lost) == DEAD._replace(**lost)  # type: ignore[arg-type]
    assert row_of(record, "line 9").unique_key == back.unique_key, "the same line is known again"
    assert row_of({**record, "token": 6}, "line 1").unique_key != back.unique_key
    assert same(record, DEAD)
    assert not same(record, DEAD._replace(finalized_at=DEAD.finalized_at + 1))


def test_little_is_enough() -> None:
    row = row_of(
        {
            "kind": "a", "reason": "buried", "created": "2026-11-23T17:44:43Z",
            "run_at": "2026-11-23T17:44:43Z", "died": "2026-11-23T18:44:43+01:00",
        },
        "line 1",
    )  # fmt: skip
    assert (row.queue, row.args, row.priority, row.max_attempts) == ("default", "{}", 5, 10)
    assert row.finalized_at == row.created_at
    assert row.fingerprint, "a group of its own is found for it"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "no name"}, "line 3.kind: expected a name"),
    ({"args": [1]}, "line 3.args: expected an object"),
    ({"priority": 10}, "line 3.priority: expected a whole number, 0 to 9"),
    ({"created": "yesterday"}, "line 3.created: expected a time with its zone"),
    ({"died": "2026-11-23T17:44:43"}, "line 3.died: expected a time with its zone"),
    ({"run_at": 5}, "line 3.run_at: expected a time with its zone"),
    ({"attempt": -1}, "line 3.attempt: expected a whole number"),
    ({"token": True}, "line 3.token: expected a whole number"),
    ({"reason": "bored"}, "line 3.reason: expected one of exhausted, buried, worker_lost"),
    ({"requeued_from": "heaven"}, "line 3.requeued_from: expected a job's state"),
    ({"errors": {}}, "line 3.errors: expected a list"),
    ({"errors": [5]}, "line 3.errors[0]: expected an object"),
    ({"errors": [{**ERROR, "at": 5}]}, "line 3.errors[0].at: expected a time"),
    ({"errors": [{"oops": 1}]}, "line 3.errors[0].oops: unknown key"),
    ({"options": []}, "line 3.options: expected an object"),
    ({"knid": "a"}, "line 3.knid: unknown key"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_named_with_its_line(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(AtlasError) as caught:
        row_of({**record_of(DEAD), **wrong}, "line 3")
    assert caught.value.code == "job.invalid"
    assert caught.value.message.startswith(words)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(record_of(DEAD))), ANYTHING)
def test_any_line_is_a_job_or_a_refusal(key: str, value: Any) -> None:
    with suppress(AtlasError):
        row = row_of({**record_of(DEAD), key: value}, "line 1")
        assert row.state is JobState.DEAD
        json.loads(line_of(row))
