"""All log files of the host: rotating and compressing them, and keeping to the budget."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from atlasd.services.loop import Loop, Timer
from atlasd.services.output_file import LogFile
from atlasd.services.rotation import (
    DAY,
    Rotated,
    current_name,
    expired,
    next_rotated,
    over_budget,
    parse_name,
    size_limit,
)
from atlasd.services.spec import Log

Spawn = Callable[[Sequence[str], Callable[[int], object]], object]
"""`spawn(argv, on_exit)`: start a program, call `on_exit(exit_code)` when it was reaped."""

COMPRESS_AFTER = 10.0
"""Seconds that a rotated file stays as it is: under a flood it's removed before gzip costs CPU."""
_OLDEST_CHECK = 60.0
# A shell makes the redirection, so that `spawn` needs to know nothing of descriptors. gzip never
# writes to the final name: whoever of us dies in between, no half file is taken for a whole one.
_GZIP = 'exec nice -n 10 gzip -nc -- "$1" > "$2"'


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
        self._report = report
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
        # What services may keep is not known yet: `configure` and the timers see to it.
        for file in self.rotated():
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

    def monotonic(self) -> float:
        """The loop's monotonic time in seconds."""
        return self._loop.clock.monotonic()

    def report(self, text: str) -> None:
        """Tell the operator, in plain words."""
        self._report(text)

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
            known = file in self._rotated.get((file.service, file.instance), ())
            if not known or not self.limits(file.service).compress:
                continue  # removed, or configured otherwise, in the meantime
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
