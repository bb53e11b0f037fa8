"""The JSON source: the standard library's result, and the right place for everything in it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError
from atlasd_plugins.config_json import parse

SCALARS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)


def leaves(data: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    found = [(path, data)] if path else []
    items: Any = data.items() if isinstance(data, dict) else ()
    if isinstance(data, list):
        items = enumerate(data)
    for key, value in items:
        found += leaves(value, (*path, key))
    return found


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=4), VALUES), st.sampled_from([None, 0, 2]), st.booleans())
def test_the_data_is_the_standard_librarys_and_every_place_is_true(
    data: Any, indent: int | None, escaped: bool
) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=escaped)
    layer = parse(text, "x")
    assert repr(layer.data) == repr(json.loads(text))
    assert set(layer.values) == {path for path, _ in leaves(data)}
    lines = text.split("\n")
    decoder = json.JSONDecoder()
    for path, value in leaves(layer.data):
        at = layer.values[path]
        rest = "\n".join([lines[at.line - 1][at.column - 1 :], *lines[at.line :]])
        assert repr(decoder.raw_decode(rest)[0]) == repr(value)
        if isinstance(path[-1], str):
            key = layer.keys[path]
            rest = "\n".join([lines[key.line - 1][key.column - 1 :], *lines[key.line :]])
            assert decoder.raw_decode(rest)[0] == path[-1]


@settings(max_examples=300)
@given(st.text(st.sampled_from(list('{}[]",:\\ \nabtrue01.-e'))).map(lambda text: "{" + text))
def test_any_text_is_judged_as_the_standard_library_judges_it(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(AtlasError) as caught:
            parse(text, "x")
        assert caught.value.message.startswith(f"x:{caught.value.details['line']}:")
    else:
        assert parse(text, "x").data == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[1]", "x:1:1: expected an object", ""),
        ("\ufeff{}", "x:1:1: expected an object", "byte order mark"),
        ("{'a': 1}", "x:1:2: expected a key in quotes", "double quotes"),
        ('{"a": 1,\n}', "x:1:8: a comma before }", "remove it"),
        ('{"a": [1,]}', "x:1:9: a comma before ]", "remove it"),
        ("{\n  // no\n}", "x:2:3: expected a key in quotes", "no comments"),
        ('{"a": True}', "x:1:7: expected a value", "true, false and null"),
        ('{"a": NaN}', "x:1:7: expected a value", "true, false and null"),
        ('{"a": 01}', "x:1:7: expected a value", "zero"),
        ('{"a": 1', "x:1:8: expected a comma or }", "ends too early"),
        ('{"a": "b\nc"}', "x:1:9: invalid control character", "\\n"),
        ('{"a": "\\ud800"}', "x:1:7: half a character (a lone surrogate)", "itself"),
        ('{"a": 1} 2', "x:1:10: more after the end of the object", "one object"),
        ('{"a" 1}', "x:1:6: expected a colon after the key", '"key"'),
        ('{"a": ' + "[" * 5000, "x:1:207: values nested too deeply", "fewer"),
        ('{"a": ' + "9" * 5000 + "}", "x:1:7: the number has too many digits", ""),
    ],
)  # fmt: skip
def test_an_error_names_its_place_and_what_to_do(text: str, message: str, hint: str) -> None:
    with pytest.raises(AtlasError) as caught:
        parse(text, "x")
    assert caught.value.code == "config.invalid"
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_key_that_stands_twice_is_a_fault_with_both_places() -> None:
    layer = parse('{"a": 1,\n "b": {"c": 1, "c": 2},\n "a": 3}', "x")
    assert [(str(fault.where), fault.path, fault.got) for fault in layer.faults] == [
        ("x:2:16", ("b", "c"), "the same key as in line 2"),
        ("x:3:2", ("a",), "the same key as in line 1"),
    ]


def test_whole_characters_may_be_written_as_two_escapes() -> None:
    assert parse('{"a": "\\ud83d\\ude00"}', "x").data == {"a": "😀"}
