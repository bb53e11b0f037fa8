"""The control socket's client: turns rows of the table into calls, and refusals into `AtlasError`.

Blocking and small, since `atlasctl` pays for it at every start: it speaks just as much HTTP/1.1 as
atlasd's own server answers (`http.client` alone would take longer to import than a call takes).
Every call opens its own connection, so that one `Client` can be used from several threads.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from atlasd import __version__
from atlasd.control.wire import BY_NAME, HOST, JSON, VERSION_HEADER, Operation
from atlasd.errors import AtlasError

SYSTEM_RUN = "/run/atlasd/"
_MAX_HEAD = 64 * 1024
_MAX_LINE = 64 * 1024 * 1024
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")


class Client:
    """Asks the core behind one control socket."""

    def __init__(
        self,
        path: str,
        *,
        timeout: float = 30.0,
        start_hint: str = "",
        version_differs: Callable[[str], object] | None = None,
    ) -> None:
        """`timeout`: seconds to wait for each answer; `start_hint`: how to start a daemon here.

        `version_differs` is told the daemon's version once, when it isn't this client's.
        """
        self.path = path
        self.timeout = timeout
        self._start_hint = start_hint or (
            "start it with `systemctl start atlas-core`"
            if path.startswith(SYSTEM_RUN)
            else "start it with `atlasd run`"
        )
        self._version_differs = version_differs

    def call(self, name: str, /, *, timeout: float | None = None, **fields: object) -> Any:
        """The decoded JSON answer of an operation, by its name; `fields` make up its request.

        Fields that are None are left out. Raises the daemon's `AtlasError`; `core.unreachable` when
        nobody answers (within `timeout` seconds), `operation.denied` when the socket is closed to
        this user.
        """
        return json.loads(self._ask(name, fields, timeout))

    def text(self, name: str, /, *, timeout: float | None = None, **fields: object) -> str:
        """The answer of an operation as text; the same errors as `call`."""
        return self._ask(name, fields, timeout).decode()

    def stream(self, name: str, /, **fields: object) -> "LineStream":
        """The lines of a stream; the operation has been accepted when this returns.

        The same errors as `call`.
        """
        return LineStream(self._open(BY_NAME[name], fields, self.timeout))

    def alive(self) -> bool:
        """Whether anybody listens on the socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except BlockingIOError:
                return True  # the queue of its socket is full
            except OSError:
                return False
            return True

    def _ask(self, name: str, fields: dict[str, object], timeout: float | None) -> bytes:
        answer = self._open(BY_NAME[name], fields, timeout or self.timeout)
        try:
            return answer.rest()
        finally:
            answer.close()

    def _open(self, operation: Operation, fields: dict[str, object], timeout: float) -> "_Answer":
        answer = _Answer(self._connect(timeout), self.path, timeout)
        try:
            answer.send(_request(operation, fields))
            answer.read_head()
            version = answer.headers.get(VERSION_HEADER.lower(), "")
            if version and version != __version__ and self._version_differs is not None:
                self._version_differs(version)
                self._version_differs = None
            if answer.status >= 400:
                raise error_from(answer.status, answer.rest())
        except BaseException:
            answer.close()
            raise
        return answer

    def _connect(self, timeout: float) -> socket.socket:
        deadline = time.monotonic() + timeout
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                connection.connect(self.path)
            except BlockingIOError:
                # A unix socket whose queue is full refuses at once instead of waiting.
                connection.close()
                if time.monotonic() > deadline:
                    raise self._unreachable("is too busy to answer") from None
                time.sleep(0.02)
                continue
            except PermissionError:
                connection.close()
                raise AtlasError(
                    "operation.denied",
                    f"the control socket {self.path} is closed to user {os.geteuid()}",
                    hint="run it as root, or become a member of the group atlasd: "
                    "usermod -aG atlasd USER, then log in anew",
                ) from None
            except OSError as fault:
                connection.close()
                raise self._unreachable(
                    "is not there" if isinstance(fault, FileNotFoundError) else "is not served"
                ) from None
            return connection

    def _unreachable(self, why: str) -> AtlasError:
        return AtlasError(
            "core.unreachable",
            f"no daemon answers: the control socket {self.path} {why}",
            hint=self._start_hint,
            details={"socket": self.path},
        )


class LineStream:
    """The lines of a stream, decoded; iterate over it, or `read` with a limit of time."""

    def __init__(self, answer: "_Answer") -> None:
        self._answer = answer

    def read(self, timeout: float | None = None) -> dict[str, object] | None:
        """The next line, or None at the end of the stream.

        Raises `TimeoutError` after `timeout` seconds (then it can be called again), the stream's
        own `AtlasError` when it ends with one, and `core.unreachable` when it breaks off.
        """
        line = self.read_bytes(timeout)
        if line is None:
            return None
        body = json.loads(line)
        assert isinstance(body, dict)
        return body

    def read_bytes(self, timeout: float | None = None) -> bytes | None:
        """The next line as it came, its end included; otherwise as `read`."""
        line = self._answer.line(timeout)
        if line is None:
            self.close()
        elif line.startswith(b'{"error":'):
            self.close()
            raise error_from(500, line)
        return line

    def raw(self) -> Iterator[bytes]:
        """The lines as they came."""
        while (line := self.read_bytes()) is not None:
            yield line

    def __iter__(self) -> Iterator[dict[str, object]]:
        while (line := self.read()) is not None:
            yield line

    def close(self) -> None:
        """Hang up."""
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def error_from(status: int, body: bytes) -> AtlasError:
    """The `AtlasError` that an error answer carries."""
    try:
        error = json.loads(body)["error"]
        return AtlasError(
            error["code"], error["message"], hint=error["hint"], details=error["details"]
        )
    except (ValueError, KeyError, TypeError):
        # A code of another version, or no atlasd at all.
        text = body[:200].decode("utf-8", "replace").strip()
        return AtlasError("internal", f"the daemon answered {status}: {text}")


class _Answer:
    """One connection: what was asked on it, and the answer as far as it has been read."""

    def __init__(self, connection: socket.socket, path: str, timeout: float) -> None:
        self._connection = connection
        self._path = path
        self._timeout = timeout
        self._buffer = bytearray()  # as it came from the socket
        self._body = bytearray()  # freed of the chunks' frames
        self._chunked = False
        self._left: int | None = None  # bytes of the body, or of the present chunk, to come
        self._ended = False
        self._scanned = 0  # bytes of _body in which there is no end of line
        self.status = 0
        self.headers: dict[str, str] = {}

    def close(self) -> None:
        self._connection.close()

    def send(self, request: bytes) -> None:
        try:
            self._connection.sendall(request)
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            # It may have answered before it hung up: a refusal of a body that is too large.
            pass

    def read_head(self) -> None:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEAD or not self._fill_or_explain():
                raise self._broken_off()
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdecimal():
            raise self._broken_off()
        self.status = int(parts[1])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        if not self._chunked:
            length = self.headers.get("content-length", "")
            self._left = int(length) if length.isdecimal() else None
            self._ended = self._left == 0

    def rest(self) -> bytes:
        """The whole body."""
        while not self._ended:
            if not self._take() and not self._fill_or_explain():
                self._end_of_connection()
        body = bytes(self._body)
        self._body.clear()
        return body

    def line(self, timeout: float | None) -> bytes | None:
        """The next line of the body, or None at its end; `TimeoutError` leaves it readable."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := self._body.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._body)
            if self._ended:
                if not self._body:
                    return None
                end = len(self._body) - 1
                break
            if self._scanned > _MAX_LINE:
                raise self._broken_off()
            if self._take():
                continue
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0.0001)
            self._connection.settimeout(remaining)
            if not self._fill():
                self._end_of_connection()
        line = bytes(self._body[: end + 1])
        del self._body[: end + 1]
        self._scanned = 0
        return line

    def _take(self) -> bool:
        """Move what the buffer has of the body to it; whether there was anything to do."""
        if not self._chunked:
            if not self._buffer:
                return False
            count = len(self._buffer) if self._left is None else self._left
            self._body += self._buffer[:count]
            if self._left is not None:
                self._left -= len(self._buffer[:count])
                self._ended = self._left == 0
            self._buffer.clear()
            return True
        if self._left is None:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            try:
                self._left = int(bytes(self._buffer[:end]).split(b";")[0], 16)
            except ValueError:
                raise self._broken_off() from None
            del self._buffer[: end + 2]
            if self._left == 0:
                self._ended = True
                return True
        if not self._buffer:
            return False
        count = min(self._left, len(self._buffer))
        self._body += self._buffer[:count]
        del self._buffer[:count]
        self._left -= count
        if self._left == 0:
            # The frame's end: both bytes, or come back when they are there.
            if len(self._buffer) < 2:
                return False
            del self._buffer[:2]
            self._left = None
        return True

    def _fill(self) -> bool:
        """More bytes from the socket; False when it has ended."""
        try:
            received = self._connection.recv(262144)
        except ConnectionResetError:
            return False
        self._buffer += received
        return bool(received)

    def _fill_or_explain(self) -> bool:
        self._connection.settimeout(self._timeout)
        try:
            return self._fill()
        except TimeoutError:
            raise self._silent() from None

    def _end_of_connection(self) -> None:
        if self._chunked or self._left is not None:
            raise self._broken_off()
        self._ended = True

    def _silent(self) -> AtlasError:
        return AtlasError(
            "core.unreachable",
            f"core does not answer on {self._path} within {self._timeout:g} s",
            hint="see its log, or `systemctl status atlas-core`; services run on without it",
        )

    def _broken_off(self) -> AtlasError:
        return AtlasError(
            "core.unreachable",
            f"core hung up in the middle of an answer on {self._path}",
            hint="it was stopped or restarted; try again",
        )


def _request(operation: Operation, fields: dict[str, object]) -> bytes:
    given = {name: value for name, value in fields.items() if value is not None}
    path = operation.path
    for name in operation.fields_in_path:
        path = path.replace(f"{{{name}}}", _quote(str(given.pop(name))))
    head = [f"Host: {HOST}", "Connection: close", f"User-Agent: atlasctl/{__version__}"]
    body = b""
    if operation.method == "GET":
        pairs = [
            f"{name}={_quote(_plain(item))}"
            for name, value in given.items()
            for item in (value if isinstance(value, list | tuple) else (value,))
        ]
        if pairs:
            path = f"{path}?{'&'.join(pairs)}"
    else:
        body = json.dumps(given).encode() if given else b""
        head.append(f"Content-Length: {len(body)}")
        if body:
            head.append(f"Content-Type: {JSON}")
    return "\r\n".join([f"{operation.method} {path} HTTP/1.1", *head, "", ""]).encode() + body


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quote(text: str) -> str:
    if _PLAIN.issuperset(text):
        return text
    return "".join(
        chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
