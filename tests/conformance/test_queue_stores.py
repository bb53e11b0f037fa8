"""Every queue store that is shipped, and the one for tests, keeps what a queue store promises."""

import pytest

from atlasd.contracts.queue import QueueStoreType
from atlasd.testing.descriptors import load_module
from atlasd.testing.memory_queue import memory_store
from atlasd.testing.queue import QueueStoreSuite
from atlasd_plugins import queue_sqlite


class TestMemory(QueueStoreSuite):
    @pytest.fixture
    def store_type(self) -> QueueStoreType:
        return memory_store()


class TestSqlite(QueueStoreSuite):
    @pytest.fixture
    def store_type(self) -> QueueStoreType:
        return load_module(queue_sqlite, QueueStoreType, "sqlite")
