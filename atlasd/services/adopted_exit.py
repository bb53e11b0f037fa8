"""The end of a process that is nobody's child here: a pidfd says when, and lately also how."""

from collections.abc import Callable

from atlasd.services import procinfo
from atlasd.services.loop import HANGUP, READ, Loop
from atlasd.services.restart import Exit

UNREAPED = 1.0
"""Seconds to wait for the kernel to tell, before an exit counts as unknown."""


class AdoptedExit:
    """Waits for one process, and calls back once with how it ended."""

    def __init__(
        self, loop: Loop, pidfd: int, who: tuple[int, int], ended: Callable[[Exit], object]
    ) -> None:
        """`who`: the process's pid and start time."""
        self._loop = loop
        self._pidfd = pidfd
        self._who = who
        self._ended = ended
        self._over = False
        loop.watch(pidfd, self._ready, READ)

    def cancel(self) -> None:
        """Wait no more."""
        self._over = True
        self._loop.unwatch(self._pidfd)

    def _ready(self, mask: int) -> None:
        exit_ = procinfo.exit_of(self._pidfd, *self._who)
        if exit_ != Exit() or mask & HANGUP:
            self._finish(exit_)
            return
        # It is between being a zombie and being reaped: the hang-up comes with the latter (Linux
        # ≥ 6.15). Being readable all the time must not keep the loop turning.
        self._loop.watch(self._pidfd, self._ready, 0)
        self._loop.call_later(UNREAPED, lambda: self._finish(Exit()))

    def _finish(self, exit_: Exit) -> None:
        if not self._over:
            self._over = True
            self._loop.unwatch(self._pidfd)
            self._ended(exit_)
