"""Following a service's log files as they are written and rotated: no line lost, none twice."""

import ctypes
import errno
import io
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Self

from atlasd.errors import AtlasError
from atlasd.services.log_reading import (
    Line,
    LogSource,
    Selection,
    Snapshot,
    folder_of,
    listing,
    merged,
    open_rotated,
)
from atlasd.services.output_records import Joined, Joiner, parse
from atlasd.services.rotation import Rotated, current_name

_BLOCK = 1 << 18
_HEAD = 64
# From <sys/inotify.h>.
_MODIFY, _MOVED_TO, _CREATE, _DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_OVERFLOW, _ONLYDIR = 0x4000, 0x01000000
_EVENT = struct.Struct("iIII")


class _Tail:
    """How far one instance's output has been read, across rotations."""

    def __init__(self, folder: str, service: str, instance: int) -> None:
        self._folder = folder
        self._service = service
        self.instance = instance
        self._path = os.path.join(folder, current_name(instance))
        self._joiner = Joiner()
        self._file: LogSource | None = None
        self._whole = False  # the file will not grow: it has been rotated
        self._offset = 0
        self._rest = b""
        self._backlog: list[Rotated] = []
        self._last: tuple[str, int] | None = None  # the newest rotated file that is accounted for

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from where a snapshot ends."""
        for line in snapshot.open_lines():
            self._joiner.start_with(line)
        if snapshot.rotated:
            self._last = snapshot.rotated[-1].order
        if snapshot.current is not None:
            self._file = io.FileIO(os.dup(snapshot.current.fileno()))
            self._file.seek(snapshot.end)
            self._offset = snapshot.end

    def step(self) -> list[Joined] | None:
        """The lines of the next block; None when there is nothing more for now."""
        if self._file is None:
            return [] if self._open_next() else None
        lines = self._read()
        if lines is not None:
            return lines
        if self._whole:
            self._leave()
            return []
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return self._follow_rotation()
        ours = os.fstat(self._file.fileno())
        if (status.st_dev, status.st_ino) != (ours.st_dev, ours.st_ino):
            return self._follow_rotation()
        if status.st_size < self._offset:
            self._shrunk(status.st_size)
            return []
        return None

    def _read(self) -> list[Joined] | None:
        assert self._file is not None
        try:
            block = self._file.read(_BLOCK)
        except (EOFError, OSError):
            block = b""  # a compressed file that was cut off
        if not block:
            return None
        self._offset += len(block)
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        found = []
        for line in lines:
            record = parse(line)
            joined = self._joiner.feed(record) if record is not None else None
            if joined is not None:
                found.append(joined)
        return found

    def _leave(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        self._rest = b""
        self._offset = 0

    def _open_next(self) -> bool:
        """Open what is to be read next; False if there's nothing yet."""
        while self._backlog:
            self._file = open_rotated(self._folder, self._backlog.pop(0))
            if self._file is not None:
                self._whole = True
                return True
        try:
            self._file = io.FileIO(self._path)
        except FileNotFoundError:
            pass
        newer = self._newer()
        if newer:
            # Rotated before we could open it: these come first, and perhaps are what we opened.
            if self._file is not None:
                self._leave()
            self._account_for(newer)
            return True
        self._whole = False
        return self._file is not None

    def _newer(self) -> list[Rotated]:
        files = listing(self._folder, self._service).get(self.instance, [])
        return [file for file in files if self._last is None or file.order > self._last]

    def _account_for(self, newer: list[Rotated]) -> None:
        self._backlog = newer
        if newer:
            self._last = newer[-1].order

    def _follow_rotation(self) -> list[Joined]:
        """The file that was being read has been renamed, or removed."""
        lines = self._read()  # what was written between the last read and the renaming
        if lines is not None:
            return lines
        assert self._file is not None
        newer = self._newer()
        head = os.pread(self._file.fileno(), _HEAD, 0)
        for position, file in enumerate(newer):
            if self._head(file) == head:
                self._account_for(newer[position + 1 :])
                self._last = newer[-1].order
                break
        else:
            self._account_for(newer)  # ours is gone already
        self._leave()
        return []

    def _head(self, file: Rotated) -> bytes:
        opened = open_rotated(self._folder, file)
        if opened is None:
            return b""
        with opened:
            try:
                return opened.read(_HEAD)
            except (EOFError, OSError):
                return b""

    def _shrunk(self, size: int) -> None:
        """Somebody emptied the file, or a full disk made the writer take a piece back."""
        assert self._file is not None
        self._offset = 0 if size < _HEAD else size
        self._rest = b""
        self._file.seek(self._offset)

    def close(self) -> None:
        """Close the file that is being read."""
        if self._file is not None:
            self._leave()


class Follower:
    """Lines of a service's output, first those that are there, then those that come.

    `fileno()` becomes readable when there may be more: then call `read` until `pending` is false.
    The arguments are those of `query`. Raises `AtlasError` as `query` does, and when the log
    folder does not exist.
    """

    def __init__(
        self,
        log_dir: str,
        service: str,
        *,
        instances: Sequence[int] | None = None,
        since: float | None = None,
        grep: str | None = None,
        lines: int | None = None,
        stream: str | None = None,
    ) -> None:
        self._selection = Selection(since=since, grep=grep, stream=stream)
        self._folder = folder_of(log_dir, service)
        self._log_dir = log_dir
        self._service = service
        self._wanted = None if instances is None else frozenset(instances)
        self._lines = lines
        self._tails: dict[int, _Tail] = {}
        self._dirty: set[int] = set()
        self._snapshots: list[Snapshot] = []
        self._watch = -1
        self._inotify = _Inotify()
        try:
            # Watched first, looked at second: what comes in between is seen twice, not never.
            self._parent = self._inotify.add(log_dir, _CREATE | _MOVED_TO | _ONLYDIR)
            self._watch_folder()
            for instance in listing(self._folder, service):
                if self._wanted is None or instance in self._wanted:
                    snapshot = Snapshot(self._folder, service, instance)
                    self._snapshots.append(snapshot)
                    tail = self._tails[instance] = _Tail(self._folder, service, instance)
                    tail.resume(snapshot)
        except FileNotFoundError:
            self.close()
            raise AtlasError(
                "daemon.directory",
                f"the log folder {log_dir} does not exist",
                hint="it is made when atlasd is started; see `atlasctl status`",
            ) from None
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor to watch, for an event loop."""
        return self._inotify.fd

    @property
    def pending(self) -> bool:
        """Whether `read` left something, so that it has to be called again without a signal."""
        return bool(self._dirty)

    def initial(self) -> Iterator[Line]:
        """What is there already, oldest first; take it all before the first `read`."""
        try:
            yield from merged(self._snapshots, self._selection, self._lines, unfinished=False)
        finally:
            for snapshot in self._snapshots:
                snapshot.close()
            self._snapshots.clear()
            self._dirty.update(self._tails)

    def read(self, limit: int = 2000) -> list[Line]:
        """What has come since; about `limit` lines at once, which leaves time for others."""
        self._take_events()
        found: list[Line] = []
        for instance in sorted(self._dirty):
            tail = self._tails.get(instance)
            if tail is None:
                tail = self._tails[instance] = _Tail(self._folder, self._service, instance)
            while len(found) < limit:
                lines = tail.step()
                if lines is None:
                    self._dirty.discard(instance)
                    break
                for joined in lines:
                    line = self._selection.line(joined, self._service, instance)
                    if line is not None:
                        found.append(line)
        found.sort(key=lambda line: line.time)
        return found

    def _watch_folder(self) -> None:
        mask = _MODIFY | _CREATE | _MOVED_TO | _DELETE_SELF | _ONLYDIR
        try:
            self._watch = self._inotify.add(self._folder, mask)
        except FileNotFoundError:
            self._watch = -1

    def _take_events(self) -> None:
        for watch, mask, name in self._inotify.read():
            if mask & _OVERFLOW or (watch == self._parent and name == self._service):
                self._watch_folder()
                self._touch(listing(self._folder, self._service))
            elif watch == self._watch:
                stem = name.partition(".")[0]
                if stem.isdigit():
                    self._touch((int(stem),))

    def _touch(self, instances: "Sequence[int] | dict[int, list[Rotated]]") -> None:
        for instance in instances:
            if self._wanted is None or instance in self._wanted:
                self._dirty.add(instance)

    def close(self) -> None:
        """Give every descriptor back."""
        self._inotify.close()
        for snapshot in self._snapshots:
            snapshot.close()
        for tail in self._tails.values():
            tail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class _Inotify:
    """The kernel's news of changed files."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise _too_many(ctypes.get_errno())

    def add(self, path: str, mask: int) -> int:
        """Watch a folder; the watch's number. Raises `OSError`."""
        watch: int = self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if watch < 0:
            number = ctypes.get_errno()
            if number == errno.ENOSPC:
                raise _too_many(number)
            raise OSError(number, os.strerror(number), path)
        return watch

    def read(self) -> Iterator[tuple[int, int, str]]:
        """What has happened: (watch, mask, name)."""
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                watch, mask, _cookie, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                yield watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
                at += length

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _too_many(number: int) -> AtlasError:
    return AtlasError(
        "daemon.directory",
        f"log files cannot be followed: {os.strerror(number)}",
        hint="raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)",
    )
