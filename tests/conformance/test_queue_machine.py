"""Random operations on the queue stores that ship and on the one for tests."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from atlasd.clock import HandClock
from atlasd.contracts.queue import QueueStoreType
from atlasd.testing.context import PlainContext
from atlasd.testing.descriptors import load_module
from atlasd.testing.memory_queue import memory_store
from atlasd.testing.queue.bench import Bench
from atlasd.testing.queue.machine import QueueMachine
from atlasd_plugins import queue_postgres, queue_sqlite
from tests.postgres_server import PostgresServers, lacking

BOUNDED = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def bench_of(kind: QueueStoreType, folder: str) -> Bench:
    clock = HandClock()

    async def advance(milliseconds: int) -> None:
        clock.wind(milliseconds / 1000)

    return Bench(kind, {}, PlainContext(Path(folder, "state"), clock=clock), advance)


class MemoryMachine(QueueMachine):
    def bench(self) -> Bench:
        return bench_of(memory_store(), "unused")


class SqliteMachine(QueueMachine):
    def bench(self) -> Bench:
        self.folder = tempfile.TemporaryDirectory()
        return bench_of(load_module(queue_sqlite, QueueStoreType, "sqlite"), self.folder.name)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


class PostgresMachine(QueueMachine):
    servers: PostgresServers

    def bench(self) -> Bench:
        schema = self.servers.schema("current")
        self.folder = tempfile.TemporaryDirectory()
        kind = load_module(queue_postgres, QueueStoreType, "postgres")
        context = PlainContext(Path(self.folder.name, "state"))
        return Bench(kind, schema.settings, context, schema.advance)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestMemory: Any = MemoryMachine.TestCase
TestMemory.settings = BOUNDED
TestSqlite: Any = SqliteMachine.TestCase
TestSqlite.settings = BOUNDED


def begin(_case: object) -> None:
    if why := lacking("current"):
        raise unittest.SkipTest(why)
    PostgresMachine.servers = PostgresServers()


def end(_case: object) -> None:
    PostgresMachine.servers.close()


TestPostgres: Any = PostgresMachine.TestCase
TestPostgres.settings = settings(BOUNDED, max_examples=8)
TestPostgres.setUpClass = classmethod(begin)
TestPostgres.tearDownClass = classmethod(end)
