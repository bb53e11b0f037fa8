"""Turns a role's loop until the role is over, whatever a plugin leaves running in it."""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_threads
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that what is still running is given to end, once it has been cancelled."""

_log = logging.getLogger("atlasd.daemon")


class _Threads(ThreadPoolExecutor):
    """The loop's threads, and what they have not finished."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="atlasd")
        self.unfinished: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        self.unfinished.add(future)
        future.add_done_callback(self.unfinished.discard)
        return future


def turn(role: Coroutine[Any, Any, None], *, patience: float = PATIENCE) -> bool:
    """Run `role` to its end; whether nothing of it is left.

    `asyncio.run` waits for every task and thread, so that a plugin that swallows its cancellation
    would keep the daemon from ending. Here it is given `patience` seconds and left behind: then the
    caller must leave by `os._exit`, as the interpreter waits for threads too. Raises what `role`
    raises.
    """
    threads = _Threads()
    runner = asyncio.Runner()
    left: list[str] = []
    try:
        runner.get_loop().set_default_executor(threads)
        runner.run(_to_the_end(role, threads, left, patience))
    finally:
        if not left:
            runner.close()
        else:
            _log.warning("left behind, as it does not end: %s", ", ".join(sorted(left)))
    return not left


async def _to_the_end(
    role: Coroutine[Any, Any, None], threads: _Threads, left: list[str], patience: float
) -> None:
    try:
        await role
    finally:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            _, pending = await asyncio.wait(rest, timeout=patience)
            left += [task.get_name() for task in pending]
        threads.shutdown(wait=False, cancel_futures=True)
        if threads.unfinished:
            # Nothing else is left to be done: this may block.
            _, busy = wait_for_threads(set(threads.unfinished), timeout=patience)
            left += ["a call in a thread" for _ in busy]


def flush() -> None:
    """Write out what is buffered, before an end that doesn't."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
