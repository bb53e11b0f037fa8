"""Every queue store that is shipped, and the one for tests, keeps what a queue store promises."""

from typing import Any

import pytest

from atlasd.contracts.queue import QueueStoreType
from atlasd.testing.descriptors import load_module
from atlasd.testing.memory_queue import memory_store
from atlasd.testing.queue import Advance, QueueStoreSuite
from atlasd_plugins import queue_postgres, queue_sqlite
from tests.postgres_server import HandWoundSchema


class TestMemory(QueueStoreSuite):
    @pytest.fixture
    def store_type(self) -> QueueStoreType:
        return memory_store()


class TestSqlite(QueueStoreSuite):
    @pytest.fixture
    def store_type(self) -> QueueStoreType:
        return load_module(queue_sqlite, QueueStoreType, "sqlite")


class TestPostgres(QueueStoreSuite):
    """On each version that is installed."""

    @pytest.fixture
    def store_type(self) -> QueueStoreType:
        return load_module(queue_postgres, QueueStoreType, "postgres")

    @pytest.fixture
    def settings(self, postgres_schema: HandWoundSchema) -> dict[str, Any]:
        return postgres_schema.settings

    @pytest.fixture
    def advance(self, postgres_schema: HandWoundSchema) -> Advance:
        return postgres_schema.advance
