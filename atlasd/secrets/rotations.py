"""Rotations in the daemon's database."""

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, fields

from atlasd.secrets.rotation import Rotation
from atlasd.store import Store

SCHEMA: Sequence[str] = (
    """
    CREATE TABLE rotations (
        environment TEXT NOT NULL,
        backend TEXT NOT NULL,
        name TEXT NOT NULL,
        step TEXT NOT NULL,
        before TEXT,
        pending TEXT NOT NULL,
        previous TEXT NOT NULL,
        retire_at REAL,
        actor TEXT NOT NULL,
        error TEXT NOT NULL,
        failures INTEGER NOT NULL,
        next_try REAL NOT NULL,
        since REAL NOT NULL,
        PRIMARY KEY (environment, backend, name)
    ) STRICT
    """,
)

_COLUMNS = tuple(field.name for field in fields(Rotation))
_NAMES = ", ".join(_COLUMNS)
_MARKS = ", ".join("?" for _ in _COLUMNS)
# Nothing but the names of our own columns goes into these texts.
_SELECT = f"SELECT {_NAMES} FROM rotations"  # noqa: S608
_INSERT = f"INSERT OR REPLACE INTO rotations ({_NAMES}) VALUES ({_MARKS})"  # noqa: S608


class StoredRotations:
    """Where they outlive the daemon."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load(self) -> Sequence[Rotation]:
        """All of them."""
        return await self._store.run(_read)

    async def save(self, rotation: Rotation) -> None:
        """Keep one, durably."""
        await self._store.run(lambda connection: _write(connection, rotation))


def _read(connection: sqlite3.Connection) -> list[Rotation]:
    rows = connection.execute(_SELECT).fetchall()
    return [Rotation(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _write(connection: sqlite3.Connection, rotation: Rotation) -> None:
    connection.execute(_INSERT, astuple(rotation))
