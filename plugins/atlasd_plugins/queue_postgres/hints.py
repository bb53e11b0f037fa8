"""Notifications between hosts: a hint that there may be work; a poll makes up for lost ones."""

import asyncio
import contextlib
from collections.abc import Callable

from atlasd.errors import AtlasError
from atlasd_plugins.queue_postgres.access import Access
from atlasd_plugins.queue_postgres.link import Link, listen

AT_MOST_EVERY = 0.02
"""Seconds between two notifications of one host, however much it enqueues."""
NOTIFY = "SELECT pg_notify($1, '')"


class Hints:
    """Listens on a connection of its own; sends on one that does not delay the queue's commits.

    A notification in a commit would hold a lock of the whole database during its fsync.
    """

    def __init__(self, access: Access, side: Link, heard: Callable[[], object]) -> None:
        self._access = access
        self._channel = f"atlasd_{access.schema}"
        self._side = side
        self._heard = heard
        self._listening: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._due = False
        self.received = 0
        self.listening = False

    def start(self) -> None:
        """Begin to listen."""
        self._listening = asyncio.create_task(self._listen(), name="queue hints")

    def send(self) -> None:
        """Have the other hosts look soon."""
        self._due = True
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="queue hint")

    async def _send(self) -> None:
        while self._due:
            self._due = False
            with contextlib.suppress(AtlasError):  # they poll
                await self._side.run((NOTIFY, (self._channel,)))
            await asyncio.sleep(AT_MOST_EVERY)

    async def _listen(self) -> None:
        pause = 0.1
        while True:
            with contextlib.suppress(AtlasError):
                async for process in listen(self._access, self._channel):
                    pause, self.listening = 0.1, True
                    if process != self._side.process:
                        self.received += 1
                        self._heard()
            self.listening = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def close(self) -> None:
        """End both."""
        for task in (self._listening, self._sending):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
