"""A role's plugins at work, begun anew whenever their settings have changed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from pydantic import BaseModel

Settings = Mapping[str, BaseModel]


class Renewing:
    """Runs `work(settings)`, which goes on until it is cancelled, with the latest settings."""

    def __init__(self, work: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
        self._work = work
        self._settings = settings
        self._renewed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Raises what the work raises."""
        while True:
            self._renewed.clear()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._begin(self._settings), name="plugins at work")
                waiting = group.create_task(self._renewed.wait(), name="plugins' settings")
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                task.cancel()
                waiting.cancel()

    async def _begin(self, settings: Settings) -> None:
        await self._work(settings)

    async def renew(self, settings: Settings) -> None:
        """Have the work begin anew, if these settings are others."""
        if settings != self._settings:
            self._settings = settings
            self._renewed.set()
