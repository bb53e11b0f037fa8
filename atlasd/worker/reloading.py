"""`atlas-worker --reload`: the worker is started anew when its code changes; for development."""

import logging
import os
import selectors
import signal
from collections.abc import Callable
from pathlib import Path

from atlasd.errors import EXIT_OK
from atlasd.inotify import Heard, Inotify

QUIET = 0.1
"""Seconds without another change after which the worker is started anew: editors write in steps."""
PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages"})

_log = logging.getLogger("atlasd.worker")


def reloading(work: Callable[[], int], folder: Path) -> int:
    """Run `work` in a process of its own, again after each change of a .py file below `folder`.

    Returns when this process is told to end, and its worker has. Raises `OSError` where the kernel
    allows no watching.
    """
    return _Reloader(work, folder).run()


def folders_below(folder: Path) -> frozenset[str]:
    """The folder and those in it that may have code; hidden ones and environments have none."""
    found = []
    for path, names, files in os.walk(folder):
        if "pyvenv.cfg" in files and path != str(folder):
            names.clear()
            continue
        names[:] = [name for name in names if name[0] != "." and name not in PASSED_OVER]
        found.append(path)
    return frozenset(found)


def counts(heard: Heard) -> bool:
    """Whether something that was heard may be a change of code."""
    return heard.gone or (heard.name.endswith(".py") and not heard.name.startswith("."))


class _Reloader:
    """One worker after the other."""

    def __init__(self, work: Callable[[], int], folder: Path) -> None:
        self._work = work
        self._folder = folder
        self._inotify = Inotify()
        self._told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = False
        self._child = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inotify.descriptor, selectors.EVENT_READ)
        self._selector.register(self._told, selectors.EVENT_READ)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._end)
        code = EXIT_OK
        while not self._ending:
            # Watched before the code is read: what is saved meanwhile is a change.
            self._inotify.watch(folders_below(self._folder))
            code = self._one()
            if code and not self._ending:
                _log.warning("it waits for the next change of the code")
                self._changed()
        return code

    def _end(self, number: int, _frame: object) -> None:
        """Pass a signal on; by another one the worker ends at once."""
        self._ending = True
        os.eventfd_write(self._told, 1)
        if self._child:
            os.kill(self._child, number)

    def _one(self) -> int:
        """Run one worker until it ends, by itself or for a change; 0 when it was for a change."""
        self._child = self._fork()
        ended = os.pidfd_open(self._child)
        self._selector.register(ended, selectors.EVENT_READ)
        try:
            changed = not self._changed(ended) and not self._ending
            if changed:
                _log.info(
                    "the code has changed: the worker starts anew when it has done what it began"
                )
                os.kill(self._child, signal.SIGTERM)
            child = self._child
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            self._child = 0  # once it is reaped, its number may be somebody else's
            _, status = os.waitpid(child, 0)
        finally:
            self._selector.unregister(ended)
            os.close(ended)
        return EXIT_OK if changed else os.waitstatus_to_exitcode(status)

    def _fork(self) -> int:
        child = os.fork()
        if child == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            self._inotify.close()
            code = 1
            try:
                code = self._work()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            finally:
                os._exit(code)
        return child

    def _changed(self, ended: int | None = None) -> bool:
        """Wait for a change of the code, the end of the worker, or a signal; whether it ended."""
        rest: float | None = None
        while not self._ending:
            found = {key.fd for key, _ in self._selector.select(rest)}
            if not found and rest is not None:
                return False
            if ended in found:
                return True
            if self._inotify.descriptor in found and any(map(counts, self._inotify.read())):
                rest = QUIET
        return False
