"""Readiness that is told rather than asked for: a line of output, a newline on a pipe, a time."""

import os
import re

from atlasd.services.loop import Loop, Timer
from atlasd.services.probing import AT_ONCE, OnVerdict, ProbeState, Result, Verdict, advance
from atlasd.states import Health

LINE_LIMIT = 4096
"""Bytes of one line of output against which a pattern is held; bounds what it may cost."""


def _told(detail: str) -> Verdict:
    result = Result(health=Health.PASS, detail=detail)
    return advance(AT_ONCE, ProbeState(), result, age=0.0)


class LogProbe:
    """Ready when a line of output matches a regular expression; the supervisor feeds it.

    Only whole lines are held against it, the first `LINE_LIMIT` bytes of each. Raises `ValueError`
    for a pattern that is not one.
    """

    def __init__(self, pattern: str, *, on_verdict: OnVerdict) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        self._on_verdict = on_verdict
        self._lines: dict[str, bytearray] = {}
        self._done = True

    def start(self) -> None:
        """Begin to look at what is fed."""
        self._done = False

    def stop(self) -> None:
        """Look no more."""
        self._done = True
        self._lines.clear()

    def feed(self, data: bytes, stream: str = "stdout") -> None:
        """New output of one stream; lines may come in any number of pieces."""
        if self._done:
            return
        left = self._lines.setdefault(stream, bytearray())
        *whole, rest = data.split(b"\n")
        for piece in whole:
            line = (bytes(left) + piece[:LINE_LIMIT])[:LINE_LIMIT]
            left.clear()
            text = line.decode("utf-8", "replace").rstrip("\r")
            if self._pattern.search(text):
                self.stop()
                self._on_verdict(_told(f"output says: {text[:200]}"))
                return
        left += rest[: LINE_LIMIT - len(left)]


class UptimeProbe:
    """Ready when the instance has been up for a time; `started` is its monotonic start."""

    def __init__(
        self, loop: Loop, seconds: float, *, started: float, on_verdict: OnVerdict
    ) -> None:
        self._loop = loop
        self._when = started + seconds
        self._detail = f"up for {seconds:g} s"
        self._on_verdict = on_verdict
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to wait for what is left of the time."""
        self._timer = self._loop.call_at(self._when, lambda: self._on_verdict(_told(self._detail)))

    def stop(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()


class ReadyPipe:
    """Ready when the program writes a newline on a descriptor that it was given (as s6 has it).

    It is a named pipe that both sides open for reading and writing: so the program never dies of
    SIGPIPE when the services role does, and a successor that opens the same `path` (or is handed
    `fd`, a duplicate that somebody kept) hears what is written later. Raises `OSError` when the
    pipe cannot be made.
    """

    def __init__(
        self, loop: Loop, path: str, *, on_verdict: OnVerdict, fd: int | None = None
    ) -> None:
        self._loop = loop
        self._on_verdict = on_verdict
        self._path = path
        self._child = -1
        if fd is None:
            try:
                os.mkfifo(path, 0o600)
            except FileExistsError:
                pass
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._fd = fd

    def fileno(self) -> int:
        """Our side; a duplicate of it in other hands keeps what is written while we are dead."""
        return self._fd

    def child_fd(self) -> int:
        """The program's side, close-on-exec; `spawned` closes it here. Raises `OSError`."""
        if self._child < 0:
            self._child = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        return self._child

    def spawned(self) -> None:
        """The program has its side: close our copy of it."""
        if self._child >= 0:
            os.close(self._child)
            self._child = -1

    def start(self) -> None:
        """Begin to wait for the newline."""
        self._loop.watch(self._fd, self._readable)

    def stop(self) -> None:
        """Wait no more, and remove the pipe."""
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1
            self.spawned()
            try:
                os.unlink(self._path)
            except OSError:
                pass

    def _readable(self, _mask: int) -> None:
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        if b"\n" in data:
            self.stop()
            self._on_verdict(_told("the program wrote its newline"))
