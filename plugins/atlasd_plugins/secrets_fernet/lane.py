"""Calls that come at the same time share one turn in a thread, and one commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from atlasd_plugins.secrets_fernet.database import Outcome, Work

T = TypeVar("T")

MOST = 256
"""Calls that one turn may carry."""


class Lane:
    """One turn after the other; what is handed in during a turn goes into the next one."""

    def __init__(self, turn: Callable[[Sequence[Work]], Awaitable[Sequence[Outcome]]]) -> None:
        """`turn` does some works in a thread, and gives what each returned or raised."""
        self._turn = turn
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._driver: asyncio.Task[None] | None = None

    async def run(self, work: Callable[..., T]) -> T:
        """What `work` returns or raises. If the caller gives up, it may be done all the same."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._driver is None:
            self._driver = asyncio.create_task(self._drive(), name="secrets_fernet")
        return await future

    async def close(self) -> None:
        """Wait until all that was handed in is done."""
        while self._driver is not None:
            await asyncio.wait({self._driver})

    async def _drive(self) -> None:
        taken: list[tuple[Work, asyncio.Future[Any]]] = []
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                taken = [(work, future) for work, future in taken if not future.done()]
                if not taken:
                    continue
                try:
                    outcomes = await self._turn([work for work, _ in taken])
                except Exception as error:  # noqa: BLE001  it belongs to all who wait
                    outcomes = [(None, error)] * len(taken)
                for (_, future), (value, fault) in zip(taken, outcomes, strict=True):
                    if future.done():
                        continue
                    if fault is None:
                        future.set_result(value)
                    else:
                        future.set_exception(fault)
        finally:
            self._driver = None
            for _, future in (*taken, *self._waiting):
                future.cancel()  # only where this task itself was cancelled
            self._waiting = []
