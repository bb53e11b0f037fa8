"""Known secret values taken out of text, in every usual spelling, even where a chunk cuts them."""

from bisect import bisect_right
from collections.abc import Iterable

from atlasd.needles import Needles
from atlasd.spellings import SHORTEST, spellings

HELD = 4
"""Lengths of the longest spelling that are held back at most, should one value go over into the
next again and again."""

_Place = tuple[int, int, str]
"""Beginning and end of what is to be hidden, and the name of the secret."""


class Redactor:
    """Puts `[secret:NAME]` in the place of values; see `spellings` for what is recognised.

    It never changes, so that threads and streams can share it. Where values overlap in a text all
    of it is hidden, under the name of the first.
    """

    def __init__(self, known: Iterable[tuple[str, str | bytes]] = ()) -> None:
        """`known`: names and values; of two names for one value the first counts."""
        self._names: dict[bytes, str] = {}
        for name, value in known:
            for spelling in spellings(value):
                self._names.setdefault(spelling, name)
        self._needles = Needles(self._names)
        self._ordered = sorted(self._names)
        self._longest = max(map(len, self._names), default=1)
        self._firsts = frozenset(spelling[0] for spelling in self._names)

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._names)

    def redact(self, text: bytes) -> bytes:
        """A whole text without the values; the very same object when there are none in it."""
        return _replaced(text, self._places(text)) if self._names else text

    def split(self, text: bytes) -> tuple[bytes, int]:
        """A text that will go on without the values; how many bytes at its end to hold back.

        They may be the beginning of a value: put them before what comes next. Nothing is held back
        after a newline, so a whole line never waits.
        """
        if not self._names:
            return text, 0
        places = self._places(text)
        keep = self._begun(text, 0)
        done = len(places)
        # What reaches into the part that is held back perhaps goes over into another value there.
        while done and places[done - 1][1] > keep:
            done -= 1
            keep = min(keep, places[done][0])
        if len(text) - keep > HELD * self._longest:
            done = len(places)
            keep = self._begun(text, places[-1][1])
        # Not cut off here: a copy of half a megabyte costs as much as the search.
        return _replaced(text, places[:done]), len(text) - keep

    def last(self, held: bytes) -> bytes:
        """What was held back, when nothing comes any more.

        The beginning of a value is hidden as the value would be, if it is long enough to say much.
        """
        places = self._places(held)
        begun = self._begun(held, 0)
        if len(held) - begun >= SHORTEST:
            places = _merged([*places, (begun, len(held), self._names[self._next(held[begun:])])])
        return _replaced(held, places)

    def _places(self, text: bytes) -> list[_Place]:
        names = self._names
        found = self._needles.search(text)
        return _merged([(start, end, names[needle]) for start, end, needle in found])

    def _begun(self, text: bytes, start: int) -> int:
        """Where, from `start` on, what could be the beginning of a value begins; or the end."""
        end = len(text)
        start = max(start, text.rfind(b"\n") + 1, end - self._longest + 1)
        for at in range(start, end):
            if text[at] in self._firsts and self._next(text[at:]):
                return at
        return end

    def _next(self, beginning: bytes) -> bytes:
        """A spelling that begins so and goes on; empty if there is none."""
        at = bisect_right(self._ordered, beginning)
        if at < len(self._ordered) and self._ordered[at].startswith(beginning):
            return self._ordered[at]
        return b""


class Flow:
    """A text that comes in pieces, redacted as it comes."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be passed on; the rest follows with the next piece, or at the end."""
        text, held = self._redactor.split(self._held + piece)
        end = len(text) - held
        self._held = text[end:]
        return text[:end]

    def end(self) -> bytes:
        """What was held back: nothing comes any more."""
        held, self._held = self._held, b""
        return self._redactor.last(held) if held else b""


def label(name: str) -> str:
    """What stands in the place of a value."""
    return f"[secret:{name}]" if name.isprintable() else "[secret]"


def _merged(places: list[_Place]) -> list[_Place]:
    """In order; those that overlap as one."""
    places.sort(key=lambda place: (place[0], -place[1]))
    merged: list[_Place] = []
    for start, end, name in places:
        if merged and start < merged[-1][1]:
            if end > merged[-1][1]:
                merged[-1] = (merged[-1][0], end, merged[-1][2])
        else:
            merged.append((start, end, name))
    return merged


def _replaced(text: bytes, places: Iterable[_Place]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for start, end, name in places:
        parts += (text[at:start], label(name).encode(errors="replace"))
        at = end
    return b"".join((*parts, text[at:])) if parts else text
