"""In which spellings a value is looked for, and that encoders of this world write just these."""

import base64
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.spellings import LONGEST, READ, SHORTEST, as_bytes, spellings

values = (
    st.text(min_size=1, max_size=60).map(str.strip).filter(lambda v: len(v.encode()) >= SHORTEST)
)
neighbours = st.binary(max_size=7)


def hides(text: bytes, value: str | bytes) -> bool:
    """Whether something of the value is recognised in the text."""
    return any(spelling in text for spelling in spellings(value))


def single(value: str) -> bool:
    return "\n" not in value


@given(values.filter(single))
def test_as_it_is_and_escaped(value: str) -> None:
    found = spellings(value)
    for text in (
        value,
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote_plus(value),
        urllib.parse.quote(value, safe="!'()*"),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(value)[1:-1].replace("/", r"\/"),
        json.dumps(value, ensure_ascii=False)[1:-1].replace("/", r"\/"),
        repr(value)[1:-1],
    ):
        assert text.encode() in found, text


def test_escapes_are_written_in_capitals_or_not() -> None:
    found = spellings("søren/æ+å b")
    assert b"s%C3%B8ren%2F%C3%A6%2B%C3%A5+b" in found
    assert b"s%c3%b8ren%2f%c3%a6%2b%c3%a5%20b" in found
    assert rb"s\u00f8ren/\u00e6+\u00e5 b" in found
    assert rb"s\u00F8ren/\u00E6+\u00E5 b" in found
    assert rb"a\u003cb\u003e\u0026c" in spellings("a<b>&c")


@given(values, neighbours, neighbours)
def test_in_base64_whatever_stands_around_it(value: str, before: bytes, after: bytes) -> None:
    text = before + value.encode() + after
    assert hides(base64.b64encode(text), value)
    assert hides(base64.urlsafe_b64encode(text), value)


@given(values, neighbours, neighbours)
def test_in_hex_whatever_stands_around_it(value: str, before: bytes, after: bytes) -> None:
    text = (before + value.encode() + after).hex()
    assert hides(text.encode(), value)
    assert hides(text.upper().encode(), value)


@given(st.binary(min_size=6, max_size=50).map(bytes.strip).filter(lambda raw: len(raw) >= SHORTEST))
def test_bytes_that_are_no_text_are_known_too(raw: bytes) -> None:
    assert hides(raw.hex().encode(), raw)
    assert hides(base64.b64encode(b"x" + raw + b"yz"), raw)
    assert hides(raw, raw) or b"\n" in raw


@given(st.text() | st.binary())
def test_no_spelling_is_too_short_too_long_or_of_two_lines(value: str | bytes) -> None:
    for spelling in spellings(value):
        assert SHORTEST <= len(spelling) <= LONGEST
        assert b"\n" not in spelling


@pytest.mark.parametrize("value", ["", "five5", "     \n", "  ab  \n", b"\xff\xfe"])
def test_what_is_too_short_would_hide_too_much(value: str | bytes) -> None:
    assert spellings(value) == set()


def test_white_space_around_a_value_is_no_part_of_it() -> None:
    assert spellings("hunter22\n") == spellings("hunter22")


def test_each_line_of_several_counts_but_not_what_says_that_it_is_a_key() -> None:
    key = "-----BEGIN PRIVATE KEY-----\r\nMIIEvQIBADANBg/kq\r\nabc\r\n-----END PRIVATE KEY-----\r\n"
    found = spellings(key)
    assert b"MIIEvQIBADANBg/kq" in found
    assert rb"MIIEvQIBADANBg\/kq" in found
    assert b"MIIEvQIBADANBg%2Fkq" in found
    assert json.dumps(key.strip())[1:-1].encode() in found
    assert not {b"abc", b"-----BEGIN PRIVATE KEY-----"} & found


def test_of_a_json_object_the_members_that_are_secret_count() -> None:
    found = spellings('{"username": "application", "password": "hunter22/x", "port": 5432}')
    assert b"hunter22/x" in found
    assert b"application" not in found


def test_a_long_value_is_looked_for_in_pieces_that_leave_nothing_over() -> None:
    value = "".join(chr(33 + n * 7 % 90) for n in range(3000))
    assert hides(value.encode(), value)
    pieces = [s for s in spellings(value) if s in value.encode()]
    assert sum(map(len, pieces)) >= len(value)
    assert len(spellings("ab" * READ)) == len(spellings("ab" * (READ // 2)))


def test_any_text_has_bytes() -> None:
    assert as_bytes("a\udcffb") == b"a\xffb"
    assert as_bytes("a\ud800b") == b"a\xed\xa0\x80b"
    assert b"123456\xff" in spellings("123456\udcff")
