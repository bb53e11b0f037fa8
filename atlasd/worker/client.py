"""For producers: a client that enqueues, over one connection that is made when it is needed."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from atlasd.errors import AtlasError
from atlasd.folders import folders
from atlasd.worker.wire import Connection, Pending

SOCKET = "jobs.sock"
BATCH = 1000
"""Jobs of one request, when many are enqueued."""
AHEAD = 2
"""Requests that are under way at once then."""


class Enqueued(NamedTuple):
    """What became of a job."""

    id: int
    state: str
    outcome: str
    """created | existing | rejected | replaced | moved"""


def socket_path(root: str | None = None) -> str:
    """Where the job engine listens: `ATLASD_JOBS`, else in the run folder of this atlasd."""
    named = os.environ.get("ATLASD_JOBS")
    if named and root is None:
        return named
    return f"{folders(root=root).run}/{SOCKET}"


class Client:
    """A way to the job engine; may be shared by threads, and survives a fork and a restart."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._pid = 0

    def enqueue(self, kind: str, args: Mapping[str, Any] | None = None, **options: Any) -> Enqueued:
        """Enqueue one job; it is durable when this returns.

        `options` are those of `atlasd.jobs.newjob`: queue, delay, run_at, priority, unique, ….
        Raises `AtlasError`: `job.invalid`, `job.rejected`, `job.queue_full`, `core.unreachable`.
        """
        (found,) = self.enqueue_jobs([{"kind": kind, "args": args or {}, **options}])
        return found

    def enqueue_jobs(
        self, jobs: Sequence[Mapping[str, Any]], *, idempotency_key: str = ""
    ) -> list[Enqueued]:
        """Enqueue several, all or none. With a key, a repetition gives the first answer again."""
        body: dict[str, Any] = {"jobs": list(jobs)}
        if idempotency_key:
            body["key"] = idempotency_key
        return self._enqueued(self._call("enqueue", body, again=bool(idempotency_key)))

    def enqueue_many(
        self, kind: str, args: Iterable[Mapping[str, Any]], **options: Any
    ) -> list[Enqueued]:
        """Enqueue one job for each of `args`, a thousand at a time; quick for very many."""
        template = {"kind": kind, **options}
        found: list[Enqueued] = []
        sent: deque[tuple[Connection, Pending]] = deque()
        source = iter(args)
        while batch := list(islice(source, BATCH)):
            connection = self._connected()
            # The next batch is made while the engine works on the one before.
            sent.append((connection, connection.send("enqueue", {"job": template, "args": batch})))
            if len(sent) > AHEAD:
                found += self._heard(*sent.popleft())
        for connection, pending in sent:
            found += self._heard(connection, pending)
        return found

    def _heard(self, connection: Connection, pending: Pending) -> list[Enqueued]:
        try:
            return self._enqueued(connection.wait(pending))
        except AtlasError as error:
            if error.code == "core.unreachable":
                self._drop(connection)
            raise

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _enqueued(self, answer: dict[str, Any]) -> list[Enqueued]:
        found = [Enqueued._make(one) for one in answer["jobs"]]
        for one in found:
            if one.outcome == "rejected":
                raise AtlasError(
                    "job.rejected",
                    f"job {one.id} ({one.state}) has the unique key",
                    details={"id": one.id},
                )
        return found

    def _call(self, op: str, body: dict[str, Any], *, again: bool = False) -> dict[str, Any]:
        connection = self._connected()
        try:
            return connection.wait(connection.send(op, body))
        except AtlasError as error:
            if error.code != "core.unreachable":
                raise
            self._drop(connection)
            # Whether the engine had it before it went is not known: only what is idempotent is
            # asked twice.
            if not again:
                raise
        connection = self._connected()
        return connection.wait(connection.send(op, body))

    def _connected(self) -> Connection:
        with self._lock:
            if (
                self._connection is None
                or self._connection.closed is not None
                or self._pid != os.getpid()
            ):
                # After a fork the parent's connection is the parent's.
                self._connection = Connection(self._path or socket_path())
                self._pid = os.getpid()
            return self._connection

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None


_shared = Client()


def shared() -> Client:
    """The client that handlers' `enqueue` use."""
    return _shared


def share(client: Client) -> Client:
    """Have handlers' `enqueue` use another client; the one that they used before."""
    global _shared
    before, _shared = _shared, client
    return before
