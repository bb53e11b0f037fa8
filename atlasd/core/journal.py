"""The journal: what happened and why, numbered, in memory at once and in the store soon after."""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from atlasd.errors import AtlasError
from atlasd.events import Event, from_wire, to_wire
from atlasd.store import Store

SCHEMA: Sequence[str] = (
    """
    CREATE TABLE journal (
        seq INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        kind TEXT NOT NULL,
        service TEXT,
        instance INTEGER,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX journal_service ON journal (service, seq);
    CREATE TABLE cursor (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        identity TEXT NOT NULL,
        seq INTEGER NOT NULL
    ) STRICT
    """,
)

RECENT = 2000
"""Facts kept in memory, so that a reader who follows rarely needs the disk."""
KEEP_ALL = 50_000
"""Facts kept in the store, all services together."""
KEEP_SERVICE = 2_000
"""Facts kept in the store of any one service, so that one that crashes leaves the others room."""
FLUSH_AFTER = 0.5
"""Seconds that a fact may wait for others to share its commit with."""
PRUNE_EVERY = 500
"""Facts written between two prunings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """How far the events of one services process have been journalled."""

    identity: str
    seq: int


class Journal:
    """Keeps facts. `record` is what the bus calls; nothing in it waits for the disk."""

    def __init__(
        self, store: Store, *, next_seq: int, read: Read | None, report: Callable[[str], None]
    ) -> None:
        self.next_seq = next_seq
        """Number that the first fact of this core gets."""
        self.read = read
        """Where the events of the services role are to be resumed; set it as they are read."""
        self.failing = ""
        """Why the store refused the last batch; empty when it took it."""
        self.failures = 0
        """Times the store refused a batch; the facts stay in memory and are tried again."""
        self._store = store
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._pending: list[Event] = []
        self._since_pruning = PRUNE_EVERY
        self._wake = asyncio.Event()
        self._report = report

    @classmethod
    async def load(cls, store: Store, *, report: Callable[[str], None]) -> "Journal":
        """The journal of an earlier core, to be continued. Raises as `Store.run` does."""

        def work(connection: sqlite3.Connection) -> tuple[int, Read | None]:
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM journal").fetchone()
            row = connection.execute("SELECT identity, seq FROM cursor").fetchone()
            return last + 1, Read(identity=row[0], seq=row[1]) if row else None

        next_seq, read = await store.run(work)
        return cls(store, next_seq=next_seq, read=read, report=report)

    def record(self, event: Event) -> None:
        """Keep a numbered fact: to be read at once, durable within a second."""
        self._recent.append(event)
        if len(self._pending) >= KEEP_ALL:
            del self._pending[: KEEP_ALL // 10]  # the disk has refused for long; memory is finite
        self._pending.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Write what was recorded, in batches; when cancelled, once more what is left."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(FLUSH_AFTER)
                self._wake.clear()
                try:
                    await self.flush()
                except AtlasError as error:
                    self.failures += 1
                    self.failing = error.message
                    self._report(f"the journal waits: {error.message}")
                    self._wake.set()
                    await asyncio.sleep(10.0)
        finally:
            try:
                await asyncio.shield(self.flush())
            except AtlasError as error:
                self._report(f"the journal's last facts are lost: {error.message}")

    async def flush(self) -> None:
        """Write what is pending now. Raises as `Store.run` does, and keeps it then."""
        batch, read = list(self._pending), self.read
        if not batch:
            return
        self._since_pruning += len(batch)
        prune = self._since_pruning >= PRUNE_EVERY
        await self._store.run(lambda connection: _write(connection, batch, read, prune=prune))
        self.failing = ""
        written = batch[-1].seq
        self._pending = [event for event in self._pending if event.seq > written]
        if prune:
            self._since_pruning = 0

    async def events(
        self,
        *,
        since: int | None = None,
        limit: int | None = None,
        service: str | None = None,
        kinds: Iterable[str] | None = None,
    ) -> list[Event]:
        """Past facts, oldest first: with this `seq` or later, at most the last `limit` of them."""
        wanted = None if kinds is None else frozenset(kinds)
        recent = [
            event
            for event in self._recent
            if (since is None or event.seq >= since)
            and (service is None or getattr(event, "service", None) == service)
            and (wanted is None or event.kind in wanted)
        ]
        oldest = self._recent[0].seq if self._recent else self.next_seq
        enough = (since is not None and since >= oldest) or (
            limit is not None and len(recent) >= limit
        )
        if not enough:
            missing = None if limit is None else limit - len(recent)
            older = await self._store.run(
                lambda connection: _select(
                    connection, since or 0, oldest, missing, service=service, kinds=wanted
                )
            )
            recent = older + recent
        if limit is not None:
            recent = recent[len(recent) - limit :] if limit < len(recent) else recent
        return recent


def _write(
    connection: sqlite3.Connection, batch: Sequence[Event], read: Read | None, *, prune: bool
) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO journal (seq, time, kind, service, instance, body)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                event.seq,
                event.time,
                event.kind,
                getattr(event, "service", None) or None,
                getattr(event, "instance", None),
                json.dumps(to_wire(event), separators=(",", ":"), default=str),
            )
            for event in batch
        ],
    )
    if read is not None:
        connection.execute(
            "INSERT INTO cursor (id, identity, seq) VALUES (1, ?, ?) ON CONFLICT (id)"
            " DO UPDATE SET identity = excluded.identity, seq = excluded.seq",
            (read.identity, read.seq),
        )
    if prune:
        _prune(connection, KEEP_ALL, KEEP_SERVICE)


def _prune(connection: sqlite3.Connection, keep_all: int, keep_service: int) -> None:
    crowded = connection.execute(
        "SELECT service FROM journal WHERE service IS NOT NULL"
        " GROUP BY service HAVING count(*) > ?",
        (keep_service,),
    ).fetchall()
    for (service,) in crowded:
        connection.execute(
            "DELETE FROM journal WHERE service = ? AND seq <= (SELECT seq FROM journal"
            " WHERE service = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (service, service, keep_service),
        )
    connection.execute(
        "DELETE FROM journal WHERE seq <="
        " (SELECT seq FROM journal ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (keep_all,),
    )


def _select(
    connection: sqlite3.Connection,
    since: int,
    before: int,
    limit: int | None,
    *,
    service: str | None,
    kinds: frozenset[str] | None,
) -> list[Event]:
    where, values = ["seq >= ?", "seq < ?"], [since, before]  # type: tuple[list[str], list[object]]
    if service is not None:
        where.append("service = ?")
        values.append(service)
    if kinds is not None:
        where.append(f"kind IN ({', '.join('?' * len(kinds))})")
        values.extend(sorted(kinds))
    values.append(-1 if limit is None else limit)
    rows = connection.execute(
        f"SELECT body FROM journal WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",  # noqa: S608  only our own words
        values,
    ).fetchall()
    found: list[Event] = []
    for (body,) in reversed(rows):
        loaded: Mapping[str, object] = json.loads(body)
        event = from_wire(loaded)
        if event is not None:
            found.append(event)
    return found
