"""Crash records: equal crashes have one fingerprint, and are counted across files and starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.services import crash
from atlasd.services.crash import CrashFile, fingerprint
from atlasd.services.restart import Exit

DIED = Exit(code=1)


def record(key: str = "k", **more: Any) -> dict[str, Any]:
    return {"fingerprint": key, **more}


@given(numbers=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)))
def test_numbers_addresses_and_identifiers_make_no_difference(numbers: tuple[int, int]) -> None:
    first, second = (
        fingerprint(
            "web",
            "exit-code",
            DIED,
            [f"worker {n}: bad pointer {n:#x}", f"request {n:032x} failed"],
        )
        for n in numbers
    )
    assert first == second


def test_what_matters_makes_a_difference() -> None:
    base = fingerprint("web", "exit-code", DIED, ["no such table: users"])
    others = {
        fingerprint("api", "exit-code", DIED, ["no such table: users"]),
        fingerprint("web", "liveness", DIED, ["no such table: users"]),
        fingerprint("web", "exit-code", Exit(code=2), ["no such table: users"]),
        fingerprint("web", "exit-code", Exit(signal=1), ["no such table: users"]),
        fingerprint("web", "exit-code", DIED, ["no such table: orders"]),
    }
    assert base not in others
    assert len(others) == 5


def test_only_the_last_three_lines_count() -> None:
    assert fingerprint("web", "x", DIED, ["early", "a", "", "b", "c"]) == fingerprint(
        "web", "x", DIED, ["a", "b", "c"]
    )


def test_equal_crashes_are_counted_also_after_a_restart_of_the_role(tmp_path: Path) -> None:
    file = CrashFile(str(tmp_path), "web")
    assert [file.add(record(k))["count"] for k in "aba"] == [1, 1, 2]
    again = CrashFile(str(tmp_path), "web")
    assert [again.add(record(k))["count"] for k in "abc"] == [3, 2, 1]


def test_a_full_file_is_begun_anew_and_the_counts_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash, "KEEP_BYTES", 500)
    file = CrashFile(str(tmp_path), "web")
    counts = [file.add(record("k", last_output=["x" * 100]))["count"] for _ in range(20)]
    assert counts == list(range(1, 21))
    assert {p.name for p in tmp_path.iterdir()} <= {"web.jsonl", "web.jsonl.1"}
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 2000
    assert CrashFile(str(tmp_path), "web").add(record("k"))["count"] == 21


def test_torn_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_bytes(
        b'{"fingerprint": "k", "count": 4}\n{"fing\n\xff\xfe\n[1]\n{"fingerprint": "n"}\n'
    )
    file = CrashFile(str(tmp_path), "web")
    assert file.add(record("k"))["count"] == 5
    assert file.add(record("n"))["count"] == 2


def test_only_the_end_of_a_long_file_is_read_for_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash, "COUNTS_BYTES", 200)
    path = tmp_path / "web.jsonl"
    lines = [json.dumps(record(f"k{i}", count=i + 1)) for i in range(100)]
    path.write_text("\n".join(lines) + "\n")
    file = CrashFile(str(tmp_path), "web")
    assert file.add(record("k99"))["count"] == 101
    assert file.add(record("k3"))["count"] == 1


def test_a_record_tells_the_whole_story() -> None:
    made = crash.make(
        wall=1_800_000_000.0,
        service="web",
        index=1,
        pid=42,
        cause="signal",
        detail="killed by signal SEGV",
        exit_=Exit(signal=11, core_dumped=True, max_rss=1000, cpu_seconds=2.5),
        uptime=1.23456,
        memory_bytes=None,
        cpu_seconds=None,
        failures=2,
        in_window=3,
        last_output=[str(i) for i in range(50)],
        next_step="started again",
    )
    assert made["time"] == "2027-01-15T08:00:00.000Z"
    assert (made["signal"], made["exit_code"], made["core_dumped"]) == ("SEGV", None, True)
    assert (made["memory_bytes"], made["cpu_seconds"]) == (1000, 2.5)
    assert made["uptime_seconds"] == 1.235
    assert made["last_output"] == [str(i) for i in range(50 - crash.LAST_LINES, 50)]
