"""A connection to the job engine: one JSON object a line, many requests under way at once.

There is no reading thread. Whoever waits for an answer reads, for everybody, until his own has
come: with one thread that is a plain send and receive, without a hand-over between threads.
"""

import json
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from atlasd.errors import AtlasError

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_CHUNK = 1 << 18


class Pending:
    """An answer that has not come yet."""

    __slots__ = ("answer", "done", "error", "heard", "wake")

    def __init__(self) -> None:
        self.done = False
        self.answer: dict[str, Any] = {}
        self.error: AtlasError | None = None
        self.heard: Callable[[], object] | None = None
        """Called once it is done, by whoever reads; set it first, then look whether it is."""
        self.wake: threading.Lock | None = None
        """Held for as long as a thread that waits for it, and doesn't read, is to sleep."""

    def result(self) -> dict[str, Any]:
        """The answer; raises the `AtlasError` that came in its place."""
        if self.error is not None:
            raise self.error
        return self.answer


class Connection:
    """One connection; may be used by several threads."""

    def __init__(self, path: str, *, timeout: float = 10.0) -> None:
        """Connect. Raises `AtlasError` `core.unreachable`."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise _unreachable(path, error.strerror or str(error)) from error
        self._socket.settimeout(None)
        self._sending = threading.Lock()
        self._turns = threading.Lock()
        """Guards who reads, and who sleeps meanwhile."""
        self._sleeping: dict[Pending, None] = {}
        self._pending: dict[int, Pending] = {}
        self._number = 0
        self._reading = False
        self._rest = b""
        self.closed: AtlasError | None = None
        """Why the connection has ended; None while it stands."""

    def send(self, op: str, fields: dict[str, Any]) -> Pending:
        """Ask something, and don't wait. Raises `core.unreachable`."""
        pending = Pending()
        with self._sending:
            if self.closed is not None:
                raise self.closed
            self._number += 1
            self._pending[self._number] = pending
            line = _encode({"n": self._number, "op": op, **fields}) + "\n"
            try:
                self._send_all(memoryview(line.encode()))
            except OSError as error:
                raise self._end(error.strerror or str(error)) from error
        return pending

    def _send_all(self, data: memoryview) -> None:
        """Send, and read meanwhile: the engine stops listening to whom it cannot answer."""
        while data:
            try:
                data = data[self._socket.send(data, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                readable, _, _ = select.select([self._socket], [self._socket], [])
                if readable:
                    self._read_if_nobody_does()

    def fileno(self) -> int:
        """The descriptor, for an event loop that calls `read_ready` when there is something."""
        return self._socket.fileno()

    def read_ready(self) -> None:
        """Read what is there and hand it out, unless another thread is at it; never waits."""
        self._read_if_nobody_does(wait=0.0)

    def _read_if_nobody_does(self, *, wait: float = 0.01) -> None:
        with self._turns:
            free, self._reading = not self._reading, True
        if free:
            try:
                self._read(0.0)
            finally:
                self._pass_on(mine=True)
        elif wait:
            time.sleep(wait)

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask something and wait for the answer. Raises the `AtlasError` that came in its place."""
        return self.wait(self.send(op, fields))

    def wait(self, pending: Pending, timeout: float | None = None) -> dict[str, Any]:
        """The answer, read by this thread or by another. Raises `TimeoutError` after `timeout`.

        Each thread is woken for its own answer alone, or because it is its turn to read: with many
        threads on one connection nothing else would be quick.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_done(pending):
            if self._my_turn(pending):
                try:
                    while not self._is_done(pending):
                        self._read(deadline)
                        if deadline is not None and time.monotonic() >= deadline:
                            break
                finally:
                    self._pass_on(mine=True)
            else:
                self._sleep(pending, deadline)
            if deadline is not None and not self._is_done(pending) and time.monotonic() >= deadline:
                # It may have been woken to read, and has no time for it.
                self._pass_on(mine=False)
                raise TimeoutError
        return pending.result()

    def _my_turn(self, pending: Pending) -> bool:
        """Whether this thread reads; else what wakes it is ready."""
        with self._turns:
            if not self._reading:
                self._reading = True
                return True
            if not pending.done:
                pending.wake = threading.Lock()
                pending.wake.acquire()
                self._sleeping[pending] = None
            return False

    def _sleep(self, pending: Pending, deadline: float | None) -> None:
        wake = pending.wake
        if wake is not None:
            wake.acquire(timeout=-1 if deadline is None else max(deadline - time.monotonic(), 0.0))
            with self._turns:
                self._sleeping.pop(pending, None)

    def _pass_on(self, *, mine: bool) -> None:
        """Have a sleeper read if nobody does; `mine`: this thread did until now."""
        with self._turns:
            if mine:
                self._reading = False
            if self._sleeping and not self._reading:
                other, _ = self._sleeping.popitem()
                assert other.wake is not None
                other.wake.release()

    def _wake(self, pending: Pending) -> None:
        """It is done."""
        pending.done = True
        if pending.heard is not None:
            pending.heard()
        with self._turns:
            if pending in self._sleeping:
                del self._sleeping[pending]
                assert pending.wake is not None
                pending.wake.release()

    @staticmethod
    def _is_done(pending: Pending) -> bool:
        # Another thread changes it: as an attribute, a type checker would take it for settled.
        return pending.done

    def _read(self, deadline: float | None) -> None:
        """Read once, and hand out what came."""
        try:
            if deadline is None:
                data = self._socket.recv(_CHUNK)
            else:
                # No time-out of the socket itself: another thread's send would have it too.
                left = max(deadline - time.monotonic(), 0.0)
                select.select([self._socket], [], [], left)
                data = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:  # ValueError: it was closed here
            self._end(getattr(error, "strerror", "") or str(error))
            return
        if not data:
            self._end("it has closed the connection")
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line:
                self._hand_out(json.loads(line))

    def _hand_out(self, body: dict[str, Any]) -> None:
        pending = self._pending.pop(body.get("n") or 0, None)
        if pending is None:
            return
        error = body.get("error")
        if error is not None:
            pending.error = AtlasError(error["code"], error["message"], hint=error.get("hint", ""))
        else:
            pending.answer = body
        self._wake(pending)

    def _end(self, why: str) -> AtlasError:
        error = self.closed = self.closed or _unreachable(self._path, why)
        waiting, self._pending = self._pending, {}
        for pending in waiting.values():
            pending.error = error
            self._wake(pending)
        self._socket.close()
        return error

    def close(self) -> None:
        """Hang up; who still waits is told."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        with self._sending:
            self._end("the connection was closed here")


def _unreachable(path: str, why: str) -> AtlasError:
    return AtlasError(
        "core.unreachable",
        f"the job engine does not answer on {path}: {why}",
        hint="is atlasd running? `atlasctl status` tells; ATLASD_JOBS names another socket",
    )
