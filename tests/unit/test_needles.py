"""Many needles at once find what a look at every place finds, whatever they have learned."""

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd import needles as module
from atlasd.needles import Found, Needles

DENSE = random.Random(7).randbytes(40_000)
"""A text in which no byte is rare."""


def everywhere(text: bytes, needles: Iterable[bytes]) -> list[Found]:
    return sorted(
        (at, at + len(needle), needle)
        for needle in needles
        for at in range(len(text))
        if text[at : at + len(needle)] == needle
    )


few_letters = st.binary(min_size=2, max_size=12).map(lambda raw: bytes(b"abcQ"[c % 4] for c in raw))
long_ones = st.binary(min_size=15, max_size=70)


@st.composite
def texts(draw: st.DrawFn) -> tuple[set[bytes], bytes]:
    needles = draw(st.sets(few_letters | long_ones, max_size=12))
    pieces = st.sampled_from(sorted(needles)) if needles else st.just(b"")
    halves = pieces.map(lambda needle: needle[: len(needle) // 2])
    parts = draw(st.lists(pieces | halves | st.binary(max_size=40) | few_letters, max_size=30))
    return needles, b"".join(parts)


@given(texts(), st.booleans())
def test_each_place_is_found_once(drawn: tuple[set[bytes], bytes], dense_first: bool) -> None:
    needles, text = drawn
    searched = Needles(needles)
    if dense_first:
        searched.search(DENSE)
    assert sorted(searched.search(text)) == everywhere(text, needles)


@pytest.mark.parametrize("length", [15, 22, 23, 24, 31, 32, 40, 71])
def test_by_words_a_needle_is_found_at_every_alignment(length: int) -> None:
    chance = random.Random(length)
    needles = [chance.randbytes(length) for _ in range(40)]
    searched = Needles(needles)
    searched.search(DENSE)
    assert searched._plan.words, "the long ones are not looked for by words"
    for before in range(70):
        for after in (0, 1, 7, 8, 30):
            text = bytes(before) + needles[before % 40] + bytes(after)
            found = searched.search(text)
            assert found == [(before, before + length, needles[before % 40])]


def test_one_that_stands_upon_itself_is_found_at_each_place() -> None:
    assert len(Needles([b"aaaaaa"]).search(b"a" * 10)) == 5


def test_needles_share_the_few_bytes_that_are_rare() -> None:
    needles = [b"common Q words", b"other Q words", b"and Q again", b"without any"]
    plan = Needles(needles)._plan
    assert list(plan.anchors) == [ord("Q")]
    assert list(plan.whole) == [b"without any"]


def test_a_byte_that_turns_out_frequent_is_given_up() -> None:
    searched = Needles([b"secret-Q-value", b"a Q it is"])
    assert list(searched._plan.anchors) == [ord("Q")]
    flood = b"Q" * 100_000
    assert searched.search(flood + b"secret-Q-value") == [
        (100_000, 100_014, b"secret-Q-value"),
    ]
    assert ord("Q") not in searched._plan.anchors


def test_what_a_search_looks_at_does_not_grow_with_the_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its speed, by counting: plans that are made, and places that are looked at, in a clean text.

    A place costs a hundred times what a byte costs that is passed over.
    """
    made = []
    real = module._plan

    def counted(*args: Any) -> Any:
        made.append(args)
        return real(*args)

    monkeypatch.setattr(module, "_plan", counted)
    chance = random.Random(1)
    symbols = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    searched = Needles(
        bytes(chance.choices(symbols, k=chance.randrange(20, 60))) for _ in range(300)
    )
    line = (
        b'2026-11-25T18:04:05 info shop.orders: order 1234 for customer 77 was paid {"ms": 12.5}\n'
    )
    text = line * 5000
    for _ in range(10):
        assert searched.search(text) == []
    assert len(made) <= 3
    plan = searched._plan
    places = sum(text.count(byte) for byte in plan.anchors)
    assert places < len(text) / 500
    assert len(plan.whole) < 5
