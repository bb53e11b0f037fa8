"""Values are hidden in every listed spelling, however the text is cut, and nothing else is."""

import base64
import itertools
import json
import re
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.redaction import HELD, Flow, Redactor, label
from atlasd.spellings import SHORTEST, spellings

SECRETS = {
    "db": "hunter22+/pass word?",
    "token": "hunter22",  # which the other one begins with
    "key": "first line of it\nand the second/line\nno\n",
    "chain": "abcabcabc",  # which can go over into itself
    "over": "cabcabXY",
    "utf": "pässwörd€",
}
LABEL = re.compile(rb"\[secret:\w+\]")
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda raw: raw,
    "url": lambda raw: urllib.parse.quote_plus(raw).encode(),
    "url_lower": lambda raw: re.sub(
        "%..", lambda found: found[0].lower(), urllib.parse.quote(raw)
    ).encode(),
    "json": lambda raw: json.dumps(raw.decode())[1:-1].encode(),
    "json_slash": lambda raw: json.dumps(raw.decode())[1:-1].replace("/", r"\/").encode(),
    "hex": lambda raw: raw.hex().encode(),
    "hex_upper": lambda raw: raw.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64_1": lambda raw: base64.b64encode(b"x" + raw + b"y"),
    "base64_2": lambda raw: base64.urlsafe_b64encode(b"xy" + raw + b"yz"),
}


NAMES = {s: name for name, value in reversed(SECRETS.items()) for s in spellings(value)}
REDACTOR = Redactor(SECRETS.items())


def naive(text: bytes) -> bytes:
    """The same by the plainest means: every place of every spelling covers its bytes."""
    places = sorted(
        (at, -len(spelling), name)
        for spelling, name in NAMES.items()
        if spelling in text
        for at in range(len(text))
        if text.startswith(spelling, at)
    )
    redacted, end = b"", 0
    for at, minus, name in places:
        if at >= end:
            redacted += text[end:at] + label(name).encode()
        end = max(end, at - minus)
    return redacted + text[end:]


def survives(redacted: bytes) -> list[bytes]:
    """The spellings that stand in what is left of a text."""
    return [spelling for part in LABEL.split(redacted) for spelling in NAMES if spelling in part]


@st.composite
def outputs(draw: st.DrawFn) -> bytes:
    """Text with values in it, whole and begun, in every spelling."""
    whole = st.sampled_from(sorted(NAMES))
    begun = st.tuples(whole, st.integers(1, 20)).map(lambda pair: pair[0][: pair[1]])
    other = st.binary(max_size=12) | st.sampled_from([b"\n", b" ", b"abc", b"password="])
    return b"".join(draw(st.lists(whole | begun | other, max_size=14)))


def cut(text: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(at)] or [b""]


@given(outputs())
def test_a_text_is_redacted_as_by_the_plainest_means(text: bytes) -> None:
    assert REDACTOR.redact(text) == naive(text)


@given(outputs(), st.lists(st.integers(0, 500), max_size=12))
def test_where_it_is_cut_makes_no_difference(text: bytes, places: list[int]) -> None:
    flow = Flow(REDACTOR)
    come = b"".join(map(flow.feed, cut(text, places))) + flow.end()
    once = Flow(REDACTOR)
    assert come == once.feed(text) + once.end()
    if text.endswith(b"\n"):
        assert come == naive(text)


@given(outputs())
def test_byte_by_byte_no_value_survives(text: bytes) -> None:
    flow = Flow(REDACTOR)
    come = b"".join(flow.feed(text[at : at + 1]) for at in range(len(text))) + flow.end()
    assert survives(come) == []


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", SECRETS)
@settings(max_examples=20)
@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_no_value_survives_in_any_listed_encoding(
    name: str, encoder: str, before: bytes, after: bytes
) -> None:
    value = SECRETS[name].strip().encode()
    if "base64" in encoder or "hex" in encoder:
        text = ENCODERS[encoder](before + value + after)
    else:
        text = before + ENCODERS[encoder](value) + after
    redacted = REDACTOR.redact(text)
    assert LABEL.search(redacted)
    assert survives(redacted) == []


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=5))
def test_what_holds_no_value_comes_through_byte_for_byte(text: bytes, places: list[int]) -> None:
    redactor = Redactor([("never", "\x00not\x01in\x02there\x03 at all")])
    flow = Flow(redactor)
    assert b"".join(map(flow.feed, cut(text, places))) + flow.end() == text
    assert redactor.redact(text) is text


def test_a_value_within_another_leaves_nothing_of_it_behind() -> None:
    redactor = Redactor([("short", "abcdef"), ("long", "abcdefghij")])
    assert redactor.redact(b"abcdefghij abcdef") == b"[secret:long] [secret:short]"


def test_values_that_overlap_are_hidden_whole() -> None:
    redactor = Redactor([("a", "xxabcd"), ("b", "abcdefghijklmnop")])
    assert redactor.redact(b"<xxabcdefghijklmnop>") == b"<[secret:a]>"


def test_a_whole_line_never_waits_and_a_prompt_waits_only_for_what_could_be_a_value() -> None:
    flow = Flow(Redactor([("db", "hunter22")]))
    assert flow.feed(b"one\ntwo hunt\n") == b"one\ntwo hunt\n"
    assert flow.feed(b"Continue? [y/n] ") == b"Continue? [y/n] "
    assert flow.feed(b"with h") == b"with "
    assert flow.feed(b"ope") == b"hope"


def test_at_the_end_a_begun_value_is_hidden_if_it_says_much() -> None:
    redactor = Redactor([("db", "hunter22 is long")])
    for text, told in ((b"x hunte", b"x hunte"), (b"x hunter", b"x [secret:db]")):
        flow = Flow(redactor)
        assert flow.feed(text) + flow.end() == told


def test_what_is_held_back_has_a_limit() -> None:
    flow = Flow(Redactor([("a", "a" * SHORTEST)]))
    longest = max(map(len, spellings("a" * SHORTEST)))
    come = b""
    for _ in range(20 * longest):
        come += flow.feed(b"a")
        assert len(flow._held) <= HELD * longest
    assert re.fullmatch(rb"(\[secret:a\])+a{0,5}", come + flow.end())
    assert come


def test_one_value_under_two_names_goes_by_the_first() -> None:
    assert Redactor([("a", "hunter22"), ("b", "hunter22")]).redact(b"hunter22") == b"[secret:a]"


def test_a_name_that_does_not_print_is_left_out() -> None:
    assert label("a\nb") == "[secret]"


def test_without_secrets_nothing_happens() -> None:
    redactor = Redactor()
    assert not redactor
    assert redactor.redact(b"text") == b"text"
    assert redactor.split(b"text") == (b"text", 0)
    assert redactor.last(b"text") == b"text"
