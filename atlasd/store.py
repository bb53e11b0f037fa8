"""The daemon's own SQLite: opening, pragmas, numbered migrations, and one writer off the loop."""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from atlasd.errors import AtlasError

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], Any]
"""What the writer thread is given: it runs inside a transaction."""

MAX_BATCH = 256
"""Writes that one commit may carry: many waiting writers share one fsync."""


class _Job:
    """A piece of work and the future that hears of it."""

    __slots__ = ("future", "loop", "work")

    def __init__(
        self, work: Work, loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]"
    ) -> None:
        self.work = work
        self.loop = loop
        self.future = future

    def resolve(self, result: object, error: BaseException | None) -> None:
        try:
            self.loop.call_soon_threadsafe(self._resolve, result, error)
        except RuntimeError:
            pass  # the loop is closed; nobody waits any more

    def _resolve(self, result: object, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Store:
    """One database file, one thread that touches it; callers await what they hand in.

    Work of callers that wait at the same time shares one commit, and each has a savepoint of its
    own: one that raises undoes only itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def open(cls, path: Path, schemas: Mapping[str, Sequence[str]]) -> "Store":
        """Open or create the database and bring each component's tables up to date.

        `schemas` maps a component to its migrations in order: SQL scripts that are never edited
        once released. Raises `AtlasError` `store.unusable` when the file cannot be opened, is no
        database, or was written by a newer atlasd.
        """
        store = cls(path)
        try:
            fresh = not path.exists()
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise _unusable(path, str(error)) from error
        try:
            if fresh:
                os.chmod(path, 0o600)  # noqa: PTH101  one call, no further Path needed
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA busy_timeout = 5000")
            _migrate(connection, path, schemas)
        except AtlasError:
            connection.close()
            raise
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise _unusable(path, str(error)) from error
        store._connection = connection
        store._thread = threading.Thread(target=store._write, name="store", daemon=True)
        store._thread.start()
        return store

    async def run(self, work: Callable[[sqlite3.Connection], T], *, timeout: float = 30.0) -> T:
        """What `work(connection)` returns, once it is durable.

        Raises what `work` raised (its changes are undone), and `AtlasError` `store.unusable` when
        the disk refuses, or has not answered within `timeout` seconds.
        """
        if self._thread is None:
            raise _unusable(self.path, "it is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, loop, future))
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the result.
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise _unusable(self.path, f"no answer within {timeout:g} s") from None
        except sqlite3.Error as error:
            raise _unusable(self.path, str(error)) from error

    async def close(self) -> None:
        """Finish what was handed in, then close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    def _write(self) -> None:
        connection = self._connection
        assert connection is not None
        going = True
        while going:
            jobs: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) >= MAX_BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            going = job is not None
            if jobs:
                self._commit(connection, jobs)
        connection.close()

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        done: list[tuple[_Job, object, BaseException | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                connection.execute("SAVEPOINT job")
                try:
                    done.append((job, job.work(connection), None))
                except Exception as error:  # noqa: BLE001  it belongs to the caller, who gets it
                    connection.execute("ROLLBACK TO job")
                    done.append((job, None, error))
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
            self.commits += 1
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            done = [(job, None, error) for job in jobs]
        for job, result, failure in done:
            job.resolve(result, failure)


def _migrate(
    connection: sqlite3.Connection, path: Path, schemas: Mapping[str, Sequence[str]]
) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version"
        " (component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT"
    )
    have = dict(connection.execute("SELECT component, version FROM schema_version").fetchall())
    for component, scripts in schemas.items():
        version = have.get(component, 0)
        if version > len(scripts):
            raise _unusable(
                path,
                f"its {component} tables have version {version}, this atlasd knows {len(scripts)}",
                hint="run the newer atlasd again, or restore the database of the older one",
            )
        for number, script in enumerate(scripts[version:], start=version + 1):
            # A script and the note of it stand in one transaction: half a migration cannot be.
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script};\n"
                "INSERT INTO schema_version (component, version)"
                f" VALUES ('{component}', {number})"
                f" ON CONFLICT (component) DO UPDATE SET version = {number};\nCOMMIT;"
            )


def _unusable(path: Path, why: str, *, hint: str = "") -> AtlasError:
    return AtlasError(
        "store.unusable",
        f"cannot use the database {path}: {why}",
        hint=hint or "check the folder's owner, its file system's free space, and the disk",
    )
