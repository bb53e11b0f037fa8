"""Log files on disk: opening, appending, rotating, compressing, and keeping to the budget."""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from atlasd.services.loop import Loop, Timer
from atlasd.services.output_journal import Unfinished
from atlasd.services.output_records import PREFIX, stamp
from atlasd.services.rotation import (
    DAY,
    Rotated,
    current_name,
    expired,
    next_rotated,
    over_budget,
    parse_name,
    rotate_at,
    size_limit,
)
from atlasd.services.spec import Log

Spawn = Callable[[Sequence[str], Callable[[int], object]], object]
"""`spawn(argv, on_exit)`: start a program, call `on_exit(exit_code)` when it was reaped."""

COMPRESS_AFTER = 10.0
"""Seconds that a rotated file stays as it is: under a flood it's removed before gzip costs CPU."""
_RETRY = 0.5
_RECHECK = 5_000_000  # microseconds
_OLDEST_CHECK = 60.0
_FOREVER = 1 << 62
# A shell makes the redirection, so that `spawn` needs to know nothing of descriptors. gzip never
# writes to the final name: whoever of us dies in between, no half file is taken for a whole one.
_GZIP = 'exec nice -n 10 gzip -nc -- "$1" > "$2"'


class LogFile:
    """The current log file of one instance; both of its streams are appended to it."""

    __slots__ = (
        "_checked",
        "_directory",
        "_retry_at",
        "_rotate_at",
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

    def __init__(self, directory: "LogDirectory", service: str, instance: int, size: int) -> None:
        self._directory = directory
        self.service = service
        self.instance = instance
        self.path = os.path.join(directory.path, service, current_name(instance))
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
            self._directory.rotate(self)
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
        self._directory.opened(self)
        if micros >= self._rotate_at:
            self._directory.rotate(self)
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
        log = self._directory.limits(self.service)
        self._rotate_at = int(rotate_at(begun / 1e6, log) * 1_000_000)

    def _resized(self, size: int) -> None:
        self._directory.grow(self.service, size - self.size)
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
        self._directory.grow(self.service, total)
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
        self._retry_at = self._directory.monotonic() + _RETRY
        if not self.unreported:
            self.why = "disk full" if error.errno in _FULL else os.strerror(error.errno or 0)
            self._directory.report(f"output of {self.service}.{self.instance} is lost: {error}")

    def _resume(self, stream: bytes, micros: int) -> bool:
        if self._directory.monotonic() < self._retry_at or not self._check(micros):
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
        newest = self._directory.newest(self.service, self.instance)
        if newest is not None and not newest.compressed:
            names.append(os.path.join(self._directory.path, self.service, newest.name))
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


class LogDirectory:
    """All log files of the host: what they take is known at any time without looking."""

    def __init__(
        self,
        path: str,
        loop: Loop,
        *,
        budget: int,
        spawn: Spawn | None,
        report: Callable[[str], None],
    ) -> None:
        self.path = path
        self.report = report
        self.monotonic = loop.clock.monotonic
        self.total = 0
        """Bytes that log files take on disk, rotated ones included."""
        self._loop = loop
        self._budget = budget
        self._spawn = spawn
        self._limits: dict[str, Log] = {}
        self._default = Log()
        self._files: dict[tuple[str, int], LogFile] = {}
        self._rotated: dict[tuple[str, int], list[Rotated]] = {}
        self._current: dict[str, int] = {}
        self._waiting: deque[tuple[float, Rotated]] = deque()
        self._compressing: Rotated | None = None
        self._expiry: float | None = None
        self._timer: Timer | None = None
        os.makedirs(path, mode=0o750, exist_ok=True)

    def scan(self) -> None:
        """Take stock of the directory. Once, at the start; from then on it's bookkeeping."""
        for folder in _entries(self.path):
            if not folder.name.startswith(".") and folder.is_dir(follow_symlinks=False):
                found: dict[tuple[str, int, str, int], Rotated] = {}
                for entry in _entries(folder.path):
                    self._found(folder.name, entry, found)
                for file in sorted(found.values(), key=lambda file: file.order):
                    self._rotated.setdefault((file.service, file.instance), []).append(file)
                    self.total += file.size
        for (service, _), files in list(self._rotated.items()):
            self._tidy(service, files)
            for file in files:
                self._remember(file)
        self._fit()
        self._wake()

    def _found(
        self,
        service: str,
        entry: "os.DirEntry[str]",
        found: dict[tuple[str, int, str, int], Rotated],
    ) -> None:
        try:
            size = entry.stat(follow_symlinks=False).st_size
        except OSError:
            return
        if entry.name.startswith(".") and entry.name.endswith(".gz.tmp"):
            _unlink(entry.path)  # of a compression whose supervisor has died
            return
        stem, _, suffix = entry.name.partition(".")
        if suffix == "log" and stem.isdigit() and current_name(int(stem)) == entry.name:
            self._files[service, int(stem)] = LogFile(self, service, int(stem), size)
            self.grow(service, size)
            return
        file = parse_name(service, entry.name, size)
        if file is not None and (file.key not in found or not file.compressed):
            found[file.key] = file

    def file(self, service: str, instance: int) -> LogFile:
        """The current log file of an instance; it's made on disk with its first output."""
        file = self._files.get((service, instance))
        if file is None:
            file = self._files[service, instance] = LogFile(self, service, instance, 0)
        return file

    def limits(self, service: str) -> Log:
        """What was configured for a service, or the defaults."""
        return self._limits.get(service, self._default)

    def configure(self, service: str, log: Log) -> None:
        """Set the limits of a service; they hold at once."""
        if self._limits.get(service) == log:
            return
        self._limits[service] = log
        for (owner, _instance), files in list(self._rotated.items()):
            if owner == service:
                self._tidy(service, files)
                for file in files:
                    self._remember(file, compress=False)
        for (owner, _), current in self._files.items():
            if owner == service:
                current.close()  # its limits are computed when it's opened again
        self._wake()

    def set_budget(self, budget: int) -> None:
        """Set how many bytes all log files may take together; it holds at once."""
        self._budget = budget
        for file in self._files.values():
            self.opened(file)
        self._fit()

    def grow(self, service: str, count: int) -> None:
        """Account for `count` more bytes in a current file of the service."""
        self.total += count
        self._current[service] = self._current.get(service, 0) + count

    def opened(self, file: LogFile) -> None:
        """Compute at which size the file is to be rotated."""
        file.limit = size_limit(self.limits(file.service), self._budget, len(self._files))

    def newest(self, service: str, instance: int) -> Rotated | None:
        """The instance's file that was rotated last."""
        files = self._rotated.get((service, instance))
        return files[-1] if files else None

    def rotated(self) -> Iterator[Rotated]:
        """Every rotated file there is."""
        for files in self._rotated.values():
            yield from files

    def rotate(self, file: LogFile) -> None:
        """Rename the current file; its next output begins a new one."""
        last = self.newest(file.service, file.instance)
        wall = self._loop.clock.wall()
        name = next_rotated(
            file.service, file.instance, file.size, last.order if last else None, wall
        )
        try:
            os.rename(file.path, self._path(name))
        except FileNotFoundError:
            file.close()  # somebody has removed it, and what it took is free
            self.grow(file.service, -file.size)
            file.size = 0
            return
        except OSError as error:
            file.limit = file.size + self.limits(file.service).max_size
            self.report(f"{file.path} cannot be rotated: {error}")
            return
        file.close()
        self._current[file.service] -= file.size  # now it counts as a rotated file
        file.size = 0
        files = self._rotated.setdefault((file.service, file.instance), [])
        files.append(name)
        self._tidy(file.service, files)
        self._fit()
        self._remember(name)
        self._wake()

    def _path(self, file: Rotated) -> str:
        return os.path.join(self.path, file.service, file.name)

    def _tidy(self, service: str, files: list[Rotated]) -> None:
        for file in expired(files, self.limits(service), self._loop.clock.wall()):
            self._remove(file)

    def _fit(self) -> None:
        if self.total > self._budget:
            for file in over_budget(self.rotated(), self._current, self._budget):
                self._remove(file)

    def _remove(self, file: Rotated) -> None:
        self._rotated[file.service, file.instance].remove(file)
        self.total -= file.size
        _unlink(self._path(file))

    def _remember(self, file: Rotated, *, compress: bool = True) -> None:
        """Note when the file is due for compression and when it gets too old."""
        log = self.limits(file.service)
        if log.compress and not file.compressed and compress:
            self._waiting.append((self.monotonic() + COMPRESS_AFTER, file))
        end = file.since + log.max_age
        if self._expiry is None or end < self._expiry:
            self._expiry = end

    def _wake(self) -> None:
        """Have one timer for what is due next, or none if nothing ever is."""
        now = self.monotonic()
        times = []
        if self._waiting and self._compressing is None and self._spawn is not None:
            times.append(self._waiting[0][0])
        if self._expiry is not None:
            wait = self._expiry - self._loop.clock.wall()
            times.append(now + min(max(wait, _OLDEST_CHECK), DAY))
        if self._timer is not None:
            if times and self._timer.pending and self._timer.when <= min(times):
                return
            self._timer.cancel()
            self._timer = None
        if times:
            self._timer = self._loop.call_at(min(times), self._due)

    def _due(self) -> None:
        self._timer = None
        wall = self._loop.clock.wall()
        if self._expiry is not None and wall >= self._expiry:
            self._expiry = None
            for (service, _), files in self._rotated.items():
                self._tidy(service, files)
                for file in files:
                    self._remember(file, compress=False)
        self._compress()
        self._wake()

    def _compress(self) -> None:
        """Start gzip for the file that waits longest, if it's due and none is running."""
        while self._waiting and self._compressing is None and self._spawn is not None:
            when, file = self._waiting[0]
            if when > self.monotonic():
                return
            self._waiting.popleft()
            if file not in self._rotated.get((file.service, file.instance), ()):
                continue  # removed in the meantime
            source, target = self._path(file), self._temporary(file)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                os.close(os.open(target, flags, 0o640))
                self._compressing = file
                self._spawn(
                    ["/bin/sh", "-c", _GZIP, "gzip", source, target],
                    partial(self._compressed, file),
                )
            except OSError as error:
                self._compressing = None
                self._spawn = None
                _unlink(target)
                self.report(f"log files stay uncompressed: {error}")

    def _temporary(self, file: Rotated) -> str:
        return os.path.join(self.path, file.service, f".{file.name}.gz.tmp")

    def _compressed(self, file: Rotated, code: int) -> None:
        self._compressing = None
        temporary = self._temporary(file)
        files = self._rotated.get((file.service, file.instance), [])
        try:
            if code == 0 and file in files:
                small = replace(file, compressed=True, size=os.stat(temporary).st_size)
                os.rename(temporary, self._path(small))
                _unlink(self._path(file))
                files[files.index(file)] = small
                self.total += small.size - file.size
            else:
                _unlink(temporary)
        except OSError as error:
            _unlink(temporary)
            self.report(f"{self._path(file)} could not be compressed: {error}")
        if code in (126, 127):
            self._spawn = None  # no shell, nice or gzip: it won't be there for the next one
            self.report("log files stay uncompressed: gzip cannot be run")
        self._compress()
        self._wake()

    def close(self) -> None:
        """Close every file and take the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for file in self._files.values():
            file.close()


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


def _entries(path: str) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
