"""Comments of line-based files, each led to the key below it."""

from collections.abc import Collection, Mapping

from atlasd.contracts.config import KeyPath


def collect(
    text: str,
    keys: Mapping[KeyPath, int],
    *,
    marks: str,
    inside: Collection[int] = (),
) -> tuple[dict[KeyPath, tuple[str, ...]], tuple[str, ...]]:
    """The comments above each key, and those behind the last one.

    `keys` has the line, from 1, on which each key stands; `marks` are the characters that begin a
    comment; lines of `inside` belong to values, whatever they look like.
    """
    at: dict[int, KeyPath] = {}
    for path, on in keys.items():
        at.setdefault(on, path)
    found: dict[KeyPath, tuple[str, ...]] = {}
    waiting: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.strip()
        if number in at:
            if any(waiting):
                found[at[number]] = _trimmed(waiting)
            waiting = []
        elif number in inside:
            continue
        elif said and said[0] in marks:
            waiting.append(said[1:].removeprefix(" ").rstrip())
        elif not said and waiting:
            waiting.append("")
    return found, _trimmed(waiting)


def _trimmed(lines: list[str]) -> tuple[str, ...]:
    """Without empty lines before the first, and of several in a row only one."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return tuple(kept)
