"""`atlas-worker --http`: each job is a POST to a URL; the answer says what becomes of it."""

import contextlib
import http.client
import select
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from atlasd.errors import AtlasError
from atlasd.worker.context import Context
from atlasd.worker.errors import Bury, Discard, Outcome, Retry, TargetFailed
from atlasd.worker.foreign import RESULT_LIMIT, result_of, retry_after

SILENCE = 60.0
"""Seconds that a server may be silent, unless the job's own time-out ends it sooner."""
CONNECT = 10.0
"""Seconds that connecting may take."""
AGAIN = frozenset({408, 409, 423, 425, 429})
"""Statuses of a request that may well succeed later."""
GONE = 410
SAID = 300
"""Characters of an answer that are repeated in the error."""

Connection = http.client.HTTPConnection | http.client.HTTPSConnection


class Push:
    """Posts jobs; called by several threads, each of which keeps a connection of its own."""

    def __init__(self, url: str, *, result: str = "json", silence: float = SILENCE) -> None:
        """`result` is one of `RESULTS`. Raises `AtlasError` `request.invalid` for a bad URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _bad(url, "it is no URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _bad(url, "it begins neither with http:// nor with https://")
        if parts.username is not None:
            raise _bad(url, "it has credentials in it, which others can see")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise _bad(url, "it has characters that have to be percent-encoded")
        self._host, self._port = parts.hostname, port
        self._path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._result = result
        self._silence = silence
        self._mine = threading.local()

    def __call__(self, context: Context) -> Any:
        """The result. Raises what says what becomes of the job."""
        connection = self._connection()
        try:
            reused = connection.sock is not None
            if not reused:
                self._connect(connection)
            context.on_stop(lambda: _hang_up(connection))
            status, headers, body, whole = self._post(connection, context, reused=reused)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if context.stopped_by is not None:
                raise context.stopped_by from None
            failed = TargetFailed(f"{self._host} did not answer: {_words(error)}")
            failed.kind = type(error).__name__
            raise failed from None
        finally:
            context.on_stop(None)
        if context.stopped_by is not None:
            connection.close()
            raise context.stopped_by
        if not 200 <= status < 300:
            raise judged(status, headers.get("Retry-After", ""), body, time.time())
        if self._result == "json" and "json" not in headers.get("Content-Type", "json"):
            return None
        return result_of(body, self._result, self._host, whole=whole)

    def _connection(self) -> Connection:
        """This thread's connection; not connected when it is new or was closed meanwhile."""
        found: Connection | None = getattr(self._mine, "connection", None)
        if found is None:
            if self._tls is not None:
                found = http.client.HTTPSConnection(
                    self._host, self._port, timeout=CONNECT, context=self._tls
                )
            else:
                found = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT)
            self._mine.connection = found
        if found.sock is not None and _is_stale(found.sock):
            found.close()
        return found

    def _connect(self, connection: Connection) -> None:
        connection.connect()
        connection.sock.settimeout(self._silence)

    def _post(
        self, connection: Connection, context: Context, *, reused: bool
    ) -> tuple[int, http.client.HTTPMessage, bytes, bool]:
        body = context.payload.encode()
        try:
            return _sent(connection, self._path, body, headers(context))
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The server had closed an idle connection as the request came: it did not take it.
            connection.close()
            if not reused or context.stopped_by is not None:
                raise
        self._connect(connection)
        if context.stopped_by is not None:
            raise context.stopped_by
        return _sent(connection, self._path, body, headers(context))


def _hang_up(connection: Connection) -> None:
    """End a request that is under way, from another thread."""
    found = connection.sock
    if found is not None:
        with contextlib.suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)


def _sent(
    connection: Connection, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes, bool]:
    connection.request("POST", path, body=body, headers=headers)
    answer = connection.getresponse()
    found = answer.read(RESULT_LIMIT + 1)
    whole = len(found) <= RESULT_LIMIT
    if not whole or answer.will_close:
        connection.close()
    return answer.status, answer.headers, found, whole


def headers(context: Context) -> dict[str, str]:
    """What a server is told of a job beside its arguments."""
    planned = context.scheduled_for
    scheduled = (
        {}
        if planned is None
        else {
            "Atlasd-Job-Schedule": context.schedule,
            "Atlasd-Job-Scheduled-For": planned.isoformat(),
        }
    )
    return {
        **scheduled,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "atlas-worker",
        "Idempotency-Key": str(context.id),
        "Atlasd-Job-Id": str(context.id),
        "Atlasd-Job-Kind": context.kind,
        "Atlasd-Job-Queue": context.queue,
        "Atlasd-Job-Attempt": str(context.attempt),
        "Atlasd-Job-Max-Attempts": str(context.max_attempts),
        "Atlasd-Job-Fence": str(context.fence),
    }


def judged(status: int, asked: str, body: bytes, now: float) -> Outcome:
    """What a status outside 2xx says; `asked` is the Retry-After, `body` what came with it."""
    said = body[: 4 * SAID].decode(errors="replace").strip()[:SAID]
    message = f"the server answered {status}" + (f": {said}" if said else "")
    error: Outcome
    if status >= 500:
        error = TargetFailed(message, after=retry_after(asked, now))
    elif status in AGAIN:
        error = Retry(message, after=retry_after(asked, now))
    elif status == GONE:
        error = Discard(message)
    else:
        error = Bury(message)
    error.kind = f"HTTP {status}"
    return error


def _is_stale(connection: socket.socket) -> bool:
    """Whether an idle connection was closed at the other end, or says what nobody asked for."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it was silent for too long"
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or "nothing came"


def _bad(url: str, why: str) -> AtlasError:
    shown = url.rpartition("@")[2][:200]
    return AtlasError(
        "request.invalid",
        f"--http {shown!r}: {why}",
        hint="as in --http http://127.0.0.1:8080/jobs",
    )
