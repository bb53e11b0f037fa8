"""The audit log: what was written can be read, and whatever is done to it is found."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.clock import HandClock
from atlasd.errors import AtlasError
from atlasd.secrets.audit import Audit, Entry

KEY = b"k" * 32


def log_in(folder: Path, key: bytes = KEY) -> Audit:
    return Audit(
        folder / "log" / "audit.jsonl", folder / "keys" / "anchor", lambda: key, HandClock()
    )


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """A log with five records."""
    log = log_in(tmp_path)
    for number in range(5):
        log.append([Entry(action="get", name=f"db{number}", actor="uid:0", pid=42)])
    return log


def lines_of(audit: Audit) -> list[bytes]:
    return audit.path.read_bytes().splitlines(keepends=True)


def test_what_was_written_is_read_and_found_right(audit: Audit) -> None:
    verified = audit.verify()
    assert (verified.records, verified.problems) == (5, ())
    assert verified.last.endswith("Z")
    (record,) = audit.read(name="db3")
    assert (record["seq"], record["action"], record["actor"], record["pid"]) == (
        4, "get", "uid:0", 42,
    )  # fmt: skip
    assert [record["name"] for record in audit.read(limit=2)] == ["db3", "db4"]
    assert audit.read(action="set") == []


def test_nothing_was_written_yet(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    assert log.verify().problems == ()
    assert log.read() == []
    log.append([])
    assert not log.path.exists()


def test_others_cannot_read_it(audit: Audit) -> None:
    assert audit.path.stat().st_mode & 0o777 == 0o600


def test_two_writers_share_one_chain(tmp_path: Path) -> None:
    one, other = log_in(tmp_path), log_in(tmp_path)
    for log in (one, other, other, one):
        log.append([Entry(action="get", name="a"), Entry(action="get", name="b")])
    verified = one.verify()
    assert (verified.records, verified.problems) == (8, ())


def change(audit: Audit, **fields: object) -> None:
    lines = lines_of(audit)
    lines[2] = json.dumps({**json.loads(lines[2]), **fields}).encode() + b"\n"
    audit.path.write_bytes(b"".join(lines))


def write(audit: Audit, lines: list[bytes]) -> None:
    audit.path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda a: change(a, actor="uid:1000"), "line 3: record 3 was changed"),
        (lambda a: change(a, seq=4), "line 3: record 4 was changed"),
        (lambda a: change(a, extra="x"), "line 3: record 3 was changed"),
        (lambda a: change(a, mac=0), "line 3 is no record"),
        (lambda a: write(a, lines_of(a)[:1] + lines_of(a)[2:]), "record 2 is missing before"),
        (lambda a: write(a, lines_of(a)[2:]), "records 1 to 2 are missing before record 3"),
        (
            lambda a: write(a, [lines_of(a)[i] for i in (0, 2, 1, 3, 4)]),
            "record 2 stands in the wrong place",
        ),
        (lambda a: write(a, [*lines_of(a), lines_of(a)[1]]), "record 2 stands in the wrong place"),
        (lambda a: write(a, lines_of(a)[:-1]), "the end is missing: 5 records were written"),
        (lambda a: write(a, []), "the end is missing: 5 records were written"),
        (lambda a: a.path.unlink(), "the end is missing: 5 records were written"),
        (lambda a: write(a, [*lines_of(a)[:-1], lines_of(a)[-1][:-9]]), "line 5 is no record"),
        (
            lambda a: write(a, [*lines_of(a)[:2], b"\xff\n", *lines_of(a)[3:]]),
            "line 3 is no record",
        ),
    ],
)
def test_whatever_is_done_to_it_is_found(
    audit: Audit, harm: Callable[[Audit], object], says: str
) -> None:
    harm(audit)
    problems = audit.verify().problems
    assert says in "; ".join(problems)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_single_byte_can_be_changed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = log_in(tmp_path_factory.mktemp("audit"))
    log.append([Entry(action="get", name=f"db{number}") for number in range(3)])
    raw = bytearray(log.path.read_bytes())
    where = data.draw(st.integers(0, len(raw) - 1))
    raw[where] ^= data.draw(st.integers(1, 255))
    log.path.write_bytes(raw)
    assert log.verify().problems


def test_another_key_finds_everything_changed(audit: Audit, tmp_path: Path) -> None:
    assert len(log_in(tmp_path, b"x" * 32).verify().problems) >= 5


def test_a_log_that_was_cut_is_not_gone_on_with(audit: Audit) -> None:
    write(audit, lines_of(audit)[:-1])
    before = audit.path.read_bytes()
    with pytest.raises(AtlasError) as caught:
        audit.append([Entry(action="get", name="later")])
    assert caught.value.code == "audit.broken"
    assert "record 5" in caught.value.message
    assert audit.path.read_bytes() == before


def test_a_missing_anchor_is_told(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "keys" / "anchor").unlink()
    assert "is missing: a cut at the end" in audit.verify().problems[0]


def test_a_broken_anchor_is_told(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "keys" / "anchor").write_text("{")
    for work in (audit.verify, lambda: audit.append([Entry(action="get")])):
        with pytest.raises(AtlasError) as caught:
            work()
        assert caught.value.code == "audit.broken"


def test_a_crash_between_record_and_anchor_is_no_harm(audit: Audit, tmp_path: Path) -> None:
    anchor = tmp_path / "keys" / "anchor"
    before = anchor.read_bytes()
    audit.append([Entry(action="get", name="after")])
    anchor.write_bytes(before)
    assert audit.verify().problems == ()
    audit.append([Entry(action="get", name="next")])
    verified = audit.verify()
    assert (verified.records, verified.problems) == (7, ())


@pytest.mark.parametrize("length", [1, 30, 200])
def test_a_crash_in_the_middle_of_a_record_is_no_harm(audit: Audit, length: int) -> None:
    with audit.path.open("ab") as file:
        file.write(lines_of(audit)[-1][:length])
    assert audit.verify().problems == ()
    audit.append([Entry(action="get", name="next")])
    verified = audit.verify()
    assert (verified.records, verified.problems) == (6, ())


def test_a_crash_in_the_middle_of_the_first_record_is_no_harm(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.path.parent.mkdir(parents=True)
    log.path.write_bytes(b'{"seq": 1, "ti')
    log.append([Entry(action="get", name="a")])
    assert log.verify().records == 1
    assert log.verify().problems == ()


def test_a_reason_stays_on_one_line_and_is_cut(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.append([Entry(action="get", reason="a\nb " + "x" * 9000)])
    (record,) = log.read()
    assert record["reason"].startswith("a b xxx")
    assert len(record["reason"]) == 400


def test_a_log_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    with pytest.raises(AtlasError) as caught:
        log_in(tmp_path).append([Entry(action="get")])
    assert caught.value.code == "audit.broken"
    assert caught.value.hint


def test_records_longer_than_a_page_are_found_again(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.append([Entry(action="get", name="n" * 20_000)])
    log.append([Entry(action="get", name="m" * 20_000)])
    assert log.verify().problems == ()
    assert os.path.getsize(log.path) > 40_000  # noqa: PTH202
