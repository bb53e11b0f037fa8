"""The end of a process that is nobody's child here: its pidfd says when, and since Linux 6.15 how."""

from collections.abc import Callable

from atlasd.services import procinfo
from atlasd.services.loop import HANGUP, READ, Loop
from atlasd.services.restart import Exit

UNREAPED = 1.0
"""Seconds to wait for the process's parent to reap it, before its exit counts as unknown."""


class AdoptedExit:
    """Waits for one process, and calls back once with how it ended."""

    def __init__(self, loop: Loop, pidfd: int, ended: Callable[[Exit], object]) -> None:
        self._loop = loop
        self._pidfd = pidfd
        self._ended = ended
        self._over = False
        loop.watch(pidfd, self._ready, READ)

    def cancel(self) -> None:
        """Wait no more."""
        self._over = True
        self._loop.unwatch(self._pidfd)

    def _ready(self, mask: int) -> None:
        exit_ = procinfo.exit_of(self._pidfd)
        if exit_ != Exit() or mask & HANGUP:
            self._finish(exit_)
            return
        # It has ended and was not reaped yet, so the kernel does not tell. The hang-up comes with
        # the reaping (Linux ≥ 6.15); being readable all the time must not keep the loop turning.
        self._loop.watch(self._pidfd, self._ready, 0)
        self._loop.call_later(UNREAPED, lambda: self._finish(procinfo.exit_of(self._pidfd)))

    def _finish(self, exit_: Exit) -> None:
        if not self._over:
            self._over = True
            self._loop.unwatch(self._pidfd)
            self._ended(exit_)
