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

    __slots__ = ("answer", "done", "error", "heard")

    def __init__(self) -> None:
        self.done = False
        self.answer: dict[str, Any] = {}
        self.error: AtlasError | None = None
        self.heard: Callable[[], object] | None = None
        """Called once it is done, by whoever reads; set it first, then look whether it is."""

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
        self._state = threading.Condition()
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
        with self._state:
            if self._reading:
                if wait:
                    self._state.wait(wait)
                return
            self._reading = True
        try:
            self._read(0.0)
        finally:
            with self._state:
                self._reading = False
                self._state.notify_all()

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask something and wait for the answer. Raises the `AtlasError` that came in its place."""
        return self.wait(self.send(op, fields))

    def wait(self, pending: Pending, timeout: float | None = None) -> dict[str, Any]:
        """The answer, read by this thread or by another. Raises `TimeoutError` after `timeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        state = self._state
        while not self._is_done(pending):
            with state:
                if self._is_done(pending):
                    break
                if self._reading:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError
                    state.wait(left)
                    continue
                self._reading = True
            try:
                self._read(deadline)
            finally:
                with state:
                    self._reading = False
                    state.notify_all()
            if deadline is not None and not self._is_done(pending) and time.monotonic() >= deadline:
                raise TimeoutError
        return pending.result()

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
        pending.done = True
        if pending.heard is not None:
            pending.heard()

    def _end(self, why: str) -> AtlasError:
        error = self.closed = self.closed or _unreachable(self._path, why)
        waiting, self._pending = self._pending, {}
        for pending in waiting.values():
            pending.error = error
            pending.done = True
            if pending.heard is not None:
                pending.heard()
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
        with self._state:
            self._state.notify_all()


def _unreachable(path: str, why: str) -> AtlasError:
    return AtlasError(
        "core.unreachable",
        f"the job engine does not answer on {path}: {why}",
        hint="is atlasd running? `atlasctl status` tells; ATLASD_JOBS names another socket",
    )
