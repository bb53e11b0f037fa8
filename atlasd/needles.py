"""Many byte strings looked for at once, for when next to none is there.

What costs is not the hit but the proof, for every byte of output, that there is none; and five
secrets have some forty spellings. Of all that the standard library offers, in nanoseconds a byte:

    re, an alternation of all of them         5 - 9    for a set of first bytes alone
    bytes.find of each of forty               4 - 8    0.1 for a long one, 0.5 for a short one
    bytes.translate, to drop what is common   0.4 - 1  and the rest is still to be searched
    a set of eight-byte words, one in n bytes 35 / n   by isdisjoint; needles of n + 7 bytes
    bytes.find of a single byte               0.015    that is memchr; each hit costs 300 more

So a needle is looked for by a byte that is rare, and most needles share a few: of forty, some five
bytes are left, capitals and signs. Which bytes are rare is guessed first and then learned from the
text itself. Needles of common bytes only, as lower case hex is, are looked for whole; where that
becomes dear, the long ones all together by words. A clean text costs about one nanosecond a byte
for five secrets, and two for fifty.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

Found = tuple[int, int, bytes]
"""Where a needle stands: its beginning, its end, and which it is."""

_HIT = 300.0
"""Nanoseconds that it takes to look at one place where a rare byte stands."""
_MEMCHR = 0.02
_WORD = 8
_SAMPLE = 35.0
"""Nanoseconds that it takes to look at one word."""
_STRIDES = (1, 2, 3)
"""A needle counts as long when it holds a whole word wherever each, every second or every third
word of a text is looked at."""
_WIDEST = 8
_LEARNED = 8192
"""Bytes of a text by which it is learned how frequent each byte is."""
_SURPRISE = 2000
"""A byte in so many: a rare one that is more frequent, and was not known to be, is reported."""
_FREQUENT = (
    (0.12, b" "),
    (0.05, b"etaoinsr"),
    (0.03, b'lhdcu01"'),
    (0.015, b"mpgfwybv23456789:.,-/"),
    (0.007, b"=_{}[]()T"),
    (0.003, b"kxjqz"),
    (0.001, b"AEINORSLCDMPZ\\%"),
)
"""How often bytes stand in what programs say, roughly; the rest is rarer."""
_RARE = 0.0003


class Needles:
    """Byte strings of at least two bytes each; `search` says where they stand in a text."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        # Of each the bytes that it can be looked for by: all but the last, as another byte has to
        # follow, by which most places are dismissed.
        self._choices = {needle: frozenset(needle[:-1]) for needle in sorted(needles)}
        rates = [_RARE] * 256
        for rate, them in _FREQUENT:
            for byte in them:
                rates[byte] = rate
        self._rates = rates
        self._learned = False
        self._plan = _plan(self._choices, rates)

    def search(self, text: bytes) -> list[Found]:
        """Every place of every needle, those too that overlap, in no order."""
        plan = self._plan
        found = plan.by_bytes(text, 64 + len(text) // _SURPRISE)
        if found is None:
            self._learn(text)
            plan = self._plan
            found = plan.by_bytes(text, len(text)) or []
        for needle in plan.whole:
            at = text.find(needle)
            while at >= 0:
                found.append((at, at + len(needle), needle))
                at = text.find(needle, at + 1)
        if plan.words:
            plan.by_words(text, found)
        return found

    def _learn(self, text: bytes) -> None:
        """A byte that was thought rare is not, in this text: look at all of them, and plan anew."""
        # Pieces from all over it: every n-th byte could be the same column of each line.
        piece = max(1, _LEARNED // 8)
        sample = b"".join(text[at : at + piece] for at in range(0, len(text), len(text) // 8 + 1))
        counts = Counter(sample)
        guessed, self._learned = not self._learned, True
        for byte, rate in enumerate(self._rates):
            # What was only guessed is trusted less than the text. From then on rates only rise, so
            # that texts that alternate come to an end of plans.
            self._rates[byte] = max(counts[byte] / len(sample), rate / 8 if guessed else rate)
        for byte in self._plan.anchors:
            self._rates[byte] = max(self._rates[byte], text.count(byte) / len(text))
        self._plan = _plan(self._choices, self._rates)


class _Anchor:
    """Needles that are looked for by one byte."""

    __slots__ = ("nexts", "pairs", "rate")

    def __init__(self, byte: int, rate: float, needles: Iterable[bytes]) -> None:
        self.rate = rate
        self.nexts: set[int] = set()
        """Bytes that may follow it: most places are dismissed by this."""
        self.pairs: dict[bytes, list[tuple[int, bytes]]] = {}
        """By the byte and the next: where in which needle they stand."""
        for needle in needles:
            at = needle.index(byte)
            self.nexts.add(needle[at + 1])
            self.pairs.setdefault(needle[at : at + 2], []).append((at, needle))


class _Plan:
    """By what each needle is looked for."""

    def __init__(
        self,
        anchors: Mapping[int, _Anchor],
        whole: Sequence[bytes],
        sampled: Sequence[bytes],
    ) -> None:
        self.anchors = anchors
        self.whole = whole
        self._stride = _stride(sampled)
        self._words: dict[int, list[tuple[int, bytes]]] = {}
        """By a word: where in which needle it stands."""
        for needle in sampled:
            # Whatever place a needle has in a text, one word of these is among those looked at.
            for at in range(self._stride * _WORD):
                word = int.from_bytes(needle[at : at + _WORD], sys.byteorder)
                self._words.setdefault(word, []).append((at, needle))
        self.words = frozenset(self._words)

    def by_bytes(self, text: bytes, most: int) -> list[Found] | None:
        """What is found by rare bytes. None: one is not rare, as more than `most` places show."""
        found: list[Found] = []
        find, last = text.find, len(text) - 1
        for byte, anchor in self.anchors.items():
            nexts, hits = anchor.nexts, 0
            at = find(byte)
            while 0 <= at < last:
                hits += 1
                if text[at + 1] in nexts:
                    for before, needle in anchor.pairs.get(text[at : at + 2], ()):
                        start = at - before
                        if start >= 0 and text.startswith(needle, start):
                            found.append((start, start + len(needle), needle))
                if hits > most and hits > 2 * anchor.rate * at:
                    return None
                at = find(byte, at + 1)
        return found

    def by_words(self, text: bytes, found: list[Found]) -> None:
        """Add what is found by words."""
        words = memoryview(text)[: len(text) // _WORD * _WORD].cast("Q")[:: self._stride]
        if not self.words.isdisjoint(words):
            for number, word in enumerate(words):
                for before, needle in self._words.get(word, ()):
                    start = number * self._stride * _WORD - before
                    if start >= 0 and text.startswith(needle, start):
                        found.append((start, start + len(needle), needle))


def _stride(needles: Iterable[bytes]) -> int:
    """Of how many words one is looked at, so that none of the needles is missed."""
    shortest = min(map(len, needles), default=0)
    return max(1, min((shortest - _WORD + 1) // _WORD, _WIDEST))


_Choices = Mapping[bytes, frozenset[int]]


def _plan(choices: _Choices, rates: Sequence[float]) -> _Plan:
    """What is likely to cost least, if bytes are as frequent as that."""
    shares, whole, cost = _cover(choices, rates)
    ways = [(cost, shares, whole, list[bytes]())]
    for stride in _STRIDES:
        length = (stride + 1) * _WORD - 1
        # Either what rare bytes leave over is looked for by words, if it is long enough. Or, for a
        # text where no byte is rare, as in base64, all that is long enough.
        rest = [needle for needle in whole if len(needle) < length]
        sampled = [needle for needle in whole if len(needle) >= length]
        ways.append((cost - _cost_of(sampled) + _cost_of_words(sampled), shares, rest, sampled))
        sampled = [needle for needle in choices if len(needle) >= length]
        by_words = _cost_of_words(sampled)
        if sampled and by_words < cost:
            short = {needle: choice for needle, choice in choices.items() if len(needle) < length}
            others = _cover(short, rates)
            ways.append((others[2] + by_words, others[0], others[1], sampled))
    _, shares, whole, sampled = min(ways, key=itemgetter(0))
    return _Plan(
        {byte: _Anchor(byte, rates[byte], them) for byte, them in shares.items()}, whole, sampled
    )


def _cover(
    choices: _Choices, rates: Sequence[float]
) -> tuple[dict[int, list[bytes]], list[bytes], float]:
    """Needles by the bytes they are to be looked for by; those that are not; and what it costs.

    The byte comes first that saves most for what it costs (the greedy cover of sets).
    """
    left = dict(choices)
    saved = [0.0] * 256
    for needle, choice in left.items():
        cost = _cost_of_find(len(needle))
        for byte in choice:
            saved[byte] += cost
    costs = [_cost_of_byte(rate) for rate in rates]
    shares: dict[int, list[bytes]] = {}
    total = 0.0
    while left:
        byte = max(range(256), key=lambda byte: saved[byte] / costs[byte])
        if saved[byte] <= costs[byte]:
            break
        shares[byte] = [needle for needle, choice in left.items() if byte in choice]
        total += costs[byte]
        for needle in shares[byte]:
            cost = _cost_of_find(len(needle))
            for other in left.pop(needle):
                saved[other] -= cost
    return shares, list(left), total + _cost_of(left)


def _cost_of_byte(rate: float) -> float:
    return _MEMCHR + rate * _HIT


def _cost_of(needles: Iterable[bytes]) -> float:
    return sum(_cost_of_find(len(needle)) for needle in needles)


def _cost_of_words(needles: Sequence[bytes]) -> float:
    return _SAMPLE / (_stride(needles) * _WORD) if needles else 0.0


def _cost_of_find(length: int) -> float:
    return 0.05 + 3.0 / length
