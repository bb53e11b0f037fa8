"""The queue of several hosts: a PostgreSQL database that each of them has an atlasd on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atlasd import hookimpl
from atlasd.contracts.context import PluginContext
from atlasd.contracts.queue import QueueStore, QueueStoreType, Rules
from atlasd_plugins.queue_postgres.settings import PostgresSettings

ATLASD_API = 1


@hookimpl
def register_queue_stores() -> list[QueueStoreType]:
    """The `postgres` store."""
    return [
        QueueStoreType(
            name="postgres",
            summary="a PostgreSQL database, for several hosts at once",
            open=open_store,
            settings=PostgresSettings,
            shared=True,
            requires=("psycopg",),
            extra="postgres",
        )
    ]


@asynccontextmanager
async def open_store(
    settings: PostgresSettings, context: PluginContext, rules: Rules
) -> AsyncIterator[QueueStore]:
    """The queue in the schema that the settings name, made if there is none.

    Raises `AtlasError` `job.store` when the database cannot be reached or used.
    """
    from atlasd_plugins.queue_postgres.access import access_of
    from atlasd_plugins.queue_postgres.store import PostgresQueue

    store = PostgresQueue(access_of(settings), context, rules)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
