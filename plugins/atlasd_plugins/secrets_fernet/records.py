"""What stands in the store's tables: secrets, their versions, and what was sealed elsewhere.

Every row has a checksum of all its columns, so that a flipped bit is an error and never another
secret, version or time. It is no signature: what somebody changes on purpose is found by what is
encrypted.
"""

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from atlasd.contracts.secrets import CURRENT, PENDING, PREVIOUS, STAGES
from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet.envelope import RESTORE, Place, Record


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One secret, or what is remembered of one that was deleted for good: its row's columns."""

    environment: str
    name: str
    last_version: int = 0
    current: int | None = None
    previous: int | None = None
    pending: int | None = None
    created: float | None = None
    """None: it was deleted for good, or has never been."""
    changed: float | None = None
    deleted: float | None = None
    recoverable_until: float | None = None

    def at(self, stage: str) -> int | None:
        """The number of the version at a stage; None also for a stage that there is not."""
        return {CURRENT: self.current, PREVIOUS: self.previous, PENDING: self.pending}.get(stage)

    def stages_of(self, number: int) -> tuple[str, ...]:
        """The stages that a version has."""
        return tuple(stage for stage in STAGES if self.at(stage) == number)

    def moved(self, stage: str, number: int) -> "Secret":
        """The secret with a stage moved to a version.

        What was current becomes previous, and what becomes current is not pending any longer.
        """
        if self.at(stage) == number:
            return self
        if stage == PREVIOUS:
            return replace(self, previous=number)
        if stage == PENDING:
            return replace(self, pending=number)
        return replace(
            self,
            current=number,
            previous=self.previous if self.current is None else self.current,
            pending=None if self.pending == number else self.pending,
        )


class Records:
    """The rows of one environment, over a connection that has a transaction open."""

    def __init__(self, connection: sqlite3.Connection, environment: str) -> None:
        self._sql = connection
        self._environment = environment

    def secret(self, name: str) -> Secret | None:
        """A secret, also one that is deleted; None if there never was one of this name."""
        row = self._sql.execute(
            "SELECT * FROM secret WHERE environment = ? AND name = ?",
            (self._environment, name),
        ).fetchone()
        if row is None:
            return None
        found = _secret(row)
        if (found.environment, found.name) != (self._environment, name):
            raise _damaged(f"secret {name!r}", "its row is another's")
        return found

    def secrets(self, prefix: str) -> Iterator[tuple[Secret, int]]:
        """Secrets whose names start so, by name, each with the number of its versions."""
        for row in self._sql.execute(
            "SELECT s.*, (SELECT count(*) FROM version AS v"
            " WHERE v.environment = s.environment AND v.name = s.name)"
            " FROM secret AS s WHERE environment = ? AND name >= ? ORDER BY name",
            (self._environment, prefix),
        ):
            found = _secret(row[:-1])
            if not found.name.startswith(prefix):
                return
            if found.created is not None:
                yield found, row[-1]

    def count(self, name: str) -> int:
        """How many versions a secret has."""
        row = self._sql.execute(
            "SELECT count(*) FROM version WHERE environment = ? AND name = ?",
            (self._environment, name),
        ).fetchone()
        return int(row[0])

    def save(self, secret: Secret) -> None:
        """Write a secret's row."""
        values = (
            secret.environment,
            secret.name,
            secret.last_version,
            secret.current,
            secret.previous,
            secret.pending,
            secret.created,
            secret.changed,
            secret.deleted,
            secret.recoverable_until,
        )
        self._sql.execute(
            "INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, _checksum("secret", values)),
        )

    def version(self, name: str, number: int) -> Record | None:
        """One version."""
        row = self._sql.execute(
            "SELECT * FROM version WHERE environment = ? AND name = ? AND number = ?",
            (self._environment, name, number),
        ).fetchone()
        if row is None:
            return None
        found = _record(row)
        if found.place != Place(environment=self._environment, name=name, number=number):
            raise _damaged(f"secret {name!r}, version {number}", "its row is another's")
        return found

    def versions(self, name: str) -> list[Record]:
        """All versions of a secret, the newest first."""
        rows = self._sql.execute(
            "SELECT * FROM version WHERE environment = ? AND name = ? ORDER BY number DESC",
            (self._environment, name),
        )
        return [_record(row) for row in rows]

    def add(self, record: Record) -> None:
        """Write a new version."""
        values = _values(record)
        self._sql.execute(
            "INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, _checksum("version", values)),
        )

    def trim(self, secret: Secret, keep: int) -> None:
        """Drop the oldest versions beyond `keep`, never one that has a stage."""
        numbers = [
            number
            for (number,) in self._sql.execute(
                "SELECT number FROM version WHERE environment = ? AND name = ? ORDER BY number",
                (secret.environment, secret.name),
            )
        ]
        surplus = len(numbers) - keep
        gone = [number for number in numbers if not secret.stages_of(number)][: max(surplus, 0)]
        self._sql.executemany(
            "DELETE FROM version WHERE environment = ? AND name = ? AND number = ?",
            [(secret.environment, secret.name, number) for number in gone],
        )

    def forget(self, secret: Secret) -> None:
        """Delete a secret for good: all versions; only its last number is remembered."""
        self._sql.execute(
            "DELETE FROM version WHERE environment = ? AND name = ?",
            (secret.environment, secret.name),
        )
        self.save(
            Secret(
                environment=secret.environment,
                name=secret.name,
                last_version=secret.last_version,
            )
        )

    def note_sealed(self, binding: str, key_id: str) -> None:
        """Note with which key a value was sealed for a place in the configuration."""
        values = (self._environment, binding, key_id)
        self._sql.execute(
            "INSERT OR REPLACE INTO sealed VALUES (?, ?, ?, ?)",
            (*values, _checksum("sealed", values)),
        )


# --- rows of every environment


def overdue(connection: sqlite3.Connection, now: float) -> list[Secret]:
    """Deleted secrets whose time for a recovery is over."""
    rows = connection.execute("SELECT * FROM secret WHERE recoverable_until <= ?", (now,))
    return [_secret(row) for row in rows]


def has_versions(connection: sqlite3.Connection) -> bool:
    """Whether anything is stored at all."""
    return connection.execute("SELECT 1 FROM version LIMIT 1").fetchone() is not None


def has_versions_under(connection: sqlite3.Connection, key_ids: Collection[str]) -> bool:
    """Whether anything is stored under one of these keys."""
    return any(
        connection.execute(
            "SELECT 1 FROM version WHERE key_fingerprint = ? LIMIT 1", (key_id,)
        ).fetchone()
        for key_id in key_ids
    )


@dataclass(kw_only=True)
class Need:
    """What still needs one key."""

    records: int = 0
    sealed: list[str] = field(default_factory=list)
    """Places in configuration files whose values were sealed with it."""


def needed_keys(connection: sqlite3.Connection) -> dict[str, Need]:
    """What needs each key, by its id.

    Every row is looked at, rather than an index, and its checksum too: keys are taken out of the
    ring by this answer. Raises `secret.corrupt`.
    """
    found: dict[str, Need] = {}
    for row in connection.execute("SELECT * FROM version NOT INDEXED"):
        found.setdefault(_record(row).key_fingerprint, Need()).records += 1
    for row in connection.execute("SELECT * FROM sealed NOT INDEXED ORDER BY binding"):
        _verify("sealed", row, f"the note of a sealed value ({row[1]!r})")
        environment, binding, key_id, _ = row
        found.setdefault(key_id, Need()).sealed.append(f"{binding} ({environment})")
    return found


def count_not_under(connection: sqlite3.Connection, key_id: str) -> int:
    """How many versions are stored under other keys than this one."""
    row = connection.execute(
        "SELECT count(*) FROM version WHERE key_fingerprint != ?", (key_id,)
    ).fetchone()
    return int(row[0])


def page_not_under(
    connection: sqlite3.Connection, key_id: str, *, after: int, most: int
) -> list[tuple[int, Record | AtlasError]]:
    """The next versions under other keys: each with its row id, or with what is wrong with it."""
    rows: Sequence[tuple[object, ...]] = connection.execute(
        "SELECT rowid, * FROM version NOT INDEXED"
        " WHERE rowid > ? AND key_fingerprint != ? ORDER BY rowid LIMIT ?",
        (after, key_id, most),
    ).fetchall()
    page: list[tuple[int, Record | AtlasError]] = []
    for number, *row in rows:
        assert isinstance(number, int)
        try:
            page.append((number, _record(tuple(row))))
        except AtlasError as error:
            page.append((number, error))
    return page


def rewrap(connection: sqlite3.Connection, changed: Sequence[tuple[int, Record]]) -> None:
    """Write the new wrapped data keys of some versions, by their row ids."""
    connection.executemany(
        "UPDATE version SET key_fingerprint = ?, wrapped_key = ?, checksum = ? WHERE rowid = ?",
        [
            (
                record.key_fingerprint,
                record.wrapped_key,
                _checksum("version", _values(record)),
                number,
            )
            for number, record in changed
        ],
    )


def look_at_all(connection: sqlite3.Connection) -> None:
    """Verify every secret's row, and that each stage is on a version. Raises `secret.corrupt`."""
    there = set(connection.execute("SELECT environment, name, number FROM version NOT INDEXED"))
    for row in connection.execute("SELECT * FROM secret NOT INDEXED"):
        secret = _secret(row)
        for stage in STAGES:
            number = secret.at(stage)
            if number is not None and (secret.environment, secret.name, number) not in there:
                raise _damaged(f"secret {secret.name!r}", f"its {stage} version is missing")
    needed_keys(connection)


# --- rows


def _secret(row: tuple[object, ...]) -> Secret:
    _verify("secret", row, f"secret {row[1]!r}")
    names = (column.name for column in fields(Secret))
    return Secret(**dict(zip(names, row[:-1], strict=True)))  # type: ignore[arg-type]


def _record(row: tuple[object, ...]) -> Record:
    _verify("version", row, f"secret {row[1]!r}, version {row[2]}, environment {row[0]!r}")
    environment, name, number, key_id, wrapped, token, created, by, _ = row
    return Record(
        place=Place(environment=environment, name=name, number=number),  # type: ignore[arg-type]
        key_fingerprint=key_id,  # type: ignore[arg-type]
        wrapped_key=wrapped,  # type: ignore[arg-type]
        token=token,  # type: ignore[arg-type]
        created=created,  # type: ignore[arg-type]
        created_by=by,  # type: ignore[arg-type]
    )


def _values(record: Record) -> tuple[object, ...]:
    place = record.place
    return (
        place.environment,
        place.name,
        place.number,
        record.key_fingerprint,
        record.wrapped_key,
        record.token,
        record.created,
        record.created_by,
    )


def _verify(table: str, row: tuple[object, ...], what: str) -> None:
    if row[-1] != _checksum(table, row[:-1]):
        raise _damaged(what, "its row is not what was written")


def _checksum(table: str, values: Sequence[object]) -> bytes:
    """Over all values and their types: damage can give a column any type."""
    # ascii(): the same text for the same values in every version of Python.
    text = ascii(tuple(values)).encode()
    return hashlib.blake2b(text, digest_size=16, person=table.encode()).digest()


def _damaged(what: str, why: str) -> AtlasError:
    return AtlasError("secret.corrupt", f"{what}: the store is damaged: {why}", hint=RESTORE)
