"""The generations of a configuration that were in force, each with enough to have it back."""

import base64
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from atlasd.config.snapshot import EMPTY, FileText, Snapshot
from atlasd.contracts.review import Change
from atlasd.errors import AtlasError
from atlasd.store import Store

SCHEMA: Sequence[str] = (
    """
    CREATE TABLE generations (
        number INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        actor TEXT NOT NULL,
        environment TEXT NOT NULL,
        digest TEXT NOT NULL,
        state TEXT NOT NULL,
        detail TEXT NOT NULL,
        changes TEXT NOT NULL,
        files TEXT NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT
    """,
)
"""In the daemon's own database, which is nobody else's to read: the files' texts may hold what an
operator wrote in plain text."""

KEEP = 50
"""Generations that are kept, the one in force included."""
KEEP_BYTES = 32 * 2**20
"""Bytes that the texts of all generations together may have; the latest is kept whatever it has."""
MOST_CHANGES = 500
"""Changes of a generation that are kept."""

State = Literal["accepted", "partial"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One generation, as it was accepted."""

    number: int
    time: float
    """Wall time, seconds since the epoch."""
    actor: str
    """Who asked for it: `uid:0`, `signal:HUP`, `watch`, `start`."""
    environment: str
    digest: str
    """Of the files."""
    state: State = "accepted"
    """partial: something that had to take it over has failed."""
    detail: str = ""
    """What failed."""
    changes: tuple[Change, ...] = ()
    files: Snapshot = field(default=EMPTY, repr=False)


class History:
    """The generations in the store. All methods raise as `Store.run` does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def last(self) -> Generation | None:
        """The latest generation, or None before the first one."""
        found = await self._store.run(
            lambda connection: connection.execute(
                f"{_SELECT} ORDER BY number DESC LIMIT 1"
            ).fetchone()
        )
        return None if found is None else _generation(found)

    async def all(self) -> list[Generation]:
        """Every generation that is kept, the latest first, without the texts of files."""
        rows = await self._store.run(
            lambda connection: connection.execute(
                f"{_SELECT_LIGHT} ORDER BY number DESC"
            ).fetchall()
        )
        return [_generation(row) for row in rows]

    async def get(self, number: int) -> Generation:
        """One generation. Raises `config.unknown` for a number that is not kept."""
        row = await self._store.run(
            lambda connection: connection.execute(
                f"{_SELECT} WHERE number = ?", (number,)
            ).fetchone()
        )
        if row is None:
            raise AtlasError(
                "config.unknown",
                f"there is no generation {number}",
                hint="`atlasctl config history` lists those that are kept",
            )
        return _generation(row)

    async def add(self, generation: Generation) -> None:
        """Keep a generation, durably, and let go of what is beyond the bounds."""

        def work(connection: sqlite3.Connection) -> None:
            _insert(connection, generation)
            sizes = connection.execute(
                "SELECT number, bytes FROM generations ORDER BY number DESC"
            ).fetchall()
            for number in beyond(sizes, keep=KEEP, keep_bytes=KEEP_BYTES):
                connection.execute("DELETE FROM generations WHERE number = ?", (number,))

        await self._store.run(work)

    async def rewrite(self, number: int, files: Snapshot) -> None:
        """Have a generation's files be these, which mean the same."""
        texts = _files_to_text(files)
        await self._store.run(
            lambda connection: (
                connection.execute(
                    "UPDATE generations SET files = ?, digest = ? WHERE number = ?",
                    (texts, files.digest, number),
                ).rowcount
            )
        )

    async def mark(self, number: int, state: State, detail: str) -> None:
        """Note what became of a generation."""
        await self._store.run(
            lambda connection: (
                connection.execute(
                    "UPDATE generations SET state = ?, detail = ? WHERE number = ?",
                    (state, detail, number),
                ).rowcount
            )
        )


def beyond(sizes: Sequence[tuple[int, int]], *, keep: int, keep_bytes: int) -> list[int]:
    """Numbers of the generations to be dropped, of `(number, bytes)` with the latest first.

    The latest always stays.
    """
    total = 0
    for place, (_, size) in enumerate(sizes):
        total += size
        if place and (place >= keep or total > keep_bytes):
            return [number for number, _ in sizes[place:]]
    return []


_COLUMNS = "number, time, actor, environment, digest, state, detail, changes"
_SELECT = f"SELECT {_COLUMNS}, files FROM generations"  # noqa: S608  only our own words
_SELECT_LIGHT = f"SELECT {_COLUMNS}, '[]' FROM generations"  # noqa: S608  only our own words


def _insert(connection: sqlite3.Connection, generation: Generation) -> None:
    files = _files_to_text(generation.files)
    changes = json.dumps(
        [change_to_wire(change) for change in generation.changes[:MOST_CHANGES]], default=str
    )
    connection.execute(
        "INSERT OR REPLACE INTO generations"
        " (number, time, actor, environment, digest, state, detail, changes, files, bytes)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            generation.number,
            generation.time,
            generation.actor,
            generation.environment,
            generation.digest,
            generation.state,
            generation.detail,
            changes,
            files,
            len(files) + len(changes),
        ),
    )


def _files_to_text(files: Snapshot) -> str:
    return json.dumps(
        [
            {
                "path": one.path,
                "mode": one.mode,
                "content": base64.b64encode(one.content).decode(),
            }
            for one in files.files
        ]
    )


def change_to_wire(change: Change) -> dict[str, Any]:
    """A change as JSON-able material."""
    return {
        "key": change.key,
        "kind": change.kind,
        "old": change.old,
        "new": change.new,
        "effect": change.effect,
        "where": change.where,
    }


def _generation(row: Sequence[Any]) -> Generation:
    number, time, actor, environment, digest, state, detail, changes, files = row
    generation = Generation(
        number=number,
        time=time,
        actor=actor,
        environment=environment,
        digest=digest,
        state=state,
        detail=detail,
        changes=tuple(Change(**change) for change in json.loads(changes)),
    )
    texts = tuple(
        FileText(path=one["path"], content=base64.b64decode(one["content"]), mode=one["mode"])
        for one in json.loads(files)
    )
    return replace(generation, files=Snapshot(files=texts)) if texts else generation
