import json
from pathlib import Path

import pytest

from atlasd.core import crashes
from atlasd.events import CoreStarted, InstanceCrashed


def record(service: str = "web", **values: object) -> bytes:
    return json.dumps({"service": service, **values}).encode() + b"\n"


def test_records_come_oldest_first_across_the_rotation(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl.1").write_bytes(record(count=1) + record(count=2))
    (tmp_path / "web.jsonl").write_bytes(record(count=3))
    assert [r["count"] for r in crashes.read(str(tmp_path), "web")] == [1, 2, 3]


def test_torn_lines_and_records_of_others_are_passed_over(tmp_path: Path) -> None:
    text = b'{"service": "we\n' + record("db") + b"7\n" + record(count=1) + b'{"half'
    (tmp_path / "web.jsonl").write_bytes(text)
    assert crashes.read(str(tmp_path), "web") == [{"service": "web", "count": 1}]


def test_without_a_file_there_are_no_records(tmp_path: Path) -> None:
    assert crashes.read(str(tmp_path / "nowhere"), "web") == []


def test_only_the_newest_of_a_huge_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crashes, "READ_MOST", 100)
    lines = [record(count=n) for n in range(50)]
    (tmp_path / "web.jsonl").write_bytes(b"".join(lines))
    found = [r["count"] for r in crashes.read(str(tmp_path), "web")]
    assert found
    assert found == list(range(50 - len(found), 50))


def test_a_file_that_may_not_be_read_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        crashes.read(str(tmp_path), "web")


def test_the_journal_has_the_same_records() -> None:
    data = {"service": "web", "count": 1}
    events = [
        CoreStarted(time=0.0, pid=1, version="0"),
        InstanceCrashed(time=1.0, service="web", data=data),
    ]
    assert crashes.from_journal(events) == [data]
