"""The store's SQLite file: made in one step, opened with care, its faults in plain words."""

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atlasd.errors import AtlasError
from atlasd_plugins.secrets_fernet.guarded import signature, sync_folder, trusted_owners
from atlasd_plugins.secrets_fernet.schema import APPLICATION, SCHEMA, SCHEMA_VERSION

BUSY = 5.0
"""Seconds for which a locked store is waited for."""

Work = Callable[[sqlite3.Connection], Any]
Outcome = tuple[Any, Exception | None]


class NoStoreError(Exception):
    """There is no store yet: nothing was ever put."""


@dataclass(frozen=True)
class _Opened:
    connection: sqlite3.Connection
    identity: tuple[int, int]
    """Device and inode of the file that it has open."""
    lasting: bool
    """Whether it may be used again: one to a read-only disk would not notice its end."""


class Database:
    """The file, and the few connections to it that are open. May be used from any thread."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """Touches nothing; `warn` is told what was put right by the way."""
        self.path = path
        self._warn = warn
        self._idle: list[_Opened] = []
        self._lock = threading.Lock()
        self._closed = False
        self._sound: dict[str, object] = {}
        """The state in which the file, or also its rows, were found to be whole."""

    def exists(self) -> bool:
        """Whether there is a store. Raises `secret.unavailable` when its folder doesn't tell."""
        with self.in_plain_words():
            return self._identity() is not None

    def read(self, works: Sequence[Work]) -> list[Outcome]:
        """What each work returns or raises, all of them in one view of the store.

        That is `NoStoreError` where there is none.
        """
        if not self.exists():
            return [(None, NoStoreError())] * len(works)
        with self._lent() as connection:
            connection.execute("BEGIN")
            try:
                return [self._attempt(work, connection) for work in works]
            finally:
                _roll_back(connection)

    def write(self, works: Sequence[Work]) -> list[Outcome]:
        """What each work returns or raises, with one commit for all; each is done or undone.

        The store is made if there is none. When this returns, what was done is on the disk.
        """
        self.make()
        try:
            return self._write(works)
        except AtlasError as error:
            if len(works) == 1 or not _is_full(error.__cause__):
                return [(None, error)] * len(works)
        # One of them may be what the disk has no room for: the others needn't share its fate.
        return [self.write([work])[0] for work in works]

    def make(self) -> None:
        """Make the store, empty, if there is none."""
        if self.exists():
            return
        with self.in_plain_words():
            memory = sqlite3.connect(":memory:")
            try:
                memory.executescript(SCHEMA)
                image = memory.serialize()
            finally:
                memory.close()
            folder = self.path.parent
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self.path.with_name(f".{self.path.name}.{os.getpid()}.{id(self)}.new")
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    if os.geteuid() == 0:
                        os.fchown(descriptor, folder.stat().st_uid, -1)
                    file.write(image)
                    file.flush()
                    os.fsync(descriptor)
                # A link, not a rename: what is there is never overwritten.
                with contextlib.suppress(FileExistsError):
                    os.link(new, self.path)
            finally:
                new.unlink(missing_ok=True)
            sync_folder(folder)

    def scrub(self) -> None:
        """Leave nothing in the file or its log that isn't in a table any more.

        Raises `secret.unavailable` when somebody reads for so long that it cannot be done.
        """
        with self._lent() as connection:
            # Rows that moved between pages have left copies: only a rebuilt file has none.
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise AtlasError(
                    "secret.unavailable",
                    f"{self.path}: another program has been reading it for more than {BUSY:g} s, "
                    "and what was deleted still stands in its log",
                    hint="end that program, then do it again; what was done stays done",
                )

    def whole(self, connection: sqlite3.Connection, look: Callable[[], None] | None = None) -> None:
        """Raise `secret.corrupt` if the file is damaged anywhere, or `look` finds that a row is.

        What is not found may have been there: so an answer of no is worth a look. The verdict
        holds until the file changes.
        """
        state = (self._identity(), signature(self.path), signature(self._log))
        if self._sound.get("rows") == state or (look is None and self._sound.get("file") == state):
            return
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise self.damaged(str(found))
        if look is not None:
            look()
        self._sound["file" if look is None else "rows"] = state

    def close(self) -> None:
        """Close what is open; from now on nothing is kept open after its use."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for opened in idle:
            opened.connection.close()

    # --- connections

    @contextlib.contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        with self.in_plain_words():
            identity = self._identity()
            opened = None
            with self._lock:
                idle, self._idle = self._idle, []
            for each in idle:
                if opened is None and each.identity == identity:
                    opened = each
                elif each.identity == identity:
                    with self._lock:
                        self._idle.append(each)
                else:  # of a file that was replaced or removed
                    each.connection.close()
            opened = opened or self._open()
            healthy = False
            try:
                yield opened.connection
                healthy = self._identity() == opened.identity
                if not healthy:
                    raise self._gone()
            finally:
                with self._lock:
                    keep = healthy and opened.lasting and not self._closed
                    if keep:
                        self._idle.append(opened)
                if not keep:
                    opened.connection.close()

    def _open(self) -> _Opened:
        identity = self._check()
        readonly = bool(os.statvfs(self.path).f_flag & os.ST_RDONLY)
        # SQLite cannot make the files that go with a log; it needs none if there is no log.
        query = "mode=ro&immutable=1" if readonly and self._has_no_log() else "mode=rw"
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?{query}",
            uri=True,
            timeout=BUSY,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION:
                raise self.damaged("it is not a store of secrets")
            if version != SCHEMA_VERSION:
                raise AtlasError(
                    "secret.corrupt",
                    f"{self.path} has the form {version}, this atlasd knows {SCHEMA_VERSION}",
                    hint="run the atlasd that wrote it, or restore the store from a backup",
                )
            if not readonly:
                connection.execute("PRAGMA journal_mode = WAL")
            # In this order: a commit is on the disk before it is answered.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            connection.close()
            raise
        if self._identity() != identity:
            connection.close()
            raise self._gone()
        return _Opened(connection, identity, not readonly)

    def _check(self) -> tuple[int, int]:
        """Device and inode, if nobody else may use the file; looked at before it is opened.

        Never opened here: to close it again would take away the locks of every connection that
        this process has to it.
        """
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            raise self._gone() from None
        if not stat.S_ISREG(found.st_mode):
            raise self._denied("it is not a regular file", "put the file itself there")
        if found.st_uid not in trusted_owners(self.path.parent):
            raise self._denied(
                f"it belongs to user {found.st_uid}, neither root nor the daemon's user",
                f"see where it comes from, then: chown {os.geteuid()} {self.path}",
            )
        if found.st_mode & 0o022:
            mode = stat.S_IMODE(found.st_mode)
            raise self._denied(
                f"others than its owner can write it (mode {mode:04o})",
                f"see that it is as it was, then: chmod 0600 {self.path}",
            )
        if found.st_mode & 0o077:
            self.path.chmod(0o600)
            self._warn(f"{self.path} could be read by others: its mode is now 0600")
        if found.st_size == 0:
            raise self.damaged("it is empty")
        return (found.st_dev, found.st_ino)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (found.st_dev, found.st_ino)

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _has_no_log(self) -> bool:
        try:
            return self._log.stat().st_size == 0
        except FileNotFoundError:
            return True

    # --- transactions

    def _write(self, works: Sequence[Work]) -> list[Outcome]:
        with self._lent() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                outcomes = []
                for work in works:
                    connection.execute("SAVEPOINT work")
                    outcome = self._attempt(work, connection)
                    if outcome[1] is not None:
                        if not connection.in_transaction:
                            # A full or failing disk ends the whole of it.
                            raise outcome[1]
                        connection.execute("ROLLBACK TO work")
                    connection.execute("RELEASE work")
                    outcomes.append(outcome)
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
            return outcomes

    def _attempt(self, work: Work, connection: sqlite3.Connection) -> Outcome:
        try:
            with self.in_plain_words():
                return work(connection), None
        except Exception as error:  # noqa: BLE001  it belongs to whoever handed in the work
            return None, error

    # --- errors

    @contextlib.contextmanager
    def in_plain_words(self) -> Iterator[None]:
        """Turn what SQLite and the operating system raise into `AtlasError`s."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a mistake of ours
        except sqlite3.Error as error:
            raise self._fault(error) from error
        except UnicodeDecodeError as error:
            raise self.damaged("a text in it is not UTF-8") from error
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error

    def damaged(self, why: str) -> AtlasError:
        """The error for a file that is not what was written."""
        return AtlasError(
            "secret.corrupt",
            f"the secret store {self.path} is damaged: {why}",
            hint="nothing was changed; restore it from a backup (its keys stay as they are), or "
            "move it away to begin anew",
        )

    def _fault(self, error: sqlite3.Error) -> AtlasError:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return self._unavailable(f"another process has kept it locked for {BUSY:g} s")
        if primary == sqlite3.SQLITE_FULL:
            return self._unavailable("the disk is full")
        if primary in (
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_AUTH,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_NOMEM,
            sqlite3.SQLITE_INTERRUPT,
        ):
            return self._unavailable(str(error))
        return self.damaged(str(error))

    def _unavailable(self, why: str) -> AtlasError:
        return AtlasError(
            "secret.unavailable",
            f"the secret store {self.path} cannot be used: {why}",
            hint="check the disk's free space, and the owner and rights of the file and its folder",
        )

    def _gone(self) -> AtlasError:
        return self._unavailable("it was removed or replaced while it was in use")

    def _denied(self, why: str, hint: str) -> AtlasError:
        return AtlasError("secret.denied", f"{self.path} is refused: {why}", hint=hint)


def _is_full(cause: BaseException | None) -> bool:
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _roll_back(connection: sqlite3.Connection) -> None:
    # A full disk or a damaged page may have ended the transaction already.
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
