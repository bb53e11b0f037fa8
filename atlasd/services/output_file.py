"""The log file that an instance's output is appended to; a full disk loses output, not order."""

import errno
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from atlasd.services.output_journal import Unfinished
from atlasd.services.output_records import PREFIX, stamp
from atlasd.services.rotation import Rotated, current_name, rotate_at
from atlasd.services.spec import Log

_RETRY = 0.5  # seconds between two tries to write to a full disk
_RECHECK = 5_000_000  # microseconds after which the file's path is looked at again
_FOREVER = 1 << 62


class Shelf(Protocol):
    """What a log file needs to know of all the others; `output_files.LogDirectory`."""

    path: str

    def limits(self, service: str) -> Log:
        """What was configured for the service."""

    def grow(self, service: str, count: int) -> None:
        """Account for `count` more bytes."""

    def opened(self, file: "LogFile") -> None:
        """Compute at which size the file is to be rotated."""

    def rotate(self, file: "LogFile") -> None:
        """Rename the file."""

    def newest(self, service: str, instance: int) -> Rotated | None:
        """The instance's file that was rotated last."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def report(self, text: str) -> None:
        """Tell the operator."""


class LogFile:
    """The current log file of one instance; both of its streams are appended to it."""

    __slots__ = (
        "_checked",
        "_retry_at",
        "_rotate_at",
        "_shelf",
        "fd",
        "inode",
        "instance",
        "limit",
        "mid_line",
        "path",
        "service",
        "size",
        "unreported",
        "why",
    )

    def __init__(self, shelf: Shelf, service: str, instance: int, size: int) -> None:
        self._shelf = shelf
        self.service = service
        self.instance = instance
        self.path = os.path.join(shelf.path, service, current_name(instance))
        self.fd = -1
        self.inode = 0
        self.size = size
        self.limit = 0
        self.unreported = 0
        """Bytes of output that were lost and are not yet spoken of in the file."""
        self.why = ""
        self.mid_line: dict[bytes, bool] = {}
        """By stream: whether its last record was an unfinished line. Missing: not known."""
        self._checked = 0
        self._retry_at = 0.0
        self._rotate_at = _FOREVER

    def ready(self, stream: bytes, micros: int) -> bool:
        """Open the file, rotate it if it is old; whether a chunk can be appended now."""
        if self.unreported:
            return self._resume(stream, micros)
        if self.fd < 0 or not 0 <= micros - self._checked < _RECHECK:
            return self._check(micros)
        if micros >= self._rotate_at:
            self._shelf.rotate(self)
            return self._check(micros)
        return True

    def _check(self, micros: int) -> bool:
        """Open the file; again when it is no longer the one that its path names."""
        if self.fd >= 0:
            try:
                there = os.stat(self.path).st_ino == self.inode
            except OSError:
                there = False
            if not there:
                self.close()
        self._checked = micros
        if self.fd < 0:
            try:
                self._open(micros)
            except OSError as error:
                self.close()
                self._failed(error)
                return False
        self._shelf.opened(self)
        if micros >= self._rotate_at:
            self._shelf.rotate(self)
            return self.fd >= 0 or self._check(micros)
        return True

    def _open(self, micros: int) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(self.path, flags, 0o640)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
            fd = os.open(self.path, flags, 0o640)
        self.fd = fd
        status = os.fstat(fd)
        self.inode = status.st_ino
        self._resized(status.st_size)
        begun = micros
        if status.st_size:
            begun = _micros_of(os.pread(fd, 27, 0)) or micros
            if os.pread(fd, 1, status.st_size - 1) != b"\n":
                # A line torn by a power cut must not swallow the first one of ours.
                self._resized(self.size + os.write(fd, b"\n"))
        else:
            os.fchmod(fd, 0o640)  # whatever the umask: core reads it through its group
        log = self._shelf.limits(self.service)
        self._rotate_at = int(rotate_at(begun / 1e6, log) * 1_000_000)

    def _resized(self, size: int) -> None:
        self._shelf.grow(self.service, size - self.size)
        self.size = size

    def append(self, parts: Sequence[bytes | memoryview]) -> tuple[int, int]:
        """Append composed records; (bytes, lines) of output that could not be written.

        When the disk is full the file is cut back to its last whole record. A file that has
        reached its limit is not rotated here: the journal still names it.
        """
        total = sum(map(len, parts))
        try:
            written = os.writev(self.fd, parts)
        except OSError as error:
            self._failed(error)
            written = 0
        if written != total:
            return self._short(b"".join(parts), written)
        self.size += total
        self._shelf.grow(self.service, total)
        return 0, 0

    def _short(self, records: bytes, written: int) -> tuple[int, int]:
        while 0 < written < len(records):
            try:
                written += os.write(self.fd, records[written:])
            except OSError as error:
                self._failed(error)
                break
        kept = records.rfind(b"\n", 0, written) + 1
        try:
            if kept != written:
                os.ftruncate(self.fd, self.size + kept)
        except OSError:
            pass  # the next opening ends the torn line
        self._resized(self.size + kept)
        lines = records.count(b"\n", kept)
        # A record's newline is not part of a P record's message: only the last can be one.
        partial = 1 if lines and records[records.rfind(b"\n", 0, -1) + 1 + 35] == 0x50 else 0
        return len(records) - kept - lines * PREFIX - partial, lines - partial

    def repair(self, chunk: Unfinished, longest: int, micros: int) -> bool:
        """Open the file and take back what a predecessor wrote of its last chunk.

        That is all from the chunk's offset on, if the file is the one that it wrote to and no more
        than `longest` bytes stand there. Whether the chunk can be appended now. The file isn't
        rotated before that, however old it is: it may already hold the chunk.
        """
        try:
            self._open(micros)
            end = chunk.offset + longest
            if chunk.inode == self.inode and 0 <= chunk.offset < self.size <= end:
                os.ftruncate(self.fd, chunk.offset)
                self._resized(chunk.offset)
        except OSError as error:
            self._failed(error)
            return False
        return True

    def lose(self, count: int) -> None:
        """Count `count` bytes of output as lost; said in the file as soon as it can be written."""
        self.unreported += count

    def _failed(self, error: OSError) -> None:
        self._retry_at = self._shelf.monotonic() + _RETRY
        if not self.unreported:
            self.why = "disk full" if error.errno in _FULL else os.strerror(error.errno or 0)
            self._shelf.report(f"output of {self.service}.{self.instance} is lost: {error}")

    def _resume(self, stream: bytes, micros: int) -> bool:
        if self._shelf.monotonic() < self._retry_at or not self._check(micros):
            return False
        lost = self.unreported
        head = b"%s %s F " % (stamp(micros), stream)
        text = b"atlasd: output lost %d bytes (%s)\n" % (lost, self.why.encode())
        notice = head + text if not self.mid_line.get(stream) else head + b"\n" + head + text
        self.unreported = 0
        if self.append([notice]) != (0, 0):
            self.unreported = lost
            return False
        self.mid_line[stream] = False
        return self._check(micros)

    def unfinished(self, stream: bytes) -> bool:
        """Whether the stream's last record is a line without an end, as far as is known."""
        known = self.mid_line.get(stream)
        if known is None:
            known = False
            for line in reversed(self.last_bytes(65536).split(b"\n")):
                if line[28:34] == stream:
                    known = line[35:36] == b"P"
                    break
            self.mid_line[stream] = known
        return known

    def last_bytes(self, limit: int) -> bytes:
        """The last whole records, `limit` bytes at most, also from before the last rotation."""
        names = [self.path]
        newest = self._shelf.newest(self.service, self.instance)
        if newest is not None and not newest.compressed:
            names.append(os.path.join(self._shelf.path, self.service, newest.name))
        found = b""
        for name in names:
            wanted = limit - len(found)
            if wanted > 0:
                found = _tail(name, wanted) + found
        return found

    def close(self) -> None:
        """Give the descriptor back; `ready` opens it again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._rotate_at = _FOREVER


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _micros_of(text: bytes) -> int | None:
    try:
        return int(datetime.fromisoformat(text.decode("ascii")).timestamp() * 1_000_000)
    except ValueError:
        return None


def _tail(path: str, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        start = max(0, os.fstat(fd).st_size - limit)
        data = os.pread(fd, limit, start)
    except OSError:
        return b""
    finally:
        os.close(fd)
    return data if start == 0 else data[data.find(b"\n") + 1 :]
