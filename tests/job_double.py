"""Jobs of a core that plays along: the real operations, over a real queue in a folder."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from atlasd.control import models
from atlasd.control.binding import _lines
from atlasd.control.rights import Caller
from atlasd.control.wire import BY_NAME
from atlasd.daemon.jobs import methods
from atlasd.daemon.schedules import methods as schedule_methods
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.rules import QueueRules
from atlasd.jobs.schedule_operations import ScheduleOperations
from atlasd.jobs.schedules import Schedule
from atlasd.testing.context import PlainContext
from atlasd_plugins.queue_sqlite import connect
from atlasd_plugins.queue_sqlite.store import SqliteQueue

T = TypeVar("T")

KINDS = ("job.", "queue.", "dead.", "breaker.", "schedule.")


class FakeJobs:
    """One host's queue, opened once for each loop that asks, and closed with the loop."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="atlasd-jobs-"))
        self.rules = QueueRules()
        self._engines: dict[asyncio.AbstractEventLoop, tuple[JobEngine, object]] = {}
        self.schedules: Mapping[str, Schedule] = {}
        self._methods = {
            **methods(self._ask, lambda: self.rules),
            **schedule_methods(ScheduleOperations(self._ask, lambda: self.schedules)),
        }

    async def _ask(self, work: Callable[[JobEngine], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        if loop not in self._engines:
            # The loop ends what it was left with when it ends: in its own thread, as SQLite wants.
            opened = self._open()
            self._engines[loop] = (await anext(opened), opened)
        return await work(self._engines[loop][0])

    async def _open(self) -> AsyncGenerator[JobEngine, None]:
        path = self.folder / "queue.db"
        store = SqliteQueue(path, connect(path), PlainContext(self.folder), self.rules)
        engine = JobEngine(store, identity="test")
        engine.timetable.follow(self.schedules, shared=False)
        try:
            yield engine
        finally:
            store.group.connection.close()

    def method(self, name: str) -> Callable[[Any, Caller], Awaitable[Any]]:
        """What performs an operation, as the control server calls it."""
        answer = getattr(models, BY_NAME[name].answer)

        async def perform(request: Any, caller: Caller) -> Any:
            fields = {field: getattr(request, field) for field in type(request).model_fields}
            body = await self._methods[name](actor=caller.actor, **fields)
            if BY_NAME[name].stream:
                return _lines(body, answer)
            return answer.model_validate(body, strict=False)

        return perform
