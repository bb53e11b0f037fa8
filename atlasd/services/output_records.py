"""The record format of log files (CRI's): composed in bulk when written, taken apart when read.

    2026-11-23T17:44:43.123456Z stdout F message

`F` ends a line; `P` is a piece of a line whose continuation is the next record of that stream.
"""

import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

STREAMS = ("stdout", "stderr")
PREFIX = 37
"""Bytes before the message; the same in every record."""
MAX_LINE = 1 << 20
"""Bytes of message after which a line that does not end is handed out in pieces."""

_STREAM_BYTES = (b"stdout", b"stderr")


class Record(NamedTuple):
    """One record of a log file."""

    time: str
    """RFC 3339 in UTC with microseconds; compares as text."""
    stream: str
    full: bool
    """False: the line goes on in the next record of this stream."""
    message: bytes


@lru_cache(maxsize=4)
def _second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)).encode()


def stamp(micros: int) -> bytes:
    """Microseconds since the epoch as the time of a record, 27 bytes."""
    seconds, rest = divmod(micros, 1_000_000)
    return b"%s%06dZ" % (_second(seconds), rest)


def compose(data: bytes, stream: bytes, micros: int, held: int = 0) -> list[bytes | memoryview]:
    """The records of a chunk of output, as buffers for `writev`; all carry the same time.

    The result depends on the arguments alone: a chunk that is written again after a crash gives
    the same bytes. The last `held` bytes of `data`, in which no newline stands, are left out.
    """
    size = len(data) - held
    if not size:
        return []
    time_and_stream = b"%s %s " % (stamp(micros), stream)
    head = time_and_stream + b"F "
    end = data.rfind(b"\n") + 1
    if not end:
        return [time_and_stream + b"P ", data[:size], b"\n"]
    # One replace for the whole chunk: work per line belongs to C. What it appends after the
    # chunk's last newline is cut off through the view, without a copy.
    body = memoryview(data.replace(b"\n", b"\n" + head))
    rest = len(data) - end
    parts: list[bytes | memoryview] = [head, body[: len(body) - rest - PREFIX]]
    if end < size:
        parts += [time_and_stream + b"P ", data[end:size], b"\n"]
    return parts


def parse(line: bytes) -> Record | None:
    """The record in a line without its newline; None for anything else (a torn or foreign line)."""
    if (
        len(line) < PREFIX
        or line[27] != 0x20
        or line[26] != 0x5A
        or line[28:34] not in _STREAM_BYTES
        or line[34] != 0x20
        or line[36] != 0x20
        or line[35] not in b"FP"
    ):
        return None
    try:
        when = line[:27].decode("ascii")
    except UnicodeDecodeError:
        return None
    stream = "stdout" if line[31] == 0x6F else "stderr"
    return Record(when, stream, line[35] == 0x46, line[PREFIX:])


class Joined(NamedTuple):
    """One whole line of output."""

    time: str
    """Of the record that ended the line."""
    stream: str
    message: bytes
    partial: bool
    """True: the line has no end (yet), or is longer than `MAX_LINE` and goes on in the next."""


class Joiner:
    """Makes whole lines of records, in the order in which the lines end."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, list[bytes], int]] = {}

    def feed(self, record: Record) -> Joined | None:
        """The line that this record ends, if it ends one."""
        pending = self._open
        if record.full and record.stream not in pending:
            return Joined(record.time, record.stream, record.message, partial=False)
        _, pieces, size = pending.pop(record.stream, ("", [], 0))
        pieces.append(record.message)
        size += len(record.message)
        if record.full or size > MAX_LINE:
            return Joined(record.time, record.stream, b"".join(pieces), partial=not record.full)
        pending[record.stream] = (record.time, pieces, size)
        return None

    def start_with(self, line: Joined) -> None:
        """Take an unfinished line over from elsewhere; its next record continues it."""
        self._open[line.stream] = (line.time, [line.message], len(line.message))

    def unfinished(self) -> list[Joined]:
        """The lines that have no end so far, oldest first; they stay open."""
        lines = [
            Joined(when, stream, b"".join(pieces), partial=True)
            for stream, (when, pieces, _) in self._open.items()
        ]
        return sorted(lines)


def join(records: Iterable[Record]) -> Iterator[Joined]:
    """The lines of records that are in order; unfinished ones come last, marked partial."""
    joiner = Joiner()
    for record in records:
        line = joiner.feed(record)
        if line is not None:
            yield line
    yield from joiner.unfinished()
