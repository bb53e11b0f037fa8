from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from atlasd.control import models as m


def test_a_duration_is_that_long_ago() -> None:
    before = datetime.now(UTC)
    found = m.moment("1h 30m")
    assert isinstance(found, datetime)
    assert before - timedelta(minutes=90) <= found <= datetime.now(UTC) - timedelta(minutes=90)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T17:44:43Z", datetime(2026, 11, 23, 17, 44, 43, tzinfo=UTC)),
        ("2026-11-23T18:44:43+01:00", datetime(2026, 11, 23, 17, 44, 43, tzinfo=UTC)),
        ("2026-11-23 17:44", datetime(2026, 11, 23, 17, 44, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        # Longer ago than there are times: everything.
        ("999999999w", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert m.moment(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "10", "-5m", "2026-13-01", "10 parsecs"])
def test_what_is_no_moment_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="10m"):
        m.moment(text)


@pytest.mark.parametrize("name", ["TERM", "SIGHUP", "USR1", "RTMIN+3", "9"])
def test_signals(name: str) -> None:
    assert m.SignalRequest(service="web", signal=name).signal == name


@pytest.mark.parametrize("name", ["", "term", "TERM; reboot", "999", "SIG TERM"])
def test_no_signals(name: str) -> None:
    with pytest.raises(ValidationError):
        m.SignalRequest(service="web", signal=name)


def test_a_regular_expression_is_tried_at_once() -> None:
    with pytest.raises(ValidationError, match="not a regular expression"):
        m.LogsRequest(grep="(")
    assert m.LogsRequest(grep="time.?out").grep == "time.?out"


def test_an_answer_takes_the_words_of_a_snapshot_and_refuses_others() -> None:
    fields = {
        "index": 0,
        "state": "running",
        "pid": 1,
        "health": "pass",
        "traffic": "in",
        "since": datetime(2026, 11, 23, tzinfo=UTC),
        "restarts": 0,
        "reason": "ready",
        "memory_bytes": None,
        "cpu_seconds": None,
    }
    dumped = m.Instance.model_validate(fields).model_dump_json()
    assert '"state":"running"' in dumped
    assert '"since":"2026-11-23T00:00:00Z"' in dumped
    with pytest.raises(ValidationError):
        m.Instance.model_validate(fields | {"state": "dancing"})
