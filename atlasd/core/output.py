"""Captured output of services as streams: read in a thread, followed by inotify in the loop."""

import asyncio
import heapq
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from atlasd.core.engine import Core
from atlasd.errors import AtlasError, nearest
from atlasd.services.logfiles import Follower, Line, query

T = TypeVar("T")

CHUNK = 1000
"""Lines that are read at once, before others have their turn."""


class LogOperations:
    """Operations on captured output; they give whole lines of JSON as bytes."""

    def __init__(self, core: Core, *, log_dir: str) -> None:
        self._core = core
        self._log_dir = log_dir

    async def service_logs(
        self,
        *,
        service: str,
        follow: bool,
        since: datetime | None,
        grep: str | None,
        lines: int | None,
        stream: str | None,
        instance: int | None,
        actor: str,
    ) -> AsyncIterator[bytes]:
        """`service.logs`."""
        return await self.logs(
            service=(service,),
            follow=follow,
            since=since,
            grep=grep,
            lines=lines,
            stream=stream,
            instance=instance,
            actor=actor,
        )

    async def logs(
        self,
        *,
        service: Sequence[str],
        follow: bool,
        since: datetime | None,
        grep: str | None,
        lines: int | None,
        stream: str | None,
        instance: int | None,
        actor: str,
    ) -> AsyncIterator[bytes]:
        """`logs`: of these services, or of all, in the order of time. Raises `AtlasError`."""
        del actor
        known = sorted(self._core.reconciler.resolved().specs)
        for name in service:
            if name not in known:
                hint = nearest(name, known)
                raise AtlasError("service.unknown", f"no service is called {name!r}", hint=hint)
        names = list(dict.fromkeys(service)) or known
        instances = None if instance is None else (instance,)
        start = None if since is None else since.timestamp()
        if follow:
            opened = await asyncio.to_thread(
                _followers,
                self._log_dir,
                names,
                instances=instances,
                since=start,
                grep=grep,
                lines=lines,
                stream=stream,
            )
            return _follow(opened, lines)
        sources = [
            query(
                self._log_dir,
                name,
                instances=instances,
                since=start,
                grep=grep,
                lines=lines,
                stream=stream,
            )
            for name in names
        ]
        return _past(sources, lines)


def encoded(line: Line) -> bytes:
    """The line as `atlasd.control.models.LogRecord` has it, with its newline."""
    return json.dumps(line.to_wire(), ensure_ascii=False).encode() + b"\n"


def merged(sources: Sequence[Iterator[Line]], lines: int | None) -> Iterator[Line]:
    """The lines of several services by time; with `lines`, the last so many of all together."""
    together = (
        sources[0] if len(sources) == 1 else heapq.merge(*sources, key=lambda line: line.time)
    )
    if lines is None or len(sources) == 1:
        return together
    return iter(deque(together, maxlen=lines))


def _chunk(lines: Iterator[Line]) -> bytes:
    return b"".join(encoded(line) for line in itertools.islice(lines, CHUNK))


async def _past(sources: Sequence[Iterator[Line]], lines: int | None) -> AsyncIterator[bytes]:
    if not sources:
        return
    threads = _Threads()
    try:
        together = await threads.run(partial(merged, sources, lines))
        while chunk := await threads.run(partial(_chunk, together)):
            yield chunk
    finally:
        await threads.idle()
        for source in sources:
            close = getattr(source, "close", None)
            if close is not None:
                close()


def _followers(
    log_dir: str,
    names: Sequence[str],
    *,
    instances: Sequence[int] | None,
    since: float | None,
    grep: str | None,
    lines: int | None,
    stream: str | None,
) -> list[Follower]:
    with ExitStack() as stack:
        found = [
            stack.enter_context(
                Follower(
                    log_dir,
                    name,
                    instances=instances,
                    since=since,
                    grep=grep,
                    lines=lines,
                    stream=stream,
                )
            )
            for name in names
        ]
        stack.pop_all()
        return found


async def _follow(followers: Sequence[Follower], lines: int | None) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    threads = _Threads()
    stirred = asyncio.Event()
    awake: set[Follower] = set(followers)

    def stir(follower: Follower) -> None:
        awake.add(follower)
        stirred.set()
        # Until it has been read the descriptor stays ready, and the loop would spin.
        loop.remove_reader(follower.fileno())

    try:
        if followers:
            past = [follower.initial() for follower in followers]
            together = await threads.run(partial(merged, past, lines))
            while chunk := await threads.run(partial(_chunk, together)):
                yield chunk
        while True:
            for follower in list(awake):
                awake.discard(follower)
                found = await threads.run(follower.read)
                if found:
                    yield b"".join(encoded(line) for line in found)
                if follower.pending:
                    awake.add(follower)
                else:
                    loop.add_reader(follower.fileno(), stir, follower)
            if not awake:
                stirred.clear()
                await stirred.wait()
    finally:
        await threads.idle()
        for follower in followers:
            loop.remove_reader(follower.fileno())
            follower.close()


class _Threads:
    """One call at a time in a thread, whose end can be waited for even when we are cancelled."""

    def __init__(self) -> None:
        self._call: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        call = asyncio.get_running_loop().run_in_executor(None, work)
        self._call = call
        return await asyncio.shield(call)

    async def idle(self) -> None:
        if self._call is not None and not self._call.done():
            await asyncio.wait({self._call})
