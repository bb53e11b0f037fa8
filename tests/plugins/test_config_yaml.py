"""The YAML source: the core rules of 1.2, true places, and nothing that is guessed at."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.contracts.config import KeyPath, Layer
from atlasd.errors import AtlasError
from atlasd_plugins.config_yaml import MOST_COPIES, parse

DOCUMENT = """\
# a comment
title: x
host: &host
  list: [1, [2,
    3], {a: 4, b: 'five'}]
  text: |
    first
    second
web:
- one
-   two: 2
    three: {}
again: *host
merged:
  <<: *host
  text: own
"""


def places(layer: Layer) -> dict[KeyPath, tuple[int, int]]:
    return {path: (at.line, at.column) for path, at in layer.values.items()}


def said(text: str) -> list[str]:
    found = []
    for fault in parse(text, "x").faults:
        path = ".".join(map(str, fault.path))
        found.append(f"{fault.where.line}:{fault.where.column}: {path}: {fault.got}")
    return found


def test_every_value_has_its_line_and_column() -> None:
    layer = parse(DOCUMENT, "x.yaml")
    host = {
        (): (3, 7),
        ("list",): (4, 9),
        ("list", 0): (4, 10),
        ("list", 1): (4, 13),
        ("list", 1, 0): (4, 14),
        ("list", 1, 1): (5, 5),
        ("list", 2): (5, 9),
        ("list", 2, "a"): (5, 13),
        ("list", 2, "b"): (5, 19),
        ("text",): (6, 9),
    }
    again = {("again", *path): at for path, at in host.items()} | {("again",): (13, 8)}
    merged = {("merged", *path): at for path, at in host.items()}
    assert places(layer) == {
        ("title",): (2, 8),
        **{("host", *path): at for path, at in host.items()},
        ("web",): (10, 1),
        ("web", 0): (10, 3),
        ("web", 1): (11, 5),
        ("web", 1, "two"): (11, 10),
        ("web", 1, "three"): (12, 12),
        **again,
        **merged,
        ("merged",): (15, 3),
        ("merged", "text"): (16, 9),
    }
    assert str(layer.keys["host", "list"]) == "x.yaml:4:3"
    assert str(layer.keys["merged", "list"]) == "x.yaml:4:3"


def test_aliases_are_values_of_their_own() -> None:
    layer = parse("a: &x {l: [1]}\nb: *x\n", "x")
    layer.data["a"]["l"].append(2)
    assert layer.data["b"] == {"l": [1]}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("12", 12),
        ("-3", -3), ("+4", 4), ("0", 0), ("0o17", 15), ("0xFf", 255), ("1.5", 1.5), (".5", 0.5),
        ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-2", -0.015), (".inf", float("inf")),
        ("-.INF", float("-inf")), ("2026-11-23", "2026-11-23"), ("abc", "abc"), ("'on'", "on"),
        ('"012"', "012"), ("y", "y"), ("n", "n"), ("1.2.3", "1.2.3"), ("10.0.0.1", "10.0.0.1"),
        ("0o8", "0o8"), ("tRue", "tRue"), ("! 5", "5"), ("!!str 5", "5"), ("!!str on", "on"),
        ("!!float 5", 5.0), ("12s", "12s"), ("127.0.0.1:80", "127.0.0.1:80"), ("=", "="),
        ("http://x:80/", "http://x:80/"),
    ],
)  # fmt: skip
def test_plain_words_mean_what_they_do_in_version_1_2(word: str, value: Any) -> None:
    layer = parse(f"a: {word}\n", "x")
    assert repr(layer.data) == repr({"a": value})
    assert layer.faults == ()


@pytest.mark.parametrize(
    "word",
    ["yes", "No", "ON", "off", "010", "-007", "0_1", "12:30", "1:2:3", "1_000", "1_0.5", "0b11"],
)
def test_what_two_versions_read_differently_is_refused(word: str) -> None:
    assert len(said(f"a: {word}\n")) == 1
    assert said(f"a: '{word}'\n") == []
    # It is a surprise to many programs indeed: to PyYAML it is no text.
    assert not isinstance(yaml.safe_load(f"a: {word}\n")["a"], str)


PLAIN = st.text(st.sampled_from("0123456789abefinouxyNOY.:_-+~e"), min_size=1, max_size=7)


@settings(max_examples=500)
@given(PLAIN)
def test_a_word_means_the_same_to_version_1_1_or_is_refused(word: str) -> None:
    """Dates, `0o17`, `1e3` and `-.5` are the exceptions: what 1.2 makes of them is no surprise."""
    try:
        layer = parse(f"a: {word}\n", "x")
        old = yaml.safe_load(f"a: {word}\n")
    except (AtlasError, yaml.YAMLError, ValueError):
        return
    new = layer.data.get("a")
    if layer.faults or not isinstance(old, dict):
        return
    if type(new) is not type(old["a"]) or (new != old["a"] and new == new):  # noqa: PLR0124 nan
        date = word.count("-") >= 2
        assert date or word.startswith(("0o", "-.", "+.")) or "e" in word.lower(), (new, old)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = "a: on\nb: !!python/name:os.system x\na: 1\nc: !unset {x: 1}\nd: !unset 5\n? e\n: 010\n"
    assert said(text) == [
        "1:4: a: a word that YAML 1.1 takes for true",
        "2:4: b: the tag !!python/name:os.system",
        "3:1: a: the same key as in line 1",
        "4:4: c: a table",
        "5:4: d: a value",
        "7:3: e: digits with a zero in front, octal in YAML 1.1",
    ]


@pytest.mark.parametrize("value", ["!unset", "!unset {}", "!unset []", "!unset ''"])
def test_unset_is_a_tag(value: str) -> None:
    layer = parse(f"a: {value}\nb: 1\n", "x")
    assert layer.data == {"a": {"unset": True}, "b": 1}
    assert layer.faults == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "x:1:1: expected settings, as `key: value`"),
        ("text\n", "x:1:1: expected settings, as `key: value`"),
        ("a: 1\n---\nb: 2\n", "x:2:1: a second document"),
        ("a: *b\n", "x:1:4: an alias of no anchor (*b)"),
        ("a: &b [*b]\n", "x:1:8: an alias of what it stands in"),
        ("? [a]\n: 1\n", "x:1:3: a list or a table as a key"),
        ("a: &b c\n*b : 1\n", "x:2:1: an alias as a key"),
        ("<<: 1\n", "x:1:5: expected a table, or a list of tables"),
        ("<<: !unset\n", "x:1:5: expected a table, or a list of tables"),
        ("a: 'b\n", "x:2:1: found unexpected end of stream"),
        ("a: b: c\n", "x:1:5: mapping values are not allowed in this context"),
        ("a:\n\t- b\n", "x:2:1: found character that cannot start any token"),
        ("a: \x07\n", "x:1:4: the character U+0007"),
        ("a: " + "[" * 300 + "]" * 300, "x:1:204: values nested too deeply"),
        ("a: " + "[" * 5000, "x:1:1003: exceeded maximum nesting depth"),
        ("a: " + "9" * 5000, "x:1:4: the number has too many digits"),
        ("größe: [ä, ö\n", "x:2:1: did not find expected ',' or ']'"),
    ],
)
def test_an_error_names_its_place(text: str, message: str) -> None:
    with pytest.raises(AtlasError) as caught:
        parse(text, "x")
    assert caught.value.code == "config.invalid"
    assert caught.value.message == message


def test_a_few_lines_do_not_become_billions() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(AtlasError, match=f"more than {MOST_COPIES} values"):
        parse("\n".join(lines), "x")
    merges = ["a0: &a0 {k0: x}"]
    merges += [f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
    with pytest.raises(AtlasError, match=f"more than {MOST_COPIES} values"):
        parse("\n".join(merges), "x")


NUMBER = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+|[-+]\.[0-9]+|0o[0-7]+")


SCALARS = st.one_of(
    # PyYAML writes the texts `1e3`, `-.5` and `0o7` without quotes, numbers in YAML 1.2.
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=6).filter(
        lambda text: NUMBER.fullmatch(text) is None
    ),
    st.integers(-(10**18), 10**18),
    st.booleans(),
    st.none(),
)
KEYS = st.text(st.sampled_from("abcxyz_-"), min_size=1, max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans())
def test_what_pyyaml_writes_is_read_back_with_a_place_for_each(data: Any, flow: bool) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True, sort_keys=False)
    layer = parse(text, "x")
    assert repr(layer.data) == repr(data)
    assert layer.data == data
    assert layer.faults == ()
    assert set(layer.values) == set(paths(data))
    lines = text.split("\n")
    for path, at in layer.keys.items():
        assert lines[at.line - 1][at.column - 1 :].lstrip("'\"? ").startswith(str(path[-1]))


def paths(data: Any, path: KeyPath = ()) -> list[KeyPath]:
    found = [path] if path else []
    items: Any = data.items() if isinstance(data, dict) else ()
    if isinstance(data, list):
        items = enumerate(data)
    for key, value in items:
        found += paths(value, (*path, key))
    return found


@settings(deadline=None)
@given(st.text(st.sampled_from(list("ab:-[]{}&*!<>|'\"#, \n\t1%@?~"))))
def test_any_text_is_read_or_explained(text: str) -> None:
    try:
        answer: Layer | AtlasError = parse(text, "x")
    except AtlasError as error:
        answer = error
    if isinstance(answer, AtlasError):
        assert answer.code == "config.invalid"
        assert answer.message.startswith(f"x:{answer.details['line']}:")
    else:
        assert isinstance(answer.data, dict)
