"""One HTTP/1.1 GET as a probe: a state machine over a non-blocking socket, plain text only."""

import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from atlasd import __version__
from atlasd.services.dial import Endpoint, endpoint_of
from atlasd.services.loop import READ, WRITE, Loop
from atlasd.services.probing import Result
from atlasd.states import Health

HEAD_LIMIT = 16384
"""Bytes within which the status line and the headers must end."""
BODY_LIMIT = 65536
"""Bytes of the body that are read, out of politeness: closing early looks like an error there."""
READ_SIZE = 16384


class HttpTarget(NamedTuple):
    """What a URL of a probe says."""

    endpoint: Endpoint
    host: str
    """For the Host header."""
    path: str
    """Path and query as they go on the wire."""


def parse_url(url: str) -> HttpTarget:
    """`http://host[:port]/path` or `http+unix://%2Frun%2Fapp.sock/path`.

    Raises `ValueError` with what is wrong and what would be right.
    """
    scheme, colon, rest = url.partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in ("http", "https", "http+unix"):
        raise ValueError(f"{url!r}: give a URL, as http://127.0.0.1:8080/healthz")
    if scheme == "https":
        raise ValueError(
            f"{url!r}: probes speak plain HTTP only; probe https with exec (as curl -fsS URL), "
            "or watch it from outside with a check"
        )
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r}: percent-encode spaces and what is not ASCII")
    rest = rest.partition("#")[0]
    cut = min((rest.index(c) for c in "/?" if c in rest), default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    if scheme == "http+unix":
        if not authority and path.count(":"):  # http+unix:///run/app.sock:/path
            authority, _, path = path.partition(":")
        elif not authority:
            authority, path = path, "/"
        place = _unquote(authority)
        if not place.startswith("/"):
            raise ValueError(f"{url!r}: write the socket's path as http+unix://%2Frun%2Fapp.sock/")
        return HttpTarget(Endpoint(path=place), "localhost", _path(path))
    if "@" in authority:
        raise ValueError(f"{url!r}: credentials don't belong into a probe's URL")
    if authority.endswith("]") or ":" not in authority:
        host, port = authority, "80"
    else:
        host, _, port = authority.rpartition(":")
    if not host:
        raise ValueError(f"{url!r}: the host is missing")
    return HttpTarget(endpoint_of(url, host, port), authority, _path(path))


def _path(path: str) -> str:
    return path if path.startswith("/") else "/" + path


def _unquote(text: str) -> str:
    head, *rest = text.split("%")
    try:
        parts = [bytes.fromhex(p[:2]) + p[2:].encode() for p in rest]
    except ValueError as error:
        raise ValueError(f"{text!r}: a percent sign must be followed by two hex digits") from error
    return (head.encode() + b"".join(parts)).decode("utf-8", "surrogateescape")


class Head(NamedTuple):
    """The part of an answer that a probe looks at."""

    status: int
    length: int | None
    """Content-Length, where one is given and is a number."""
    end: int
    """Where the body begins."""


def parse_head(data: bytes | bytearray) -> Head | None:
    """The head of an answer; None while more of it must come.

    Raises `ValueError` when these bytes cannot be the beginning of an HTTP/1 answer.
    """
    if not (data[:5] == b"HTTP/"[: len(data)]):
        raise ValueError("the answer is not HTTP")
    end = data.find(b"\r\n\r\n")
    width = 4
    if end < 0:
        end, width = data.find(b"\n\n"), 2
    if end < 0:
        if len(data) > HEAD_LIMIT:
            raise ValueError(f"the head of the answer is longer than {HEAD_LIMIT} bytes")
        return None
    first, *lines = bytes(data[:end]).split(b"\n")
    words = first.split()
    if len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
        raise ValueError("the answer has no status")
    status = int(words[1])
    length = 0 if status in (204, 304) else None
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            length = int(value.strip()[:18])
    return Head(status, length, end + width)


class Exchange:
    """One request on a connected socket, which it takes over and closes."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        target: HttpTarget,
        statuses: Sequence[tuple[int, int]],
        done: Callable[[Result], object],
    ) -> None:
        self._loop = loop
        self._socket: socket.socket | None = sock
        self._statuses = statuses
        self._done = done
        self._request = (
            f"GET {target.path} HTTP/1.1\r\nHost: {target.host}\r\n"
            f"User-Agent: atlasd-probe/{__version__}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode()
        self._data = bytearray()
        self._body = 0
        self._head: Head | None = None

    def start(self) -> None:
        """Send the request as far as the socket takes it."""
        self._turn(0)

    def cancel(self) -> None:
        """Close the connection; `done` is not called."""
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def verdict(self) -> Result | None:
        """What the head of the answer says; None as long as it has not come whole."""
        if self._head is None:
            return None
        status = self._head.status
        if any(low <= status <= high for low, high in self._statuses):
            return Result(health=Health.PASS, detail=f"status {status}")
        wanted = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in self._statuses)
        return Result(health=Health.FAIL, detail=f"status {status}, wanted {wanted}")

    def _turn(self, _mask: int) -> None:
        if self._socket is None:
            return
        try:
            if self._request:
                sent = self._socket.send(self._request)
                self._request = self._request[sent:]
            events = WRITE if self._request else READ
            self._loop.watch(self._socket.fileno(), self._turn, events)
            if not self._request and self._received(self._socket.recv(READ_SIZE)):
                self._end(self.verdict())
        except BlockingIOError:
            self._loop.watch(self._socket.fileno(), self._turn, WRITE if self._request else READ)
        except ValueError as error:
            self._end(Result(health=Health.FAIL, detail=str(error)))
        except OSError as error:
            # A server that has answered may reset the connection rather than close it.
            why = (error.strerror or str(error)).lower()
            self._end(self.verdict() or Result(health=Health.FAIL, detail=why))

    def _received(self, data: bytes) -> bool:
        if self._head is None:
            self._data += data
            while (head := parse_head(self._data)) is not None:
                if head.status >= 200:
                    self._head = head
                    break
                del self._data[: head.end]  # 100 Continue, 103 Early Hints: the answer follows
            if self._head is None:
                if not data:
                    raise ValueError("the connection was closed before the answer was complete")
                return False
            self._body = len(self._data) - self._head.end
        else:
            self._body += len(data)
        length = BODY_LIMIT if self._head.length is None else self._head.length
        return not data or self._body >= min(length, BODY_LIMIT)

    def _end(self, result: Result | None) -> None:
        self.cancel()
        self._done(result or Result(health=Health.FAIL, detail="no answer"))
