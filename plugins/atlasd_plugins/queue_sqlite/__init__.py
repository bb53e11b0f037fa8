"""The default queue: a SQLite file of this host, with nothing to set up."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.queue import QueueStore, QueueStoreType, Rules
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd_plugins.queue_sqlite import sql
from atlasd_plugins.queue_sqlite.store import SqliteQueue
from atlasd_plugins.queue_sqlite.trouble import trouble_of

ATLASD_API = 1


@hookimpl
def register_queue_stores() -> list[QueueStoreType]:
    """The `sqlite` store."""
    return [
        QueueStoreType(
            name="sqlite", summary="a SQLite file of this host; survives power loss",
            open=open_store,
        )
    ]  # fmt: skip


@asynccontextmanager
async def open_store(
    settings: NoSettings, context: PluginContext, rules: Rules
) -> AsyncIterator[QueueStore]:
    """The queue below the plugin's state folder; see `QueueStore`."""
    del settings
    path = context.state_dir / "queue.db"
    connection = connect(path)
    try:
        store = SqliteQueue(path, connection, context, rules)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise _trouble(path, error) from error
        raise
    try:
        yield store
    finally:
        await store.close()


def connect(path: Path) -> sqlite3.Connection:
    """The database, made if there is none. Raises `AtlasError` `job.store`."""
    try:
        fresh = not path.exists()
        connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        try:
            if fresh:
                path.chmod(0o600)
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            # Less than FULL loses acknowledged jobs at a power cut.
            connection.execute("PRAGMA synchronous = FULL")
            # Rarer than by default: a checkpoint holds up the commit that it falls on.
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA cache_size = -65536")
            connection.execute("PRAGMA busy_timeout = 5000")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > sql.VERSION:
                raise AtlasError(
                    "job.store",
                    f"the queue {path} has version {version}, this atlasd knows {sql.VERSION}",
                    hint="run the newer atlasd again, or restore the queue of the older one",
                )
            if version == 1:
                raise AtlasError(
                    "job.store",
                    f"the queue {path} was made by an atlasd that was never released",
                    hint="finish its jobs with that one, then move the file away",
                )
            for number, step in sql.STEPS:
                if version < number:
                    connection.executescript(
                        f"BEGIN IMMEDIATE;\n{step};\nPRAGMA user_version = {number};\nCOMMIT;"
                    )
        except BaseException:
            with closing(connection):
                raise
    except (sqlite3.Error, OSError) as error:
        raise _trouble(path, error) from error
    return connection


def _trouble(path: Path, error: Exception) -> AtlasError:
    return trouble_of(path, error) or AtlasError(
        "job.store",
        f"the queue {path} cannot be used: {error}",
        hint="was the file made by something else? move it away, or restore a backup",
    )
