"""A control server in a thread of its own, for tests whose client blocks or is another program."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from atlasd.control.server import ControlServer, Handler
from tests.control_double import FakeCore


class Served:
    """A served core; use `do` to touch it, since it lives in another thread's loop."""

    def __init__(self, core: FakeCore, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self.core = core
        self.path = path
        self._loop = loop

    def do(self, work: Callable[[], Any]) -> Any:
        """Run something in the server's loop, and give what it gives."""

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)


@contextmanager
def serving(
    core: FakeCore, path: str, handlers: Mapping[str, Handler] | None = None
) -> Iterator[Served]:
    """Serve `core` at `path`, with some handlers replaced, until the block ends."""
    ready = threading.Event()
    made: dict[str, Any] = {}

    async def main() -> None:
        server = ControlServer(path, {**core.handlers(), **(handlers or {})})
        made["end"] = asyncio.Event()
        made["loop"] = asyncio.get_running_loop()
        try:
            await server.start()
        finally:
            ready.set()
        made["up"] = True
        ends = [asyncio.create_task(e.wait()) for e in (made["end"], core.shutdown)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        await server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    assert made.get("up") or thread.is_alive()
    try:
        yield Served(core, path, made["loop"])
    finally:
        try:
            made["loop"].call_soon_threadsafe(made["end"].set)
        except RuntimeError:
            pass  # it was shut down by the test itself
        thread.join(30)
        assert not thread.is_alive()
