"""Other people's programs, run for a moment: what goes in, what comes out, and until when."""

import contextlib
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

HEARD = 64 * 1024
"""Bytes of output that are kept of a check; what follows is read and dropped."""
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME")
"""Variables of the daemon's own that such a program gets: nothing else may hold a secret."""
_SEARCHED = "/usr/local/bin:/usr/bin:/bin"


class DidNotAnswerError(Exception):
    """A program that could not be run, took too long, or said too much; the reason in words."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended."""

    code: int
    """Exit code; of one that a signal ended, minus its number."""
    said: str
    """The beginning of what it wrote, both streams together."""


def surroundings(**more: str) -> dict[str, str]:
    """The environment of a program that is run for a moment."""
    own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"PATH": _SEARCHED} | own | more


class Program:
    """One running program, in a session of its own; whatever it leaves behind dies with it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        seconds: float,
        together: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`together` has its two streams read as one. Raises `DidNotAnswerError`."""
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock() + seconds
        try:
            self._child = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if together else subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise DidNotAnswerError(f"{command[0]} cannot be run: {said}") from None
        self._selector = selectors.DefaultSelector()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._input = self._child.stdin
        self._to_write = b""
        self.heard = {"out": bytearray(), "err": bytearray()}
        for name, stream in (("out", self._child.stdout), ("err", self._child.stderr)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, name)
        os.set_blocking(self._input.fileno(), False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self._selector.close()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _end(self) -> int:
        """Have it and all that it has started ended; its exit code."""
        if self._child.returncode is None:
            # The group is its own, and while nobody has waited for its leader, dead or alive, the
            # number can be no other's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        return self._child.wait()

    def send(self, text: bytes, *, last: bool) -> None:
        """Have the text written to its input while its output is read."""
        self._to_write += text
        self._last = last
        if self._to_write:
            self._selector.register(self._input, selectors.EVENT_WRITE, "in")
        elif last:
            self._close_input()

    def line(self, limit: int) -> bytes:
        """Its next line on standard output. Raises `DidNotAnswerError`."""
        heard = self.heard["out"]
        while b"\n" not in heard:
            if len(heard) > limit:
                raise DidNotAnswerError("it says more than can be meant")
            if not self._turn("out"):
                raise DidNotAnswerError("it ended without an answer")
        line, _, rest = bytes(heard).partition(b"\n")
        heard[:] = rest
        return line

    def outcome(self) -> Outcome:
        """How it ends. Raises `DidNotAnswerError` when that takes too long."""
        while self._turn():
            for heard in self.heard.values():
                del heard[HEARD:]
        ended = os.pidfd_open(self._child.pid)
        try:
            left = max(0.0, self._deadline - self._clock())
            if not select.select([ended], [], [], left)[0]:
                raise self._too_long()
        finally:
            os.close(ended)
        code = self._end()
        said = bytes(self.heard["out"] + self.heard["err"])[:HEARD]
        return Outcome(code=code, said=said.decode(errors="replace"))

    def _turn(self, needed: str = "") -> bool:
        """Read and write what can be; False when no stream is left, or not the one needed."""
        streams = {key.data for key in self._selector.get_map().values()}
        if not streams - {"in"} or (needed and needed not in streams):
            return False
        left = self._deadline - self._clock()
        if left <= 0:
            raise self._too_long()
        for key, _ in self._selector.select(left):
            if key.data == "in":
                self._write()
                continue
            chunk = os.read(key.fd, 65536)
            if not chunk:
                self._selector.unregister(key.fileobj)
            elif key.data == "out" or len(self.heard["err"]) < HEARD:
                self.heard[key.data] += chunk
        return True

    def _write(self) -> None:
        try:
            written = os.write(self._input.fileno(), self._to_write[:65536])
        except BrokenPipeError:
            self._to_write = b""  # it does not want to know; its exit code says what it thinks
            self._last = True
        else:
            self._to_write = self._to_write[written:]
        if not self._to_write:
            self._selector.unregister(self._input)
            if self._last:
                self._close_input()

    def _close_input(self) -> None:
        with contextlib.suppress(OSError):
            self._input.close()

    def _too_long(self) -> DidNotAnswerError:
        return DidNotAnswerError(f"it took longer than {self._seconds:g} s and was ended")


def run(
    command: Sequence[str],
    *,
    text: bytes,
    cwd: str,
    env: Mapping[str, str],
    seconds: float,
) -> Outcome:
    """Run a command to its end, `text` on its input. Raises `DidNotAnswerError`."""
    with Program(command, cwd=cwd, env=env, seconds=seconds, together=True) as program:
        program.send(text, last=True)
        return program.outcome()
