"""Files of JSON, an object a line, sent in pieces that a request may have."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from atlasd.errors import AtlasError

PIECE = 1000
"""Lines of one request."""
BYTES = 2 * 1024 * 1024
"""Characters of one request: escaped they become a few times as many bytes at most."""


class Line(NamedTuple):
    """One line of a file."""

    number: int
    """From 1."""
    body: dict[str, Any]
    length: int


@contextmanager
def opened(path: str) -> Iterator[TextIO]:
    """A file to be read, or standard input for `-`. Raises `AtlasError` `usage`."""
    if path == "-":
        yield sys.stdin
        return
    try:
        file = Path(path).open(encoding="utf-8")  # noqa: SIM115  closed below
    except OSError as error:
        raise AtlasError(
            "usage", f"{path} cannot be read: {error.strerror}", hint="`-` is standard input"
        ) from None
    with file:
        yield file


def read(file: Iterable[str], name: str) -> list[Line]:
    """Every line that is not empty; raises `AtlasError` `usage` with the number of a bad one."""
    found = []
    number = 0
    try:
        for number, text in enumerate(file, 1):
            if text.strip():
                found.append(Line(number, _object(text), len(text)))
    except UnicodeDecodeError:
        raise AtlasError(
            "usage", f"{name}, line {number + 1}: no UTF-8",
            hint="nothing was done; is it a file of JSON lines?",
        ) from None  # fmt: skip
    except ValueError as error:
        raise AtlasError(
            "usage", f"{name}, line {number}: {error}",
            hint="nothing was done; each line is one JSON object",
        ) from None  # fmt: skip
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(body, dict):
        raise ValueError("expected an object")
    return body


def pieces(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The lines in runs that fit one request; a run has no gap, so that numbers stay right."""
    piece: list[Line] = []
    length = 0
    for line in lines:
        gap = piece and line.number != piece[-1].number + 1
        if piece and (gap or len(piece) >= PIECE or length + line.length > BYTES):
            yield piece
            piece, length = [], 0
        piece.append(line)
        length += line.length
    if piece:
        yield piece
