"""Listeners for checks to connect to; what they hold is closed when they are left."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(talk: Talk, path: Path | None = None) -> AsyncIterator[str]:
    """A TCP port of loopback, or a unix socket, as a tcp check is told of it."""
    talking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    over = False

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await talk(reader, writer)
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: one that is cancelled before it has begun would close nothing.
        if over:
            writer.close()
        else:
            talking[asyncio.create_task(hold(reader, writer))] = writer

    if path is None:
        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(begin, path)
        address = f"unix:{path}"
    try:
        yield address
    finally:
        for _ in range(10):
            await asyncio.sleep(0)  # a server that is closed while it accepts loses the socket
        over = True
        server.close()
        for task, writer in talking.items():
            task.cancel()
            writer.close()
        await asyncio.gather(*talking, return_exceptions=True)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
