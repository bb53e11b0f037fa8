"""Reading logs: what was written is what is read, however it was rotated, compressed or torn."""

import gzip
import os
import select
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atlasd.errors import AtlasError
from atlasd.services.logfiles import Follower, Line, query
from atlasd.services.output_records import MAX_LINE, compose
from atlasd.services.rotation import next_rotated

NOW = 1_795_455_883.0


class Writer:
    """Writes log files as the services role does, and knows what has to be read."""

    def __init__(self, root: Path, service: str = "web") -> None:
        self.root = root
        self.service = service
        self.folder = root / service
        self.wall = NOW
        self.lines: list[tuple[int, str, str]] = []
        self.last: dict[int, tuple[str, int]] = {}
        self._open: dict[tuple[int, str], bytes] = {}

    def write(self, instance: int, stream: str, data: bytes) -> None:
        """One chunk of output."""
        self.wall += 0.000_1
        self.folder.mkdir(parents=True, exist_ok=True)
        records = b"".join(compose(data, stream.encode(), int(self.wall * 1_000_000)))
        with (self.folder / f"{instance}.log").open("ab", buffering=0) as file:
            file.write(records)
        pieces = (self._open.pop((instance, stream), b"") + data).split(b"\n")
        if pieces[-1]:
            self._open[instance, stream] = pieces[-1]
        for piece in pieces[:-1]:
            self.lines.append((instance, stream, piece.decode(errors="backslashreplace")))

    def rotate(self, instance: int, *, compress: bool = False) -> Path | None:
        """Rename the current file of an instance."""
        path = self.folder / f"{instance}.log"
        if not path.exists():
            return None
        file = next_rotated(self.service, instance, 1, self.last.get(instance), self.wall)
        self.last[instance] = file.order
        target = self.folder / file.name
        path.rename(target)
        return self.compress(target) if compress else target

    def compress(self, path: Path) -> Path:
        """What gzip does to a rotated file."""
        small = path.with_name(path.name + ".gz")
        temporary = path.with_name(f".{path.name}.gz.tmp")
        temporary.write_bytes(gzip.compress(path.read_bytes()))
        temporary.rename(small)
        path.unlink()
        return small


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def told(lines: Iterator[Line] | list[Line]) -> list[tuple[int, str, str]]:
    return [(line.instance, line.stream, line.message) for line in lines if not line.partial]


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.integers(0, 1),
            st.sampled_from(["stdout", "stderr"]),
            st.one_of(
                st.binary(min_size=1, max_size=20),
                st.sampled_from([b"a line\n", b"\n", b"two\nlines\n", b"no end", b"\xff\xfe\0\n"]),
            ),
        ),
        st.tuples(st.just("rotate"), st.integers(0, 1), st.booleans()),
    ),
    max_size=40,
)


def play(writer: Writer, steps: list[tuple[object, ...]]) -> None:
    for step in steps:
        if step[0] == "write":
            writer.write(*step[1:])  # type: ignore[arg-type]
        else:
            writer.rotate(step[1], compress=step[2])  # type: ignore[arg-type]


@given(STEPS, st.integers(0, 50))
@settings(deadline=None)
def test_what_was_written_is_what_is_read(steps: list[tuple[object, ...]], count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder))
        play(writer, steps)
        assert told(query(folder, "web")) == writer.lines
        everything = list(query(folder, "web"))
        backwards = list(query(folder, "web", lines=10_000))
        assert told(backwards) == writer.lines
        for lines in (everything, backwards):
            unfinished = {(line.instance, line.stream) for line in lines if line.partial}
            assert unfinished == set(writer._open)
        last = list(query(folder, "web", lines=count))
        assert last == backwards[max(0, len(backwards) - count) :]


class Following(RuleBasedStateMachine):
    """Whatever is written, rotated, compressed and read in whatever order: each line comes once."""

    @initialize(steps=STEPS)
    def begin(self, steps: list[tuple[object, ...]]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.writer = Writer(Path(self._folder.name))
        self.rotated: list[Path] = []
        play(self.writer, steps)
        self.follower = Follower(self._folder.name, "web")
        self.read_so_far = told(self.follower.initial())

    @rule(
        instance=st.integers(0, 2),
        stream=st.sampled_from(["stdout", "stderr"]),
        data=st.one_of(st.binary(min_size=1, max_size=30), st.just(b"whole\n")),
    )
    def write(self, instance: int, stream: str, data: bytes) -> None:
        self.writer.write(instance, stream, data)

    @rule(instance=st.integers(0, 2))
    def rotate(self, instance: int) -> None:
        path = self.writer.rotate(instance)
        if path is not None:
            self.rotated.append(path)

    @rule()
    def compress(self) -> None:
        if self.rotated:
            self.writer.compress(self.rotated.pop(0))

    @rule(limit=st.sampled_from([1, 2000]))
    def read(self, limit: int) -> None:
        self.read_so_far += told(self.follower.read(limit))

    @invariant()
    def an_instances_lines_come_once_and_in_order(self) -> None:
        if not hasattr(self, "follower"):
            return
        for instance in range(3):
            read = [line for line in self.read_so_far if line[0] == instance]
            written = [line for line in self.writer.lines if line[0] == instance]
            assert read == written[: len(read)]

    def teardown(self) -> None:
        if not hasattr(self, "follower"):
            return
        self.read_so_far += told(self.follower.read())
        while self.follower.pending:
            self.read_so_far += told(self.follower.read())
        assert sorted(self.read_so_far) == sorted(self.writer.lines)
        self.follower.close()
        self._folder.cleanup()


TestFollowing = Following.TestCase
TestFollowing.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_instances_are_merged_by_time(writer: Writer) -> None:
    writer.write(1, "stdout", b"first\n")
    writer.write(0, "stderr", b"second\n")
    writer.write(1, "stdout", b"third\n")
    assert [line.message for line in query(str(writer.root), "web")] == ["first", "second", "third"]
    assert [line.message for line in query(str(writer.root), "web", instances=[1])] == [
        "first",
        "third",
    ]


def test_a_line_says_where_and_when_it_was_written(writer: Writer) -> None:
    writer.write(2, "stderr", b"oops\n")
    (line,) = query(str(writer.root), "web")
    assert line.to_wire() == {
        "time": "2026-11-23T17:44:43.000100Z",
        "service": "web",
        "instance": 2,
        "stream": "stderr",
        "message": "oops",
    }


def test_only_the_stream_the_pattern_and_the_time_that_were_asked_for(writer: Writer) -> None:
    writer.write(0, "stdout", b"GET /a 200\nGET /b 500\n")
    writer.rotate(0, compress=True)
    writer.wall += 100
    writer.write(0, "stderr", b"GET /c 500\n")
    writer.rotate(0)
    writer.wall += 100
    writer.write(0, "stdout", b"GET /d 500\nGET /e 200\n")

    def messages(**wanted: object) -> list[str]:
        return [line.message for line in query(str(writer.root), "web", **wanted)]  # type: ignore[arg-type]

    assert messages(grep=r" 5\d\d$") == ["GET /b 500", "GET /c 500", "GET /d 500"]
    assert messages(grep=r" 5\d\d$", lines=2) == ["GET /c 500", "GET /d 500"]
    assert messages(stream="stderr") == ["GET /c 500"]
    assert messages(since=NOW + 100) == ["GET /c 500", "GET /d 500", "GET /e 200"]
    assert messages(since=NOW + 150, lines=10) == ["GET /d 500", "GET /e 200"]
    assert messages(since=NOW + 1000) == []
    assert messages(lines=0) == []


def test_the_last_lines_of_a_big_file_are_read_from_its_end(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        writer.write(0, "stdout", b"".join(b"%d-%d\n" % (number, n) for n in range(200)))
    size = (writer.folder / "0.log").stat().st_size
    taken = 0
    real = os.pread

    def counted(fd: int, count: int, offset: int) -> bytes:
        nonlocal taken
        data = real(fd, count, offset)
        taken += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    last = [line.message for line in query(str(writer.root), "web", lines=3)]
    assert last == ["199-197", "199-198", "199-199"]
    assert taken < size / 4


def test_a_torn_last_line_is_left_out_until_it_is_whole(writer: Writer) -> None:
    writer.write(0, "stdout", b"whole\n")
    record = b"".join(compose(b"torn\n", b"stdout", int(NOW * 1e6) + 900_000))
    path = writer.folder / "0.log"
    with Follower(str(writer.root), "web") as follower, path.open("ab", buffering=0) as file:
        file.write(record[:40])
        assert [line.message for line in query(str(writer.root), "web")] == ["whole"]
        assert [line.message for line in query(str(writer.root), "web", lines=5)] == ["whole"]
        assert [line.message for line in follower.initial()] == ["whole"]
        assert follower.read() == []
        with Follower(str(writer.root), "web", lines=1) as late:
            assert [line.message for line in late.initial()] == ["whole"]
            file.write(record[40:])
            assert [line.message for line in late.read()] == ["torn"]
        assert [line.message for line in follower.read()] == ["torn"]
    assert [line.message for line in query(str(writer.root), "web")] == ["whole", "torn"]


def test_foreign_lines_and_foreign_files_are_passed_over(writer: Writer) -> None:
    writer.write(0, "stdout", b"ours\n")
    with (writer.folder / "0.log").open("ab") as file:
        file.write(b"\0\0\0\0\nsomebody was here\n")
    writer.write(0, "stdout", b"ours too\n")
    (writer.folder / "notes.txt").write_text("hello")
    (writer.folder / "0.log.20261123T174443Z.gz").write_bytes(b"not compressed at all")
    for lines in (None, 10):
        found = query(str(writer.root), "web", lines=lines)
        assert [line.message for line in found] == ["ours", "ours too"]


def test_a_compressed_file_that_was_cut_off_gives_what_is_there(writer: Writer) -> None:
    writer.write(0, "stdout", os.urandom(60_000).hex().encode() + b"\nlast\n")
    path = writer.rotate(0, compress=True)
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    writer.write(0, "stdout", b"after\n")
    for lines in (None, 10):
        found = list(query(str(writer.root), "web", lines=lines))
        assert found[-1].message == "after"
        assert "last" not in {line.message for line in found}


def test_a_file_rotated_and_compressed_while_it_is_read_is_read_to_its_end(writer: Writer) -> None:
    writer.write(0, "stdout", b"one\n")
    path = writer.rotate(0)
    assert path is not None
    writer.write(0, "stdout", b"two\n")
    reading = query(str(writer.root), "web")
    assert next(reading).message == "one"
    writer.compress(path)
    writer.rotate(0)
    writer.write(0, "stdout", b"three\n")
    assert [line.message for line in reading] == ["two"]


def test_an_endless_line_comes_in_pieces(writer: Writer) -> None:
    for _ in range(5):
        writer.write(0, "stdout", b"x" * (MAX_LINE // 2))
    found = list(query(str(writer.root), "web"))
    assert all(line.partial for line in found)
    assert sum(len(line.message) for line in found) == 5 * (MAX_LINE // 2)
    assert max(len(line.message) for line in found) <= 2 * MAX_LINE


def test_a_silent_stream_is_not_searched_for_without_end(writer: Writer) -> None:
    writer.write(0, "stderr", b"the only one\n")
    for _ in range(60):
        writer.write(0, "stdout", (b"x" * 99 + b"\n") * 300)
    writer.write(0, "stderr", b"and the last\n")
    reading = query(str(writer.root), "web", lines=2)
    assert [line.message for line in reading] == ["x" * 99, "and the last"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [({"grep": "("}, "regular expression"), ({"stream": "stdin"}, "no such stream")],
)
def test_what_cannot_be_asked_for_is_refused_at_once(
    writer: Writer, wanted: dict[str, str], said: str
) -> None:
    for ask in (query, Follower):
        with pytest.raises(AtlasError, match=said) as caught:
            ask(str(writer.root), "web", **wanted)  # type: ignore[arg-type]
        assert caught.value.code == "request.invalid"
        assert caught.value.hint


@pytest.mark.parametrize("name", ["../etc", "", ".hidden", "a/b", "a\0b"])
def test_a_name_never_leads_out_of_the_log_folder(writer: Writer, name: str) -> None:
    with pytest.raises(AtlasError) as caught:
        query(str(writer.root), name)
    assert caught.value.code == "service.unknown"


def test_a_service_that_never_wrote_has_no_lines_and_can_be_followed(writer: Writer) -> None:
    assert list(query(str(writer.root), "web")) == []
    with Follower(str(writer.root), "web") as follower:
        assert list(follower.initial()) == []
        assert follower.read() == []
        writer.write(0, "stdout", b"hello\n")
        assert told(follower.read()) == writer.lines
        writer.write(4, "stdout", b"a new instance\n")
        assert told(follower.read()) == writer.lines[1:]


def test_following_without_a_log_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="does not exist") as caught:
        Follower(str(tmp_path / "nowhere"), "web")
    assert caught.value.code == "daemon.directory"


def test_the_followers_descriptor_becomes_readable(writer: Writer) -> None:
    writer.write(0, "stdout", b"before\n")
    with Follower(str(writer.root), "web", lines=1) as follower:
        list(follower.initial())
        follower.read()
        poll = select.poll()
        poll.register(follower.fileno(), select.POLLIN)
        assert poll.poll(0) == []
        writer.write(0, "stdout", b"after\n")
        assert poll.poll(0) != []
        assert [line.message for line in follower.read()] == ["after"]
        assert poll.poll(0) == []


def test_following_keeps_to_what_was_asked_for(writer: Writer) -> None:
    with Follower(str(writer.root), "web", instances=[1], grep="wanted", stream="stderr") as f:
        list(f.initial())
        writer.write(0, "stderr", b"wanted, of another instance\n")
        writer.write(1, "stdout", b"wanted, of another stream\n")
        writer.write(1, "stderr", b"something else\nwanted\n")
        assert [line.message for line in f.read()] == ["wanted"]


def test_a_line_that_was_unfinished_at_the_query_is_followed_to_its_end(writer: Writer) -> None:
    writer.write(0, "stdout", b"one\nloading")
    writer.write(0, "stderr", b"meanwhile\n")
    for lines in (None, 10):
        with Follower(str(writer.root), "web", lines=lines) as follower:
            assert [line.message for line in follower.initial()] == ["one", "meanwhile"]
    with Follower(str(writer.root), "web", lines=1) as follower:
        assert [line.message for line in follower.initial()] == ["meanwhile"]
        writer.write(0, "stdout", b" ... done\n")
        assert [line.message for line in follower.read()] == ["loading ... done"]


def test_a_flood_is_read_in_portions(writer: Writer) -> None:
    with Follower(str(writer.root), "web") as follower:
        list(follower.initial())
        for _ in range(30):
            writer.write(0, "stdout", b"".join(b"%0100d\n" % n for n in range(1000)))
        found = told(follower.read(100))
        assert len(found) < 10_000
        portions = 1
        while follower.pending:
            found += told(follower.read())
            portions += 1
        assert portions > 2
        assert found == writer.lines


def test_a_file_that_was_emptied_is_followed_from_its_new_beginning(writer: Writer) -> None:
    writer.write(0, "stdout", b"before\n" * 10)
    with Follower(str(writer.root), "web", lines=0) as follower:
        assert list(follower.initial()) == []
        os.truncate(writer.folder / "0.log", 0)
        assert follower.read() == []
        writer.write(0, "stdout", b"after\n")
        assert [line.message for line in follower.read()] == ["after"]


def test_rotations_that_happened_unseen_are_caught_up_with(writer: Writer) -> None:
    writer.write(0, "stdout", b"seen\n")
    with Follower(str(writer.root), "web") as follower:
        list(follower.initial())
        for number in range(4):
            writer.write(0, "stdout", b"unseen %d\n" % number)
            writer.rotate(0, compress=number % 2 == 0)
        writer.write(0, "stdout", b"the newest\n")
        found = told(follower.read())
        while follower.pending:
            found += told(follower.read())
        assert found == writer.lines[1:]


def test_an_unreadable_folder_is_an_error_not_an_empty_log(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    writer.write(0, "stdout", b"secret\n")
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(AtlasError, match="may not be read") as caught:
        query(str(writer.root), "web")
    assert caught.value.code == "operation.denied"
