"""The guard around a plugin's work: a time limit, a breaker, and books of what it cost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from atlasd.breaker import Breaker, BreakerState
from atlasd.clock import Clock
from atlasd.errors import AtlasError
from atlasd.pluginhost.ledger import Cause, Ledger

T = TypeVar("T")
R = TypeVar("R")

GRACE = timedelta(seconds=1)
"""What cancelled work may take to clear up, before it is left to itself."""
MOST_STRAYS = 8
"""Calls that would not end when cancelled; with more, their backend is not called any longer."""

_log = logging.getLogger(__name__)


class WrongAnswerError(Exception):
    """A plugin returned something else than its contract says; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What is guarded: one opened thing of one plugin."""

    plugin: str
    kind: str
    """Its label, as `check`."""
    name: str
    """What it is to the operator: `check web`."""


class Guard:
    """Calls one backend of a plugin, so that whatever it does costs only itself."""

    def __init__(
        self,
        backend: Backend,
        *,
        ledger: Ledger,
        breaker: Breaker,
        clock: Clock,
        grace: timedelta = GRACE,
        most_strays: int = MOST_STRAYS,
    ) -> None:
        self._backend = backend
        self._ledger = ledger
        self._breaker = breaker
        self._clock = clock
        self._grace = grace.total_seconds()
        self._most_strays = most_strays
        self._strays: set[asyncio.Task[Any]] = set()

    @property
    def strays(self) -> int:
        """Calls that go on although they were cancelled."""
        return len(self._strays)

    async def call(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        limit: timedelta | None,
        accept: Callable[[T], R],
        honest: tuple[type[Exception], ...] = (),
    ) -> R:
        """What `accept` makes of the work's answer.

        `limit` is None for work that is meant to go on. `accept` raises `WrongAnswerError` for an
        answer against the contract. Exceptions of the types in `honest` pass through and are no
        failure. Raises `AtlasError("plugin.failed")` for everything else: it raised, hung, gave a
        wrong answer, or rests after failures.
        """
        self._admit()
        began = self._clock.monotonic()
        task = asyncio.create_task(_contained(work), name=f"{self._backend.name} (plugin)")
        try:
            await asyncio.wait({task}, timeout=limit.total_seconds() if limit is not None else None)
        except asyncio.CancelledError:
            self._breaker.withdrawn()
            await self._end(task)
            raise
        finally:
            self._ledger.called(
                self._backend.plugin, self._backend.kind, self._clock.monotonic() - began
            )
        if limit is not None and not task.done():
            await self._end(task)
            raise self._failed(Cause.HUNG, f"it did not return within {limit.total_seconds():g} s")
        return self._judged(task, accept, honest)

    @property
    def resting(self) -> bool:
        """Whether calls are refused for the moment."""
        return self._breaker.state is BreakerState.OPEN

    def recovered(self) -> None:
        """Enter that work which goes on has gone well for a while."""
        self._ledger.worked(self._backend.plugin, self._backend.name)

    def closed_badly(self, fault: Exception) -> None:
        """Enter that the backend did not close as it should."""
        self._enter(Cause.RAISED, f"closing it failed: {_described(fault)}")
        _log.warning("%s: closing it failed: %s", self._title(), _described(fault))

    def flooded(self, detail: str) -> None:
        """Enter that the backend gave more than it may; the call itself stands."""
        self._ledger.failed(
            self._backend.plugin,
            self._backend.kind,
            f"{self._backend.name} output",
            Cause.FLOODED,
            f"{self._backend.name}: {detail}",
        )

    def _judged(
        self,
        task: asyncio.Task[T],
        accept: Callable[[T], R],
        honest: tuple[type[Exception], ...],
    ) -> R:
        if task.cancelled():
            raise self._failed(Cause.RAISED, "it cancelled itself")
        error = task.exception()
        if isinstance(error, honest):
            self._succeeded()
            raise error
        if error is not None:
            raise self._failed(Cause.RAISED, _described(error), error) from error
        try:
            answer = accept(task.result())
        except WrongAnswerError as wrong:
            raise self._failed(Cause.WRONG, str(wrong)) from wrong
        self._succeeded()
        return answer

    def _admit(self) -> None:
        if not self._breaker.admit():
            wait = self._breaker.remaining.total_seconds()
            raise AtlasError(
                "plugin.failed",
                f"{self._title()}: it failed {self._breaker.failures} times in a row and rests; "
                + (f"next try in {wait:.0f} s" if wait else "it is being tried now"),
                hint=f"`atlasctl plugins` shows what plugin {self._backend.plugin} did wrong",
            )
        if len(self._strays) >= self._most_strays:
            raise self._failed(
                Cause.HUNG, "it still has not ended what it was doing before, though cancelled"
            )

    def _succeeded(self) -> None:
        self._breaker.succeeded()
        self._ledger.worked(self._backend.plugin, self._backend.name)

    def _failed(self, cause: Cause, detail: str, error: BaseException | None = None) -> AtlasError:
        """Enter a failure; the error to be raised."""
        message = f"{self._title()}: {detail}"
        # The traceback once, with the first failure in a row: the rest say the same again.
        first = self._breaker.failures == 0
        self._enter(cause, detail)
        opened = self._breaker.failed()
        if first:
            _log.warning("%s", message, exc_info=None if _explained(error) else error)
        if opened:
            rest = self._breaker.remaining.total_seconds()
            _log.warning("%s; it rests for %.0f s", message, rest)
        hint = f"`atlasctl plugins` shows the state of plugin {self._backend.plugin}"
        if isinstance(error, AtlasError) and error.hint:
            hint = error.hint
        return AtlasError("plugin.failed", message, hint=hint)

    def _enter(self, cause: Cause, detail: str) -> None:
        backend = self._backend
        self._ledger.failed(
            backend.plugin, backend.kind, backend.name, cause, f"{backend.name}: {detail}"
        )

    def _title(self) -> str:
        return f"{self._backend.name} (plugin {self._backend.plugin})"

    async def _end(self, task: asyncio.Task[Any]) -> None:
        await end(task, self._grace, self._strays)


class _ExitError(Exception):
    """Work tried to end the daemon."""


async def _contained(work: Callable[[], Awaitable[T]]) -> T:
    """The work; a task in which SystemExit is raised would take the whole loop with it."""
    try:
        return await work()
    except (SystemExit, KeyboardInterrupt) as error:
        raise _ExitError(f"it tried to end the daemon ({type(error).__name__})") from error


async def end(task: asyncio.Task[Any], grace: float, strays: set[asyncio.Task[Any]]) -> None:
    """Cancel a task and wait a little; one that goes on is put among `strays` until it ends."""
    task.cancel()
    try:
        await asyncio.wait({task}, timeout=grace)
    finally:
        if not task.done():
            strays.add(task)
            task.add_done_callback(strays.discard)
        task.add_done_callback(_swallow)


def _swallow(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # looked at, so that the loop doesn't report it as forgotten


def _explained(error: BaseException | None) -> bool:
    return isinstance(error, AtlasError | _ExitError)


def _described(error: BaseException) -> str:
    if _explained(error):
        return str(error)
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:500]}" if words else type(error).__name__
