"""Something that a descriptor opened, held by one task from its opening to its closing."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Generic, TypeVar

from atlasd.pluginhost.guard import GRACE, end

T = TypeVar("T")


class Opened(Generic[T]):
    """Opens a thing when it is first asked for, and again after it has fallen.

    One task enters and leaves the context, as task groups and timeouts inside it demand.
    """

    def __init__(
        self,
        make: Callable[[], AbstractAsyncContextManager[T]],
        *,
        name: str,
        grace: timedelta = GRACE,
    ) -> None:
        self._make = make
        self._name = name
        self._grace = grace.total_seconds()
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[T] | None = None
        self._leave = asyncio.Event()
        self._fault: Exception | None = None
        self._strays: set[asyncio.Task[Any]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the thing stands ready."""
        return self._ready is not None and self._ready.done() and not self._fallen()

    async def get(self) -> T:
        """The thing, opened if it isn't.

        Raises what opening it raises, and once what ended it unasked since the last call.
        """
        if self._ready is None or self._fallen():
            fault, self._fault = self._fault, None
            if fault is not None:
                raise fault
            self._leave = asyncio.Event()
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(
                self._hold(self._ready, self._leave), name=f"{self._name} (opened)"
            )
        # Shielded: whoever gives up waiting doesn't spoil it for the next one.
        return await asyncio.shield(self._ready)

    async def drop(self) -> None:
        """Give up on a thing that was not ready in time, or does not obey."""
        task, self._task, self._ready = self._task, None, None
        if task is not None:
            await end(task, self._grace, self._strays)

    async def close(self, limit: timedelta) -> Exception | None:
        """Leave the context; what went wrong, `TimeoutError` when it took longer than `limit`."""
        task, self._task, self._ready = self._task, None, None
        self._leave.set()
        if task is None:
            return None
        try:
            done, _ = await asyncio.wait({task}, timeout=limit.total_seconds())
        finally:
            await end(task, self._grace, self._strays)
        fault, self._fault = self._fault, None
        return fault if done else TimeoutError("it took too long")

    def _fallen(self) -> bool:
        return self._task is None or self._task.done()

    async def _hold(self, ready: "asyncio.Future[T]", leave: asyncio.Event) -> None:
        try:
            async with self._make() as thing:
                if not ready.done():
                    ready.set_result(thing)
                await leave.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(_carriable(error))
                # Looked at here, so that the loop doesn't report it when nobody waits any longer.
                ready.exception()
            elif not isinstance(error, asyncio.CancelledError):
                self._fault = _carriable(error)
            if isinstance(error, asyncio.CancelledError):
                raise


def _carriable(error: BaseException) -> Exception:
    """The error, in a form that a future can hand on without ending the loop or its awaiter."""
    if isinstance(error, StopIteration | StopAsyncIteration) or not isinstance(error, Exception):
        wrapped = RuntimeError(f"opening it ended with {type(error).__name__}")
        wrapped.__cause__ = error
        return wrapped
    return error
