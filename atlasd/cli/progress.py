"""How far long work has come: a line on the terminal that is written over; nothing elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BETWEEN = 0.1
"""Seconds between two looks of the line."""
_WIDTH = 24


class Progress:
    """One line of progress on standard error."""

    def __init__(self, what: str, total: int | None) -> None:
        """`what` is done; `total` of it, if that is known."""
        self._what = what
        self._total = total
        self._shown = 0.0
        self._wanted = sys.stderr.isatty()

    def at(self, done: int, note: str = "") -> None:
        """So many are done."""
        now = time.monotonic()
        if not self._wanted or now - self._shown < _BETWEEN:
            return
        self._shown = now
        sys.stderr.write(f"\r{line(self._what, done, self._total, note)}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._wanted and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def line(what: str, done: int, total: int | None, note: str = "") -> str:
    """What a person sees: `requeued [####    ] 50 of 100`."""
    tail = f"  {note}" if note else ""
    if not total:
        return f"{what} {done}{tail}"
    full = min(_WIDTH, _WIDTH * done // total)
    return f"{what} [{'#' * full}{' ' * (_WIDTH - full)}] {done} of {total}{tail}"


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Progress that is gone when the work is, however it ends."""
    shown = Progress(what, total)
    try:
        yield shown
    finally:
        shown.clear()
