"""The log files of a service as lines: forwards or backwards, however they were rotated."""

import gzip
import heapq
import io
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from atlasd.errors import AtlasError
from atlasd.services.output_records import (
    MAX_LINE,
    PREFIX,
    STREAMS,
    Joined,
    Joiner,
    Record,
    parse,
)
from atlasd.services.rotation import Rotated, current_name, parse_name

BLOCK = 1 << 16
_LOOK_BACK = 1 << 20  # bytes in which the beginning of a line is looked for
LogSource = io.FileIO | gzip.GzipFile
_TORN = (EOFError, gzip.BadGzipFile, zlib.error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a service's output."""

    time: str
    """RFC 3339 in UTC with microseconds, as in the log file; compares as text."""
    service: str
    instance: int
    stream: str
    """stdout | stderr"""
    message: str
    """What was written; bytes that are no UTF-8 as `\\xff`."""
    partial: bool = False
    """The line has no end (yet), or is so long that it goes on in the next."""

    def to_wire(self) -> dict[str, object]:
        """What a JSON line of `logs --json` holds."""
        return {
            "time": self.time,
            "service": self.service,
            "instance": self.instance,
            "stream": self.stream,
            "message": self.message,
        }


class Selection:
    """Which lines are wanted. Raises `AtlasError` for a pattern or a stream that cannot be."""

    def __init__(self, *, since: float | None, grep: str | None, stream: str | None) -> None:
        if stream is not None and stream not in STREAMS:
            raise AtlasError(
                "request.invalid", f"no such stream: {stream!r}", hint="stdout or stderr"
            )
        try:
            self._pattern = None if grep is None else re.compile(grep)
        except re.error as error:
            raise AtlasError(
                "request.invalid",
                f"the pattern {grep!r} is no regular expression: {error}",
                hint="put a backslash before characters that are meant as they are, as in \\(",
            ) from None
        self._stream = stream
        self._since = "" if since is None else _as_text(since)
        self._since_wall = since

    def covers(self, file: Rotated) -> bool:
        """Whether a rotated file can hold anything that is wanted."""
        # Its name tells the second in which it ended.
        return self._since_wall is None or file.since + 1 > self._since_wall

    def line(self, joined: Joined, service: str, instance: int) -> Line | None:
        """The line as it is handed out, if it is wanted."""
        if joined.time < self._since or (self._stream and joined.stream != self._stream):
            return None
        message = joined.message.decode(errors="backslashreplace")
        if self._pattern is not None and not self._pattern.search(message):
            return None
        return Line(
            time=joined.time,
            service=service,
            instance=instance,
            stream=joined.stream,
            message=message,
            partial=joined.partial,
        )


def _as_text(wall: float) -> str:
    return datetime.fromtimestamp(wall, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def folder_of(log_dir: str, service: str) -> str:
    """The folder of a service's log files. Raises `AtlasError` for an impossible name."""
    if not service or "/" in service or "\0" in service or service.startswith("."):
        raise AtlasError("service.unknown", f"no service is called {service!r}")
    return os.path.join(log_dir, service)


def listing(folder: str, service: str) -> dict[int, list[Rotated]]:
    """By instance, the rotated files from oldest to newest; also instances that have none.

    Raises `AtlasError` when the folder may not be read; a folder that isn't there is empty.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError:
        raise _denied(folder) from None
    found: dict[int, dict[tuple[str, int], Rotated]] = {}
    for name in names:
        stem, _, suffix = name.partition(".")
        if suffix == "log" and stem.isdigit() and current_name(int(stem)) == name:
            found.setdefault(int(stem), {})
            continue
        file = parse_name(service, name)
        if file is not None:
            files = found.setdefault(file.instance, {})
            # While gzip finishes, a file is there twice; it is the same one.
            if file.order not in files or not file.compressed:
                files[file.order] = file
    return {
        instance: sorted(files.values(), key=lambda file: file.order)
        for instance, files in sorted(found.items())
    }


def _denied(path: str) -> AtlasError:
    return AtlasError(
        "operation.denied",
        f"{path} may not be read",
        hint="ask as root or as a member of the group that owns it",
    )


def open_rotated(folder: str, file: Rotated) -> LogSource | None:
    """A rotated file, whatever became of it since it was listed; None if it's gone."""
    plain = os.path.join(folder, file.name.removesuffix(".gz"))
    for _ in range(2):  # compressed between the two tries
        try:
            return io.FileIO(plain)
        except FileNotFoundError:
            pass
        except PermissionError:
            raise _denied(plain) from None
        try:
            return gzip.GzipFile(plain + ".gz")
        except FileNotFoundError:
            pass
    return None


class Snapshot:
    """The files of one instance at one moment; a context manager that closes what it opened."""

    def __init__(self, folder: str, service: str, instance: int) -> None:
        self.folder = folder
        self.service = service
        self.instance = instance
        self.rotated: list[Rotated] = []
        self.current: io.FileIO | None = None
        self.end = 0
        """Bytes of the current file that are whole records."""
        path = os.path.join(folder, current_name(instance))
        before = None
        # What is rotated between the listing and the opening would be missed: look again.
        while before != self.rotated or before is None:
            before = listing(folder, service).get(instance, [])
            self.close()
            try:
                self.current = io.FileIO(path)
            except FileNotFoundError:
                pass
            except PermissionError:
                raise _denied(path) from None
            self.rotated = listing(folder, service).get(instance, [])
        if self.current is not None:
            size = os.fstat(self.current.fileno()).st_size
            torn = next(_lines_backwards(self._pread, size), b"")
            self.end = size - len(torn)

    def _pread(self, offset: int, count: int) -> bytes:
        assert self.current is not None
        return os.pread(self.current.fileno(), count, offset)

    def forwards(self, selection: Selection, *, unfinished: bool) -> Iterator[Line]:
        """The wanted lines, oldest first. `unfinished`: also those that have no end so far."""
        joiner = Joiner()
        for record in self._records(selection):
            joined = joiner.feed(record)
            if joined is not None:
                line = selection.line(joined, self.service, self.instance)
                if line is not None:
                    yield line
        for joined in joiner.unfinished() if unfinished else ():
            line = selection.line(joined, self.service, self.instance)
            if line is not None:
                yield line

    def _records(self, selection: Selection) -> Iterator[Record]:
        for file in self.rotated:
            opened = open_rotated(self.folder, file) if selection.covers(file) else None
            if opened is not None:
                with opened:
                    yield from _records(lambda opened=opened: opened.read(BLOCK))  # type: ignore[misc]
        if self.current is not None:
            yield from _records(_Span(self._pread, self.end).read)

    def backwards(self, selection: Selection, *, unfinished: bool) -> Iterator[Line]:
        """The wanted lines, newest first. `unfinished`: also those that have no end so far."""
        seen: set[str] = set()
        for joined in join_backwards(self._records_backwards(selection)):
            if joined.partial and not unfinished and joined.stream not in seen:
                seen.add(joined.stream)
                continue
            seen.add(joined.stream)
            line = selection.line(joined, self.service, self.instance)
            if line is not None:
                yield line

    def _records_backwards(self, selection: Selection) -> Iterator[Record]:
        if self.current is not None:
            yield from _parsed(_lines_backwards(self._pread, self.end))
        for file in reversed(self.rotated):
            opened = open_rotated(self.folder, file) if selection.covers(file) else None
            if opened is not None:
                with opened:
                    yield from _parsed(_file_backwards(opened))

    def open_lines(self) -> list[Joined]:
        """Per stream, the line at the end that is not finished, if there is one."""
        found: dict[str, Joined] = {}
        everything = Selection(since=None, grep=None, stream=None)
        left = _LOOK_BACK

        def near() -> Iterator[Record]:
            nonlocal left
            for record in self._records_backwards(everything):
                yield record
                left -= PREFIX + len(record.message)
                if left < 0 or len(found) == len(STREAMS):
                    return

        for joined in join_backwards(near()):
            found.setdefault(joined.stream, joined)
        return [joined for joined in found.values() if joined.partial]

    def close(self) -> None:
        """Close the current file."""
        if self.current is not None:
            self.current.close()
            self.current = None


class _Span:
    """The first bytes of a file as successive blocks."""

    def __init__(self, read_at: Callable[[int, int], bytes], end: int) -> None:
        self._read_at = read_at
        self._at, self._end = 0, end

    def read(self) -> bytes:
        """The next block; empty at the end."""
        block = self._read_at(self._at, min(BLOCK, self._end - self._at))
        self._at += len(block)
        return block


def _records(read: Callable[[], bytes]) -> Iterator[Record]:
    rest = b""
    while True:
        try:
            block = read()
        except _TORN:
            return  # a compressed file that was cut off: what came before is good
        if not block:
            return  # what is left over is a torn record
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield from _parsed(iter(lines))


def _parsed(lines: Iterator[bytes]) -> Iterator[Record]:
    return filter(None, map(parse, lines))


def _file_backwards(file: LogSource) -> Iterator[bytes]:
    if isinstance(file, io.FileIO):
        fd = file.fileno()
        return _lines_backwards(lambda at, n: os.pread(fd, n, at), os.fstat(fd).st_size)
    # Compressed data has no way back: it has to be in memory, all of one file.
    whole = bytearray()
    try:
        while block := file.read(BLOCK):
            whole += block
    except _TORN:
        pass
    return _lines_backwards(lambda at, n: bytes(whole[at : at + n]), len(whole))


def _lines_backwards(read_at: Callable[[int, int], bytes], end: int) -> Iterator[bytes]:
    """Lines from the last to the first; the first one given is what follows the last newline."""
    rest = b""
    while end > 0:
        start = max(0, end - BLOCK)
        lines = (read_at(start, end - start) + rest).split(b"\n")
        rest = lines[0]
        for position in range(len(lines) - 1, 0, -1):
            yield lines[position]
        end = start
    yield rest


class _Open:
    """A line of which, reading backwards, the beginning may still be to come."""

    __slots__ = ("closed", "partial", "pieces", "seen_at", "size", "stream", "time")

    def __init__(self, record: Record, seen_at: int) -> None:
        self.time, self.stream = record.time, record.stream
        self.partial = not record.full
        self.pieces = [record.message]
        self.size = len(record.message)
        self.seen_at = seen_at
        self.closed = False

    def joined(self) -> Joined:
        """The line, its pieces in the order in which they were written."""
        return Joined(self.time, self.stream, b"".join(reversed(self.pieces)), self.partial)


def join_backwards(records: Iterator[Record]) -> Iterator[Joined]:
    """`output_records.join` for records that come newest first; the lines do so too.

    Where a line begins is only known at the record before it. A stream that was silent is not
    searched for that without end: after 1 MiB of the other stream its line counts as whole.
    """
    waiting: deque[_Open] = deque()
    latest: dict[str, _Open] = {}
    at = 0
    for record in records:
        at += PREFIX + len(record.message)
        line = latest.get(record.stream)
        if line is None or line.closed or record.full:
            if line is not None:
                line.closed = True
            latest[record.stream] = line = _Open(record, at)
            waiting.append(line)
        else:
            line.pieces.append(record.message)
            line.size += len(record.message)
            line.seen_at = at
            line.closed = line.size > MAX_LINE
        while waiting and (waiting[0].closed or at - waiting[0].seen_at > _LOOK_BACK):
            line = waiting.popleft()
            line.closed = True
            yield line.joined()
    for line in waiting:
        yield line.joined()


def merged(
    snapshots: Sequence[Snapshot], selection: Selection, lines: int | None, *, unfinished: bool
) -> Iterator[Line]:
    """The wanted lines of several instances by time, oldest first; the last `lines` of them."""
    if lines is None:
        yield from heapq.merge(
            *(snapshot.forwards(selection, unfinished=unfinished) for snapshot in snapshots),
            key=_time,
        )
    elif lines > 0:
        newest = heapq.merge(
            *(
                snapshot.backwards(selection, unfinished=unfinished)
                for snapshot in reversed(snapshots)
            ),
            key=_time,
            reverse=True,
        )
        yield from reversed(list(islice(newest, lines)))


def _time(line: Line) -> str:
    return line.time
