"""The job engine behind its socket, in a thread of this process, over a real SQLite file."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from atlasd.contracts.queue import Filter, JobState, QueueStore, Row
from atlasd.contracts.settings import NoSettings
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.framed import FramedJobs
from atlasd.jobs.rules import QueueRules
from atlasd.testing.context import PlainContext
from atlasd.worker.wire import Connection
from atlasd_plugins.queue_sqlite import open_store

T = TypeVar("T")


class Served:
    """A running engine, and ways to look into it from the test's thread."""

    def __init__(self, folder: Path, rules: QueueRules) -> None:
        self.folder = folder
        self.path = str(folder / "jobs.sock")
        self.rules = rules
        self.engine: JobEngine
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine")

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        if self._fault is None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as fault:
            self._fault = fault
            self._ready.set()
            raise

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        context = PlainContext(self.folder)
        async with open_store(NoSettings(), context, self.rules) as store:
            self.engine = JobEngine(store, identity="test", lease=self.rules.lease)
            server = await self._loop.create_unix_server(
                lambda: FramedJobs(self.engine, admit=lambda _socket: "uid:0"), self.path
            )
            clockwork = asyncio.create_task(self.engine.run())
            self._ready.set()
            await self._stop.wait()
            server.close()
            clockwork.cancel()
            await self.engine.hang_up()
        context.close()

    def ask(self, work: Callable[[QueueStore], Coroutine[Any, Any, T]]) -> T:
        """What `work` gives in the engine's loop."""
        future = asyncio.run_coroutine_threadsafe(work(self.engine.store), self._loop)
        return future.result(30)

    def rows(self, *states: JobState) -> list[Row]:
        async def select(store: QueueStore) -> list[Row]:
            return list(await store.select(Filter(states=states), 100_000))

        return self.ask(select)

    def connect(self) -> Connection:
        return Connection(self.path)


@contextmanager
def served(folder: Path, rules: QueueRules | None = None) -> Iterator[Served]:
    """An engine for the length of a test."""
    engine = Served(folder, rules or QueueRules())
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
