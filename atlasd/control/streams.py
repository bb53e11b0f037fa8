"""One stream of lines to one reader, who may be slow."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from pydantic import BaseModel

from atlasd.clock import Clock, utc
from atlasd.control.models import Event
from atlasd.errors import AtlasError


class Sink(Protocol):
    """Where the lines go: aiohttp's response."""

    async def write(self, data: bytes) -> object:
        """Send; waits while the reader has too much before it."""


class Stream:
    """Carries lines from an iterator to a reader.

    With a `limit` the reader is never waited for: what he is behind by more than `limit` lines
    gives way, the oldest first, and he is told how many in a line of kind `events-lost`. Without
    one the iterator is only read as fast as the reader reads.
    """

    def __init__(
        self,
        lines: AsyncIterator[BaseModel | bytes],
        sink: Sink,
        *,
        limit: int | None,
        clock: Clock,
        explain: Callable[[Exception], AtlasError],
    ) -> None:
        self._lines = lines
        self._sink = sink
        self._limit = limit
        self._clock = clock
        self._explain = explain
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._error: AtlasError | None = None
        self._over = False

    def end(self, error: AtlasError) -> None:
        """Finish early; the error is the last line."""
        self._error = self._error or error
        self._over = True
        self._wake.set()

    async def run(self) -> None:
        """Carry until the iterator ends, it fails, or `end` is called.

        Raises `ConnectionResetError` when the reader goes away.
        """
        pump = asyncio.create_task(self._pump(), name="control stream")
        try:
            while True:
                batch = self._take()
                if batch:
                    await self._sink.write(batch)
                elif self._over:
                    break
                else:
                    self._wake.clear()
                    await self._wake.wait()
            if self._error is not None:
                await self._sink.write(_line(self._error.to_wire()))
        finally:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pump
            close = getattr(self._lines, "aclose", None)
            if close is not None:
                await close()

    async def _pump(self) -> None:
        try:
            async for item in self._lines:
                data = item if isinstance(item, bytes) else _dump(item)
                if self._limit is None:
                    while len(self._waiting) >= 256 and not self._over:
                        self._room.clear()
                        await self._room.wait()
                elif len(self._waiting) >= self._limit:
                    self._waiting.popleft()
                    self._lost += 1
                self._waiting.append(data)
                self._wake.set()
        except Exception as fault:  # noqa: BLE001  the reader is told, in the last line
            self._error = self._error or self._explain(fault)
        self._over = True
        self._wake.set()

    def _take(self) -> bytes:
        """What waits, up to about what a socket takes at once; the news of a loss comes first."""
        parts: list[bytes] = []
        if self._lost:
            parts.append(self._loss())
            self._lost = 0
        size = 0
        while self._waiting and size < 65536:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        self._room.set()
        return b"".join(parts)

    def _loss(self) -> bytes:
        return _dump(
            Event(
                seq=0,
                time=utc(self._clock.wall()),
                kind="events-lost",
                detail=f"{self._lost} lines were lost: they were not read fast enough",
                data={"count": self._lost},
            )
        )


def _dump(item: BaseModel) -> bytes:
    # A line says only what applies to it: an event has a dozen optional fields.
    text = (
        item.model_dump_json(exclude_none=True)
        if isinstance(item, Event)
        else (item.model_dump_json())
    )
    return text.encode() + b"\n"


def _line(body: dict[str, object]) -> bytes:
    return json.dumps(body, default=str).encode() + b"\n"
