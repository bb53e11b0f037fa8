"""Threads of one plugin, for its blocking calls; one that hangs keeps nobody from leaving."""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from atlasd.errors import AtlasError

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
BACKLOG = 32
"""Calls that may wait for a thread."""


@dataclass(frozen=True)
class _Job:
    work: Callable[[], Any]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop


class PluginThreads:
    """Up to `threads` daemon threads, made when needed.

    The standard library's executor won't do: at exit the interpreter waits for its threads, so a
    plugin that hangs in one would keep atlasd from ending.
    """

    def __init__(self, plugin: str, *, threads: int = THREADS, backlog: int = BACKLOG) -> None:
        self._plugin = plugin
        self._most = threads
        self._backlog = backlog
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
        self._closed = False

    @property
    def unfinished(self) -> int:
        """Calls that run or wait, abandoned ones included."""
        with self._lock:
            return self._unfinished

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises, from one of the threads.

        Raises `AtlasError("plugin.busy")` when too many calls wait already.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        call = partial(context.run, partial(work, *args, **kwargs))
        with self._lock:
            if self._closed:
                raise AtlasError("plugin.busy", f"plugin {self._plugin} is being shut down")
            if self._unfinished >= self._most + self._backlog:
                raise AtlasError(
                    "plugin.busy",
                    f"plugin {self._plugin}: {self._most} blocking calls have not returned, and "
                    f"{self._backlog} more wait for a thread",
                    hint="give what blocks a time limit of its own",
                )
            self._unfinished += 1
            start = self._threads < min(self._unfinished, self._most)
            self._threads += start
        self._jobs.put(_Job(call, future, loop))
        if start:
            threading.Thread(target=self._work, name=f"plugin {self._plugin}", daemon=True).start()
        return await future

    def close(self) -> None:
        """Let the threads end as they become free; what waits is not begun."""
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not (job.future.cancelled() or self._closed):
                answer = _outcome(job.work)
                try:
                    job.loop.call_soon_threadsafe(_settle, job.future, *answer)
                except RuntimeError:
                    pass  # the loop has ended: nobody waits
            with self._lock:
                self._unfinished -= 1
            del job


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except StopIteration as error:
        # A future cannot carry it: it would end the generator that awaits.
        wrapped = RuntimeError("the call raised StopIteration")
        wrapped.__cause__ = error
        return None, wrapped
    except BaseException as error:  # noqa: BLE001  it belongs to whoever awaits the call
        return None, error


def _settle(future: "asyncio.Future[Any]", answer: Any, error: BaseException | None) -> None:
    if future.done():
        return  # the caller has given up
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)
