"""Tables, colours, sizes and times for people; nothing that a terminal is needed for."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TextIO

_CODES = {"green": "32", "red": "31", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}

STATE_COLOURS = {
    "running": "green",
    "exited": "green",
    "pass": "green",
    "admitted": "green",
    "starting": "cyan",
    "reloading": "cyan",
    "stopping": "cyan",
    "waiting": "yellow",
    "backoff": "yellow",
    "warn": "yellow",
    "failing": "yellow",
    "unknown": "dim",
    "stopped": "dim",
    "failed": "red",
    "lost": "red",
    "fail": "red",
    "refused": "red",
    "ok": "green",
    "completed": "green",
    "degraded": "yellow",
    "stalled": "red",
    "dead": "red",
}
"""The colour of each word that says how something is."""


def coloured(stream: TextIO) -> bool:
    """Whether a stream is to have colours: a terminal that can, and nobody said NO_COLOR."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: str, *, wanted: bool) -> str:
    """The text in a colour, if colours are wanted and there is one of that name."""
    code = _CODES.get(colour)
    return f"\x1b[{code}m{text}\x1b[0m" if wanted and code and text else text


def word(text: str, *, stream: TextIO | None = None) -> str:
    """A state's word in its colour, where standard output (or `stream`) shows colours."""
    return paint(text, STATE_COLOURS.get(text, ""), wanted=coloured(stream or sys.stdout))


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    colours: bool | None = None,
) -> str:
    """Rows under their titles, each column as wide as it must be; ends with a newline.

    Columns named in `right` are aligned to the right. Cells that are a state's word get its
    colour, by default where standard output shows colours.
    """
    wanted = coloured(sys.stdout) if colours is None else colours
    widths = [
        max(len(title), *(len(row[i]) for row in rows)) if rows else len(title)
        for i, title in enumerate(titles)
    ]
    lines = []
    for number, row in enumerate((titles, *rows)):
        cells = []
        for i, cell in enumerate(row):
            padded = cell.rjust(widths[i]) if titles[i] in right else cell.ljust(widths[i])
            if wanted:
                colour = "bold" if number == 0 else STATE_COLOURS.get(cell, "")
                padded = paint(padded, colour, wanted=True)
            cells.append(padded)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def moment(text: str) -> datetime:
    """A time of the control socket's answers."""
    return datetime.fromisoformat(text)


def since(text: str, now: datetime | None = None) -> str:
    """How long ago a time of the control socket's answers is: `3m12s`."""
    passed = (now or datetime.now(UTC)) - moment(text)
    return duration(passed.total_seconds())


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `400ms`, `1.5s`, `12s`, `3m12s`, `2h05m`."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def size(count: int | None) -> str:
    """Bytes in the largest unit that leaves a number above one: `5.0MiB`; empty for None."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}TiB"


def count(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: `1 instance`, `2 instances`."""
    return f"{number} {one if number == 1 else several or one + 's'}"
