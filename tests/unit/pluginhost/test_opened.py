"""Opened things: opened when needed, held by one task, opened again when they fell, closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from atlasd.pluginhost.opened import Opened

NOW = timedelta(0)
LONG = timedelta(minutes=1)


class Backend:
    """Notes what happens to it, and in which task."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.tasks: set[asyncio.Task[object] | None] = set()
        self.fault: BaseException | None = None
        self.closing: BaseException | None = None
        self.fall = asyncio.Event()
        self.hang = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        self.tasks.add(asyncio.current_task())
        if self.fault is not None:
            raise self.fault
        if self.hang:
            await asyncio.Event().wait()
        self.notes.append("opened")
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch())
                yield f"thing {len(self.notes)}"
                watcher.cancel()
        finally:
            self.tasks.add(asyncio.current_task())
            self.notes.append("closed")
            self._end()

    def _end(self) -> None:
        if self.closing is not None:
            raise self.closing

    async def _watch(self) -> None:
        await self.fall.wait()
        self.fall.clear()
        raise ConnectionError("the line broke")


async def test_it_is_opened_at_the_first_use_and_once() -> None:
    backend = Backend()
    opened = Opened(backend.open, name="x")
    standing = [opened.is_open]
    assert backend.notes == []
    assert await opened.get() == await opened.get() == "thing 1"
    standing.append(opened.is_open)
    assert await opened.close(LONG) is None
    assert backend.notes == ["opened", "closed"]
    standing.append(opened.is_open)
    assert standing == [False, True, False]


async def test_one_task_opens_and_closes_whoever_asks() -> None:
    backend = Backend()
    opened = Opened(backend.open, name="x")
    await asyncio.create_task(opened.get())
    await asyncio.create_task(opened.close(LONG))
    (task,) = backend.tasks
    assert task is not None
    assert task.get_name() == "x (opened)"


async def test_what_opening_raises_reaches_the_caller_and_the_next_use_tries_again() -> None:
    backend = Backend()
    backend.fault = ValueError("no")
    opened = Opened(backend.open, name="x")
    with pytest.raises(ValueError, match="no"):
        await opened.get()
    backend.fault = None
    assert await opened.get() == "thing 1"
    await opened.close(LONG)


@pytest.mark.parametrize("fault", [SystemExit(3), KeyboardInterrupt(), StopIteration()])
async def test_opening_cannot_end_the_loop(fault: BaseException) -> None:
    backend = Backend()
    backend.fault = fault
    opened = Opened(backend.open, name="x")
    with pytest.raises(RuntimeError, match=r"opening it ended|raised StopIteration"):
        await opened.get()


async def test_what_falls_says_why_once_and_is_opened_again() -> None:
    backend = Backend()
    opened = Opened(backend.open, name="x")
    await opened.get()
    backend.fall.set()
    while opened.is_open:  # noqa: ASYNC110  a task ends when the loop has come to it
        await asyncio.sleep(0)
    with pytest.raises(ExceptionGroup) as caught:
        await opened.get()
    assert caught.group_contains(ConnectionError, match="the line broke")
    assert await opened.get() == "thing 3"
    assert await opened.close(LONG) is None


async def test_what_does_not_open_is_dropped() -> None:
    backend = Backend()
    backend.hang = True
    opened = Opened(backend.open, name="x", grace=NOW)
    waiting = asyncio.create_task(opened.get())
    await asyncio.sleep(0)
    waiting.cancel()
    await opened.drop()
    await asyncio.gather(waiting, return_exceptions=True)
    backend.hang = False
    assert await opened.get() == "thing 1"
    assert await opened.close(LONG) is None


async def test_closing_tells_what_went_wrong() -> None:
    backend = Backend()
    backend.closing = OSError("disk full")
    opened = Opened(backend.open, name="x")
    await opened.get()
    fault = await opened.close(LONG)
    assert isinstance(fault, OSError)


async def test_closing_is_not_waited_for_for_ever() -> None:
    @asynccontextmanager
    async def clings() -> AsyncIterator[str]:
        try:
            yield "x"
        finally:
            await asyncio.Event().wait()

    opened = Opened(clings, name="x", grace=NOW)
    await opened.get()
    assert isinstance(await opened.close(NOW), TimeoutError)


async def test_closing_what_was_never_opened_is_nothing() -> None:
    backend = Backend()
    assert await Opened(backend.open, name="x").close(LONG) is None
    assert backend.notes == []
