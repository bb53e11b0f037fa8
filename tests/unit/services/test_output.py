"""Capture: what is written into a stream's pipe stands in the log file, once, whatever happens."""

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.clock import HandClock
from atlasd.services import output as output_module
from atlasd.services.loop import Loop
from atlasd.services.output import REST, Capture, Stream
from atlasd.services.output_files import COMPRESS_AFTER
from atlasd.services.output_journal import HEADER, Journal, owner_of
from atlasd.services.output_records import (
    PREFIX,
    Joiner,
    Record,
    compose,
    join,
    parse,
    stamp,
)
from atlasd.services.rotation import DAY, SMALLEST
from atlasd.services.spec import HostPolicy, Log

NOW = 1_795_455_883.123456  # 2026-11-23T17:44:43.123456Z


class Bench:
    """A capture on a hand-wound clock, and its successors on the same folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = HandClock(wall=NOW)
        self.loop = Loop(self.clock)
        self.said: list[str] = []
        self.spawned: list[tuple[Sequence[str], Callable[[int], object]]] = []
        self.budget = 1 << 30
        self.open: list[Capture] = []
        self.capture = self.start()

    def start(self) -> Capture:
        """A capture as it comes up after whatever was before."""
        (self.root / "run").mkdir(exist_ok=True)
        capture = Capture(
            self.loop,
            str(self.root / "run"),
            str(self.root / "log"),
            policy=HostPolicy(log_budget=self.budget),
            spawn=lambda argv, on_exit: self.spawned.append((argv, on_exit)),
            report=self.said.append,
        )
        self.open.append(capture)
        self.capture = capture
        return capture

    def write(self, stream: Stream, data: bytes) -> None:
        """What a child would do."""
        end = stream.child_end()
        try:
            os.set_blocking(end, False)
            assert os.write(end, data) == len(data)
        finally:
            os.close(end)

    def settle(self) -> None:
        """Turn until nothing is read any more."""
        for _ in range(200):
            before = self.capture.bytes_total
            self.loop.turn(0)
            self.loop.turn(0)
            self.clock.wind(REST * 1.01)
            self.loop.turn(0)
            if self.capture.bytes_total == before:
                return
        pytest.fail("the loop does not come to rest")

    def log(self, name: str = "web/0.log") -> bytes:
        """Content of a log file."""
        return (self.root / "log" / name).read_bytes()

    def lines(self, name: str = "web/0.log") -> list[tuple[str, bytes]]:
        """Whole lines of a log file, with their streams."""
        records = filter(None, map(parse, self.log(name).split(b"\n")))
        return [(line.stream, line.message) for line in join(records)]

    def rotated(self, service: str = "web") -> list[str]:
        """Names of the rotated files."""
        return sorted(p.name for p in (self.root / "log" / service).iterdir() if p.suffix != ".log")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.capture.recover()
    yield bench
    for capture in bench.open:
        try:
            capture.close()
        except (ValueError, OSError):
            pass  # the test has closed it already, or simulated its death
    bench.loop.close()


# --- records ---------------------------------------------------------------------------------


def test_a_stamp_has_microseconds_and_always_the_same_length() -> None:
    assert stamp(1_795_455_883_123_456) == b"2026-11-23T17:44:43.123456Z"
    assert stamp(1_795_455_883_000_007) == b"2026-11-23T17:44:43.000007Z"


def test_records_of_a_chunk_carry_one_time_and_the_last_is_marked_as_unfinished() -> None:
    composed = b"".join(compose(b"one\n\ntwo\nthr", b"stderr", 1_795_455_883_123_456))
    head = b"2026-11-23T17:44:43.123456Z stderr "
    assert composed == (head + b"F one\n" + head + b"F \n" + head + b"F two\n" + head + b"P thr\n")


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=10), st.integers(0, 4 * 10**15))
def test_any_bytes_in_any_chunks_come_back(chunks: list[bytes], micros: int) -> None:
    text = b"".join(b"".join(compose(chunk, b"stdout", micros)) for chunk in chunks)
    assert text == b"" or text.endswith(b"\n")
    lines = list(join(filter(None, map(parse, text.split(b"\n")))))
    written = b"".join(chunks)
    expected = written.split(b"\n")
    tail = expected.pop()
    assert [line.message for line in lines if not line.partial] == expected
    assert b"".join(line.message for line in lines if line.partial) == tail


@given(st.binary(max_size=80))
def test_lines_that_are_no_records_are_told_apart(line: bytes) -> None:
    record = parse(line)
    if record is not None:
        assert len(line) >= PREFIX
        assert record.message == line[PREFIX:]


def test_streams_that_interleave_are_joined_separately() -> None:
    joiner = Joiner()
    fed = [
        joiner.feed(Record("t1", "stdout", False, b"he")),
        joiner.feed(Record("t2", "stderr", True, b"oops")),
        joiner.feed(Record("t3", "stdout", False, b"ll")),
        joiner.feed(Record("t4", "stdout", True, b"o")),
    ]
    lines = [line for line in fed if line is not None]
    assert [(line.time, line.stream, line.message) for line in lines] == [
        ("t2", "stderr", b"oops"),
        ("t4", "stdout", b"hello"),
    ]
    assert joiner.unfinished() == []


# --- journal ---------------------------------------------------------------------------------


def test_a_chunk_that_was_taken_is_found_by_the_successor(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    read, write = os.pipe2(os.O_NONBLOCK)
    os.write(write, b"hello\0\n")
    journal = Journal(path, chunk=4096)
    journal.begin(owner_of("web", 3, "stderr"), 77, 5, 1234)
    assert journal.read(read) == 7
    journal.close()  # as after kill -9: nothing more was said
    found = Journal(path).unfinished()
    assert found is not None
    assert (found.owner, found.offset, found.inode, found.micros, found.data) == (
        b"web\x003\0stderr",
        77,
        5,
        1234,
        b"hello\0\n",
    )
    os.close(read)
    os.close(write)


def test_a_death_within_the_read_is_seen_from_the_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path), chunk=4096)
    journal.begin(owner_of("web", 0, "stdout"), 0, 1, 1)
    journal.close()
    with path.open("r+b") as file:  # what the kernel copied before the length was stored
        file.seek(HEADER)
        file.write(b"first\0second\n")
    found = Journal(str(path)).unfinished()
    assert found is not None
    assert found.data == b"first\0second\n"


def test_what_was_written_is_not_found_again(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    read, write = os.pipe2(os.O_NONBLOCK)
    journal = Journal(path, chunk=4096)
    for data in (b"one\n", b"a longer one\n", b"x\n"):
        os.write(write, data)
        journal.begin(owner_of("web", 0, "stdout"), 0, 1, 1)
        count = journal.read(read)
        assert journal.taken(count) == data
        journal.done(count)
    journal.begin(owner_of("web", 0, "stdout"), 0, 1, 1)
    assert journal.read(read) == 0
    journal.close()
    assert Journal(path).unfinished() is None
    os.close(read)
    os.close(write)


# --- capture ---------------------------------------------------------------------------------


def test_lines_of_both_streams_stand_in_one_file_with_their_time(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    err = bench.capture.stream("web", 0, "stderr")
    bench.write(out, b"hello\nworld\n")
    bench.settle()
    bench.write(err, b"oops\n")
    bench.settle()
    assert bench.lines() == [("stdout", b"hello"), ("stdout", b"world"), ("stderr", b"oops")]
    assert bench.log().startswith(b"2026-11-23T17:44:43.123456Z stdout F hello\n")
    assert stat.S_IMODE((bench.root / "log/web/0.log").stat().st_mode) == 0o640
    assert (out.bytes_total, err.bytes_total, bench.capture.bytes_total) == (12, 5, 17)


def test_pipes_are_private_and_outlive_the_capture(bench: Bench) -> None:
    out = bench.capture.stream("web", 1, "stdout")
    path = bench.root / "run/fifo/web.1.out"
    mode = path.stat().st_mode
    assert stat.S_ISFIFO(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert not out.adopted
    end = out.child_end()
    assert os.get_blocking(end)
    assert not os.get_inheritable(end)
    bench.capture.close()
    os.write(end, b"while nobody was there\n")  # no SIGPIPE: the child is a reader itself
    bench.start().recover()
    again = bench.capture.stream("web", 1, "stdout")
    assert again.adopted
    bench.settle()
    os.close(end)
    assert bench.lines("web/1.log") == [("stdout", b"while nobody was there")]


def test_a_stream_is_made_from_a_descriptor_that_a_peer_has_held(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    held = os.dup(bench.capture.held()["web.0.out"])
    bench.write(out, b"kept by the peer\n")
    bench.capture.close()
    (bench.root / "run/fifo/web.0.out").unlink()
    bench.start().recover()
    bench.capture.stream("web", 0, "stdout", fd=held)
    bench.settle()
    assert bench.lines() == [("stdout", b"kept by the peer")]


def test_something_else_in_the_pipes_place_is_replaced(bench: Bench) -> None:
    path = bench.root / "run/fifo/web.0.out"
    path.write_text("not a pipe")
    bench.write(bench.capture.stream("web", 0, "stdout"), b"x\n")
    bench.settle()
    assert bench.lines() == [("stdout", b"x")]


def test_asking_twice_gives_the_same_stream(bench: Bench) -> None:
    assert bench.capture.stream("web", 0, "stdout") is bench.capture.stream("web", 0, "stdout")
    with pytest.raises(ValueError, match="stdin"):
        bench.capture.stream("web", 0, "stdin")


def test_a_busy_stream_rests_after_a_short_read_and_what_comes_meanwhile_is_read_at_once(
    bench: Bench,
) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    for line in (b"1\n", b"2\n"):
        bench.write(out, line)
        bench.loop.turn(0)
    assert out.bytes_total == 4
    for line in (b"3\n", b"4\n"):
        bench.write(out, line)
        bench.loop.turn(0)
        bench.loop.turn(0)
    assert out.bytes_total == 4
    bench.clock.wind(REST * 1.01)
    bench.loop.turn(0)
    assert out.bytes_total == 8


def test_a_line_now_and_then_costs_one_wake_up_and_no_timer(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    for count in range(1, 5):
        bench.clock.wind(1)
        bench.write(out, b"1\n")
        bench.loop.turn(0)
        assert out.bytes_total == 2 * count
        assert not [timer for _, _, timer in bench.loop._timers if timer.pending]


def test_nothing_is_due_when_nothing_is_written(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"1\n")
    bench.settle()
    assert [timer for _, _, timer in bench.loop._timers if timer.pending] == []
    assert bench.loop._soon == []


def test_a_stream_that_floods_gets_a_larger_pipe_and_leaves_turns_to_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_module, "TURN_BYTES", 60_000)
    flood = bench.capture.stream("flood", 0, "stdout")
    quiet = bench.capture.stream("quiet", 0, "stdout")
    bench.write(flood, b"x" * 59 + b"\n" + b"y" * 64_000)
    bench.loop.turn(0)
    assert flood.bytes_total == 64_060
    assert fcntl.fcntl(flood.fd, fcntl.F_GETPIPE_SZ) > 65536
    bench.write(flood, b"z" * 500_000)
    bench.write(quiet, b"me too\n")
    bench.loop.turn(0)
    bench.loop.turn(0)
    assert quiet.bytes_total == 7
    bench.settle()
    assert flood.bytes_total == 564_060


def test_a_pipe_that_cannot_grow_is_read_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    flood = bench.capture.stream("flood", 0, "stdout")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", refuse)
        bench.write(flood, b"x" * 65_000)
        bench.loop.turn(0)
    bench.write(flood, b"y\n")
    bench.settle()
    assert bench.lines("flood/0.log") == [("stdout", b"x" * 65_000 + b"y")]


def test_drain_reads_everything_at_once_and_finish_ends_the_line(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"first\nsecond, without an e")
    out.drain()
    assert bench.log().count(b"\n") == 2
    bench.write(out, b"nd")
    out.finish()
    bench.write(out, b"of the next process\n")
    bench.settle()
    assert bench.lines() == [
        ("stdout", b"first"),
        ("stdout", b"second, without an end"),
        ("stdout", b"of the next process"),
    ]


def test_a_new_process_does_not_continue_a_line_from_before_a_crash(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"half a li")
    out.drain()
    bench.capture.close()
    bench.start().recover()
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"whole\n")
    bench.settle()
    assert bench.lines() == [("stdout", b"half a li"), ("stdout", b"whole")]


def test_a_tap_sees_what_was_written_and_costs_only_itself_when_it_fails(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    seen: list[bytes] = []
    out.tap = seen.append
    bench.write(out, b"listening on 8080\n")
    bench.settle()
    assert seen == [b"listening on 8080\n"]

    def broken(_data: bytes) -> None:
        raise RuntimeError("a broken pattern")

    out.tap = broken
    bench.write(out, b"more\n")
    bench.settle()
    bench.write(out, b"and again\n")
    bench.settle()
    out.tap = None
    bench.write(out, b"and more\n")
    bench.settle()
    assert [message for _, message in bench.lines()] == [
        b"listening on 8080",
        b"more",
        b"and again",
        b"and more",
    ]
    assert len(bench.said) == 1
    assert "a broken pattern" in bench.said[0]


def test_a_removed_instance_takes_its_pipe_with_it(bench: Bench) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"x\n")
    bench.settle()
    out.close(remove=True)
    out.close(remove=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list((bench.root / "run/fifo").iterdir()) == []
    assert bench.capture.held() == {}


def test_the_tail_has_the_last_lines_of_both_streams_of_this_process_only(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    err = bench.capture.stream("web", 0, "stderr")
    bench.write(out, b"of the process before\n")
    out.drain()
    bench.clock.wind(5)
    bench.write(out, b"".join(b"line %d\n" % n for n in range(30)))
    out.drain()
    bench.write(err, b"Segmentation f\xe4ult")
    err.drain()
    tail = bench.capture.tail("web", 0, lines=3)
    assert [(line.stream, line.message) for line in tail] == [
        ("stdout", "line 28"),
        ("stdout", "line 29"),
        ("stderr", "Segmentation f\\xe4ult"),
    ]
    own = bench.capture.tail("web", 0, lines=100, since=NOW + 5)
    assert own[0].message == "line 0"
    assert bench.capture.tail("never", 0) == []


# --- crashes ---------------------------------------------------------------------------------


class Death(BaseException):
    """Stands for kill -9: whatever was about to be done is not done."""


@pytest.mark.parametrize("written", [0, 1, 40, 80, -1])
def test_a_chunk_half_written_at_the_death_is_in_the_log_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"before\n")
    bench.settle()
    real = os.writev

    def die(fd: int, parts: Sequence[bytes]) -> int:
        data = b"".join(parts)
        real(fd, [data[:written] if written >= 0 else data])
        raise Death

    bench.write(out, b"one\ntwo\nthr")
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", die)
        patch.setattr(Journal, "done", lambda *_: None)
        with pytest.raises(Death):
            bench.loop.turn(0)
    bench.clock.wind(100)
    recovered = bench.start().recover()
    assert recovered is not None
    assert (recovered.service, recovered.instance, recovered.stream, recovered.size) == (
        "web",
        0,
        "stdout",
        11,
    )
    out = bench.capture.stream("web", 0, "stdout")
    end = os.open(bench.root / "run/fifo/web.0.out", os.O_RDWR)
    os.write(end, b"ee\n")
    os.close(end)
    bench.settle()
    assert [message for _, message in bench.lines()] == [b"before", b"one", b"two", b"three"]
    assert bench.start().recover() is None


def test_a_log_file_that_somebody_moved_is_not_cut(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"x\n" * 50)
    bench.settle()
    journal = bench.capture._journal
    bench.write(out, b"taken\n")
    journal.begin(out.key, 10, 1, 1_795_455_883_123_456)  # the inode is another one's
    assert journal.read(out.fd) == 6
    bench.start().recover()
    assert [message for _, message in bench.lines()] == [b"x"] * 50 + [b"taken"]


# --- trouble with the disk -------------------------------------------------------------------


def test_a_full_disk_loses_output_says_so_once_and_keeps_whole_records(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"before\n")
    bench.settle()
    room = PREFIX + 4 + 20  # one record, and a piece of the next
    real = os.writev

    def short(fd: int, parts: Sequence[bytes]) -> int:
        return real(fd, [b"".join(parts)[:room]])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", short)
        patch.setattr(os, "write", full)
        end = out.child_end()
        patch.undo()
        os.write(end, b"one\ntwo\nthree")
        patch.setattr(os, "writev", short)
        patch.setattr(os, "write", full)
        bench.settle()
        patch.undo()
        patch.setattr(os, "writev", full)
        os.write(end, b" and four\n")
        bench.settle()
        os.close(end)
    assert (out.lost_bytes, out.lost_lines) == (9 + 10, 2)
    assert bench.capture.lost_bytes == 19
    assert [message for _, message in bench.lines()] == [b"before", b"one"]
    bench.clock.wind(1)
    bench.write(out, b"after\n")
    bench.settle()
    assert [message for _, message in bench.lines()] == [
        b"before",
        b"one",
        b"atlasd: output lost 19 bytes (disk full)",
        b"after",
    ]
    assert len(bench.said) == 1


def test_while_the_disk_is_full_it_is_tried_now_and_then_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    tries = 0

    def full(*_: object) -> int:
        nonlocal tries
        tries += 1
        raise OSError(28, "No space left on device")

    end = out.child_end()
    monkeypatch.setattr(os, "writev", full)
    for _ in range(100):  # a tenth of a second
        os.write(end, b"x\n")
        bench.clock.wind(0.001)
        bench.settle()
    os.close(end)
    assert out.lost_bytes == 200
    assert tries < 10


def test_a_log_folder_that_cannot_be_used_costs_output_and_nothing_else(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    (bench.root / "log/web").write_text("in the way")
    bench.write(out, b"lost\n")
    bench.settle()
    assert out.lost_bytes == 5
    (bench.root / "log/web").unlink()
    bench.clock.wind(1)
    bench.write(out, b"kept\n")
    bench.settle()
    messages = [message for _, message in bench.lines()]
    assert messages[0].startswith(b"atlasd: output lost 5 bytes (")
    assert messages[1:] == [b"kept"]


def test_a_log_file_that_was_removed_is_made_anew(bench: Bench) -> None:
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"before\n")
    bench.settle()
    (bench.root / "log/web/0.log").unlink()
    bench.clock.wind(6)
    bench.write(out, b"after\n")
    bench.settle()
    assert bench.lines() == [("stdout", b"after")]
    assert bench.capture.files.total == len(bench.log())


def test_a_line_torn_by_a_power_cut_does_not_swallow_the_next(bench: Bench) -> None:
    (bench.root / "log/web").mkdir()
    (bench.root / "log/web/0.log").write_bytes(b"2026-11-23T17:44:43.123456Z stdout F to")
    bench.start().recover()
    bench.write(bench.capture.stream("web", 0, "stdout"), b"whole\n")
    bench.settle()
    assert [message for _, message in bench.lines()] == [b"to", b"whole"]
    assert bench.capture.files.total == len(bench.log())


# --- rotation --------------------------------------------------------------------------------


def fill(bench: Bench, stream: Stream, count: int, size: int = 1000) -> None:
    """Write lines of `size` bytes, with a rest after each."""
    for number in range(count):
        bench.write(stream, b"%0*d\n" % (size - 1, number))
        bench.settle()


def test_a_file_that_reached_its_size_is_rotated_and_the_oldest_go(bench: Bench) -> None:
    bench.capture.configure("web", Log(max_size=5000, max_files=2, compress=False))
    out = bench.capture.stream("web", 0, "stdout")
    fill(bench, out, 24)
    names = bench.rotated()
    assert len(names) == 2
    assert all(re.fullmatch(r"0\.log\.20261123T1744\d\dZ(\.\d+)?", name) for name in names)
    kept = [bench.lines(f"web/{name}") for name in sorted(names, key=lambda n: (len(n), n))]
    numbers = [int(message) for lines in kept for _, message in lines]
    assert numbers == list(range(10, 20))
    assert [int(message) for _, message in bench.lines()] == [20, 21, 22, 23]
    on_disk = sum(p.stat().st_size for p in (bench.root / "log/web").iterdir())
    assert bench.capture.files.total == on_disk


def test_a_current_file_is_rotated_daily_and_old_ones_go_by_themselves(bench: Bench) -> None:
    bench.capture.configure("web", Log(max_age=3 * DAY, compress=False))
    out = bench.capture.stream("web", 0, "stdout")
    bench.write(out, b"monday\n")
    bench.settle()
    bench.clock.wind(DAY)
    bench.write(out, b"tuesday\n")
    bench.settle()
    assert len(bench.rotated()) == 1
    assert bench.lines() == [("stdout", b"tuesday")]
    for _ in range(4):
        bench.clock.wind(DAY)
        bench.loop.turn(0)
    assert bench.rotated() == []


def test_age_is_counted_from_the_first_record_also_after_a_restart(bench: Bench) -> None:
    bench.write(bench.capture.stream("web", 0, "stdout"), b"monday\n")
    bench.settle()
    bench.capture.close()
    bench.clock.wind(DAY + 1)
    bench.start().recover()
    bench.write(bench.capture.stream("web", 0, "stdout"), b"tuesday\n")
    bench.settle()
    assert bench.lines() == [("stdout", b"tuesday")]
    assert len(bench.rotated()) == 1


def test_a_start_removes_nothing_that_the_configuration_allows(bench: Bench) -> None:
    generous = Log(max_size=1000, max_files=100, compress=False)
    bench.capture.configure("web", generous)
    fill(bench, bench.capture.stream("web", 0, "stdout"), 30)
    before = bench.rotated()
    assert len(before) == 30
    bench.capture.close()
    bench.start().recover()  # before core has said what web may keep
    bench.capture.configure("web", generous)
    bench.clock.wind(COMPRESS_AFTER + 60)
    bench.loop.turn(0)
    assert bench.rotated() == before
    assert bench.spawned == []
    bench.capture.configure("web", Log(max_size=1000, max_files=5, compress=False))
    assert len(bench.rotated()) == 5


def test_the_budget_holds_and_the_flooder_pays(bench: Bench) -> None:
    bench.capture.set_policy(HostPolicy(log_budget=4 * SMALLEST))
    for name in ("flood", "quiet"):
        bench.capture.configure(name, Log(max_size=SMALLEST // 4, max_files=1000, compress=False))
    quiet = bench.capture.stream("quiet", 0, "stdout")
    fill(bench, quiet, 3, SMALLEST // 4)
    before = bench.rotated("quiet")
    assert len(before) == 3
    flood = bench.capture.stream("flood", 0, "stdout")
    fill(bench, flood, 40, SMALLEST // 8)
    assert bench.rotated("quiet") == before
    assert len(bench.rotated("flood")) < 20
    on_disk = sum(p.stat().st_size for p in (bench.root / "log").rglob("*.log*"))
    assert bench.capture.files.total == on_disk
    assert on_disk <= 4 * SMALLEST + SMALLEST // 2


def test_a_smaller_budget_holds_at_once(bench: Bench) -> None:
    bench.capture.configure("web", Log(max_size=5000, max_files=100, compress=False))
    fill(bench, bench.capture.stream("web", 0, "stdout"), 40)
    assert bench.capture.files.total > 20_000
    bench.capture.set_policy(HostPolicy(log_budget=20_000))
    assert bench.capture.files.total <= 20_000


def gzip_has(bench: Bench, code: int, result: bytes = b"small") -> None:
    """End the running compression as gzip would."""
    argv, on_exit = bench.spawned.pop(0)
    Path(argv[-1]).write_bytes(result)
    on_exit(code)


def test_rotated_files_are_compressed_later_and_one_at_a_time(bench: Bench) -> None:
    bench.capture.configure("web", Log(max_size=5000))
    fill(bench, bench.capture.stream("web", 0, "stdout"), 10)
    assert len(bench.rotated()) == 2
    assert bench.spawned == []
    bench.clock.wind(COMPRESS_AFTER)
    bench.loop.turn(0)
    assert len(bench.spawned) == 1
    assert any("gzip" in word for word in bench.spawned[0][0])
    gzip_has(bench, 0)
    assert len(bench.spawned) == 1
    gzip_has(bench, 0)
    assert [name.endswith(".gz") for name in bench.rotated()] == [True, True]
    on_disk = sum(p.stat().st_size for p in (bench.root / "log/web").iterdir())
    assert bench.capture.files.total == on_disk


def test_under_a_flood_files_are_gone_before_gzip_costs_anything(bench: Bench) -> None:
    bench.capture.configure("web", Log(max_size=5000, max_files=1))
    fill(bench, bench.capture.stream("web", 0, "stdout"), 30)
    bench.clock.wind(COMPRESS_AFTER)
    bench.loop.turn(0)
    assert len(bench.spawned) == 1
    gzip_has(bench, 0)
    assert bench.spawned == []


def test_a_file_removed_while_it_is_compressed_stays_removed(bench: Bench) -> None:
    bench.capture.configure("web", Log(max_size=5000, max_files=1))
    out = bench.capture.stream("web", 0, "stdout")
    fill(bench, out, 5)
    bench.clock.wind(COMPRESS_AFTER)
    bench.loop.turn(0)
    fill(bench, out, 5)
    gzip_has(bench, 0)
    assert len(bench.rotated()) == 1
    assert not bench.rotated()[0].endswith(".gz")


@pytest.mark.parametrize("code", [1, 127])
def test_without_gzip_files_stay_as_they_are(bench: Bench, code: int) -> None:
    bench.capture.configure("web", Log(max_size=5000))
    out = bench.capture.stream("web", 0, "stdout")
    fill(bench, out, 10)
    bench.clock.wind(COMPRESS_AFTER)
    bench.loop.turn(0)
    gzip_has(bench, code)
    assert [name.endswith(".gz") for name in bench.rotated() if not name.startswith(".")] == [
        False,
        False,
    ]
    # A gzip that failed on one file is tried on the next; one that isn't there is not.
    assert len(bench.spawned) == (1 if code == 1 else 0)


def test_a_compression_that_was_cut_off_is_begun_again(bench: Bench) -> None:
    bench.capture.configure("web", Log(max_size=5000))
    fill(bench, bench.capture.stream("web", 0, "stdout"), 5)
    bench.clock.wind(COMPRESS_AFTER)
    bench.loop.turn(0)
    argv, _ = bench.spawned.pop()
    Path(argv[-1]).write_bytes(b"half of a compressed fi")
    bench.capture.close()
    bench.start().recover()
    assert not Path(argv[-1]).exists()
    bench.clock.wind(COMPRESS_AFTER)
    bench.loop.turn(0)
    assert bench.spawned[0][0] == argv
