"""Progress: what of core still moves, how late its loop is, and the pings that depend on it."""

import asyncio
import faulthandler
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TextIO

LAG_EVERY = 2.0
"""Seconds between two measurements of the loop's lag."""
LAG_KEPT = 30
"""Measurements of which the worst is shown: the last minute."""
UNWATCHED_INTERVAL = 30.0
"""Seconds without progress after which the stacks are written, when systemd doesn't watch."""

Part = Callable[[], Awaitable[None]]
"""Returns when a part of core has shown that it works; raises, or doesn't return, when not."""


class LoopLag:
    """How late the event loop runs what is due: seconds, the worst of the last minute."""

    def __init__(self) -> None:
        self._measured: deque[float] = deque(maxlen=LAG_KEPT)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self._measured.append(max(0.0, loop.time() - due))

    @property
    def seconds(self) -> float:
        """The worst lag of the last minute."""
        return max(self._measured, default=0.0)


class LastWords:
    """Writes the stacks of all threads and tasks when nobody has called `alive` for too long.

    systemd kills what does not ping; without this the log would not say what it was doing.
    """

    def __init__(self, after: float, *, file: TextIO | None = None) -> None:
        """Write after so many seconds of silence, to `file` (default: standard error)."""
        self._after = after
        self._file = file or sys.stderr
        self._loop = asyncio.get_running_loop()
        self._heard = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._wait, name="last-words", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._arm()
        self._thread.start()

    def alive(self) -> None:
        """Core makes progress; the time begins anew."""
        self._arm()
        self._heard.set()

    def close(self) -> None:
        """Stop listening."""
        self._over = True
        self._heard.set()
        faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        # In C, for the case that something holds the interpreter's lock: it sees threads only.
        try:
            faulthandler.dump_traceback_later(self._after * 1.2, file=self._file)
        except (ValueError, OSError, AttributeError):
            pass  # a file without a descriptor, under test

    def _wait(self) -> None:
        while not self._over:
            if self._heard.wait(self._after):
                self._heard.clear()
                continue
            self._file.write(stacks(self._loop, f"no progress for {self._after:g} s"))
            self._file.flush()
            self._heard.wait()  # once is enough until it moves again
            self._heard.clear()


def stacks(loop: asyncio.AbstractEventLoop, headline: str) -> str:
    """What every thread and every task is doing at this moment, for the log."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = [f"atlasd: {headline}; what everything is doing:\n"]
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  the only way to see them
        lines.append(f"thread {names.get(ident, ident)}:\n")
        lines += traceback.format_stack(frame)
    try:
        tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    except RuntimeError:
        tasks = []  # the set changed under us, again and again: the threads will have to do
    for task in tasks:
        lines.append(f"task {task.get_name()}:\n")
        for frame in task.get_stack(limit=8):
            lines += traceback.format_stack(frame, limit=1)
    return "".join(lines)


class Watchdog:
    """Pings systemd while every part makes progress, and only then.

    A part proves itself in each round. The services role being gone is not core's fault, so its
    link proves itself by trying: an answer, a refusal and a time-out that came in time are all
    progress; a request that neither ends nor fails is not.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        *,
        interval: float | None,
        ping: Callable[[], object],
        last_words: LastWords | None,
        report: Callable[[str], None],
    ) -> None:
        """`interval` is systemd's limit in seconds; None: nobody waits for pings."""
        self.pings = 0
        self.stuck: tuple[str, ...] = ()
        """Parts that did not prove themselves in the last round."""
        self._parts = dict(parts)
        self._limit = interval or UNWATCHED_INTERVAL
        self._ping = ping if interval is not None else None
        self._last_words = last_words
        self._report = report

    @property
    def period(self) -> float:
        """Seconds between two rounds: three fit into the limit."""
        return self._limit / 3

    async def run(self) -> None:
        """Round after round until cancelled."""
        while True:
            began = time.monotonic()
            await self.round()
            await asyncio.sleep(max(0.1, self.period - (time.monotonic() - began)))

    async def _proof(self, name: str) -> None:
        async with asyncio.timeout(self.period):
            await self._parts[name]()

    async def round(self) -> bool:
        """Ask every part; ping if all are well. Whether they were."""
        names = list(self._parts)
        results = await asyncio.gather(
            *(self._proof(name) for name in names),
            return_exceptions=True,
        )
        stuck = tuple(
            name
            for name, result in zip(names, results, strict=True)
            if isinstance(result, BaseException)
        )
        if stuck and stuck != self.stuck:
            why = "; ".join(
                f"{name}: {result!r}" for name, result in zip(names, results, strict=True) if result
            )
            self._report(f"no progress, so no ping for systemd: {why}")
        self.stuck = stuck
        if stuck:
            return False
        if self._last_words is not None:
            self._last_words.alive()
        if self._ping is not None:
            self._ping()
            self.pings += 1
        return True
