"""Text typed by what a schema expects."""

import json
import math
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.settings.typed import as_text, convert, kind_of


@pytest.mark.parametrize(
    ("text", "kinds", "value"),
    [
        ("8080", {"integer"}, 8080),
        (" 8080 ", {"integer"}, 8080),
        ("+5", {"integer"}, 5),
        ("007", {"integer"}, 7),
        ("1e3", {"number"}, 1000.0),
        ("5", {"number"}, 5),
        (".5", {"number"}, 0.5),
        ("yes", {"boolean"}, True),
        ("Off", {"boolean"}, False),
        ("1", {"boolean"}, True),
        ("1", {"boolean", "integer"}, 1),
        ("", {"integer", "null"}, None),
        ("null", {"object", "null"}, None),
        ('["a", 1]', {"array"}, ["a", 1]),
        ('{"a": 1}', {"object"}, {"a": 1}),
        # text stays text
        ("8080", {"string"}, "8080"),
        ("8080", {"string", "integer"}, "8080"),
        ("8080", set(), "8080"),
        # what does not fit stays, for the schema to say so
        ("80a", {"integer"}, "80a"),
        ("1.5", {"integer"}, "1.5"),
        ("maybe", {"boolean"}, "maybe"),
        ("[1", {"array"}, "[1"),
        ("[" * 100_000, {"array"}, "[" * 100_000),
        ("9" * 5000, {"integer"}, "9" * 5000),
        ("١٢", {"integer"}, "١٢"),
    ],
)
def test_text_becomes_what_is_expected(text: str, kinds: Collection[str], value: object) -> None:
    found = convert(text, kinds)
    assert found == value
    assert type(found) is type(value)


VALUES = st.recursive(
    st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_told_as_text_is_typed_back(value: object) -> None:
    found = convert(as_text(value), {kind_of(value)})
    assert found == value
    assert json.dumps(found) == json.dumps(value)


def test_text_is_told_as_it_stands_and_infinity_not_at_all() -> None:
    assert as_text('a "b"\n') == 'a "b"\n'
    with pytest.raises(ValueError, match="JSON"):
        as_text([math.inf])
