"""The TOML source: the standard library's result, and the right place for everything in it."""

import importlib.util
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.contracts.config import KeyPath, Layer
from atlasd.errors import AtlasError
from atlasd_plugins.config_toml import parse

DOCUMENT = """\
title = "x"  # a comment
plain.dotted.key = 1

[host]
list = [1, [2,
  3], { a = 4, b.c = 'five' }]

[services.web]
  sockets."http x" = "tcp://127.0.0.1:80"
text = \"\"\"
first
second\"\"\"
after = true

[[checks]]
name = "one"
[[checks.on]]
day = 2026-11-23
[[checks]]
name = "two"

[services]
db = {}
"""


def places(layer: Layer) -> dict[KeyPath, tuple[int, int]]:
    return {path: (at.line, at.column) for path, at in layer.values.items()}


def paths_in(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from paths_in(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from paths_in(value, (*path, index))


def test_every_value_has_its_line_and_column() -> None:
    layer = parse(DOCUMENT, "shop.toml")
    assert places(layer) == {
        ("title",): (1, 9),
        ("plain",): (2, 1),
        ("plain", "dotted"): (2, 7),
        ("plain", "dotted", "key"): (2, 20),
        ("host",): (4, 2),
        ("host", "list"): (5, 8),
        ("host", "list", 0): (5, 9),
        ("host", "list", 1): (5, 12),
        ("host", "list", 1, 0): (5, 13),
        ("host", "list", 1, 1): (6, 3),
        ("host", "list", 2): (6, 7),
        ("host", "list", 2, "a"): (6, 13),
        ("host", "list", 2, "b"): (6, 16),
        ("host", "list", 2, "b", "c"): (6, 22),
        ("services",): (8, 2),
        ("services", "web"): (8, 11),
        ("services", "web", "sockets"): (9, 3),
        ("services", "web", "sockets", "http x"): (9, 22),
        ("services", "web", "text"): (10, 8),
        ("services", "web", "after"): (13, 9),
        ("checks",): (15, 3),
        ("checks", 0): (15, 3),
        ("checks", 0, "name"): (16, 8),
        ("checks", 0, "on"): (17, 10),
        ("checks", 0, "on", 0): (17, 10),
        ("checks", 0, "on", 0, "day"): (18, 7),
        ("checks", 1): (19, 3),
        ("checks", 1, "name"): (20, 8),
        ("services", "db"): (23, 6),
    }


def test_every_key_has_its_line_and_column() -> None:
    layer = parse(DOCUMENT, "shop.toml")
    at = {path: (place.line, place.column) for path, place in layer.keys.items()}
    assert at["plain", "dotted", "key"] == (2, 14)
    assert at["host", "list", 2, "b", "c"] == (6, 18)
    assert at["services", "web", "sockets", "http x"] == (9, 11)
    assert at["checks", 1, "name"] == (20, 1)
    assert at["services",] == (8, 2)
    assert {path for path in paths_in(layer.data) if isinstance(path[-1], str)} == set(at)


def test_windows_line_ends_shift_nothing() -> None:
    assert places(parse(DOCUMENT.replace("\n", "\r\n"), "x")) == places(parse(DOCUMENT, "x"))


def test_columns_count_characters() -> None:
    layer = parse('"größe" = [ "ä", 1 ]', "x")
    assert str(layer.where(("größe", 1))) == "x:1:18"


def test_what_has_no_position_gets_that_of_what_is_around_it() -> None:
    layer = parse("[a]\nb = 1\n", "x.toml")
    assert str(layer.where(("a", "missing", 3))) == "x.toml:1:2"
    assert str(layer.where_key(("a", "b"))) == "x.toml:2:1"
    assert str(layer.where(())) == "x.toml"
    assert str(layer.where(("elsewhere",))) == "x.toml"


# --- generated documents: a writer that knows what it wrote, in every form that TOML has

bare = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=6)
quoted = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=6)


def written_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


keys = bare | quoted.map(written_string)
scalars = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.sampled_from(["true", "false", "inf", "-1.5e3", "0xff", "1979-05-27T07:32:00Z", "07:32:00"]),
    quoted.map(written_string),
    st.just("'literal # [x]'"),
    st.just('"""\nmany = 1\nlines"""'),
)
gaps = st.sampled_from(["", " ", "\n", "  # note, [not] = code\n "])


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(st.tuples(gaps, inner, gaps), max_size=4))
    return "[" + ",".join(before + item + after for before, item, after in items) + "]"


@st.composite
def inline_tables(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    names = draw(st.lists(keys, max_size=3, unique_by=key_of))
    pairs = [f" {draw(dotted(name))} = {draw(inner)} " for name in names]
    return "{" + ",".join(pairs) + "}"


def dotted(first: str) -> st.SearchStrategy[str]:
    return st.lists(keys, max_size=2).map(lambda rest: " . ".join([first, *rest]))


def key_of(written: str) -> str:
    return next(iter(tomllib.loads(f"{written} = 1")))


values = st.recursive(scalars, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=12)


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for header in [None, *draw(st.lists(keys, max_size=4, unique_by=key_of))]:
        repeats = 1
        if header is not None and draw(st.booleans()):
            repeats = draw(st.integers(1, 3))
            opening = f"[[ {header} ]]"
        else:
            opening = "" if header is None else f"[{header}]"
        for _ in range(repeats):
            if opening:
                lines.append(opening)
            names = draw(st.lists(keys, max_size=4, unique_by=key_of))
            # A key outside all tables must not be a table's name too: hence the prefix.
            for name in names:
                key = draw(dotted(name if opening else f'"top".{name}'))
                lines.append(f"{draw(st.sampled_from(['', '  ']))}{key} = {draw(values)}  # end")
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def leaves(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list) and data:
        for index, value in enumerate(data):
            yield from leaves(value, (*path, index))
    elif path:
        yield path, data


@settings(deadline=None)  # the check of positions parses many times; the machine may be busy
@given(documents())
def test_generated_documents_give_the_same_data_and_true_positions(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(AtlasError):
            parse(text, "x")
        return
    layer = parse(text, "x")
    assert repr(layer.data) == repr(expected)
    assert set(layer.values) == set(paths_in(expected))
    lines = text.replace("\r\n", "\n").split("\n")
    for path, value in leaves(expected):
        at = layer.values[path]
        rest = "\n".join([lines[at.line - 1][at.column - 1 :], *lines[at.line :]])
        if value == {} and not rest.startswith("{"):  # an empty table with a header of its own
            assert key_of(rest.split("\n")[0].rstrip("] ")) == path[-1 - isinstance(path[-1], int)]
        else:
            assert repr(first_value(rest)) == repr(value), (path, at)


def first_value(text: str) -> Any:
    """The value that a text begins with: the longest way of cutting it that is one."""
    ends = [i for i in range(len(text) + 1) if i == len(text) or text[i] in ",]} \n#"]
    for end in reversed(ends):
        try:
            found = tomllib.loads("v = " + text[:end])
        except ValueError:
            continue
        if list(found) == ["v"]:
            return found["v"]
    raise AssertionError(f"no value at {text!r}")


@settings(deadline=None)
@given(st.text(st.sampled_from(list("ab.=[]{}\"'#,\n 1-:tT\\é\x00"))))
def test_any_text_is_judged_as_the_standard_library_judges_it(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(AtlasError) as caught:
            parse(text, "x")
        assert caught.value.code == "config.invalid"
        assert caught.value.message.startswith(f"x:{caught.value.details['line']}:")
        assert 1 <= int(str(caught.value.details["line"])) <= text.count("\n") + 1
    else:
        layer = parse(text, "x")
        assert layer.data == expected
        assert set(layer.values) == set(paths_in(expected))


# --- errors


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a = 1\nb = x\n", "x:2:5: invalid value", "quotes"),
        ("[a.b]\n\n[a.b]\n", "x:3:5: cannot declare a.b twice", "twice"),
        ("a = 1\na = 2\n", "x:2:6: cannot overwrite a value", "twice"),
        ('a = "b\n', "x:1:7: illegal character '\\n'", ""),
        ('a = "b', "x:1:7: unterminated string", "closing quote"),
        ("a", "x:1:2: expected '=' after a key in a key/value pair", 'name = "value"'),
        ("a = 1\nb = [" + "9" * 5000 + "]", "x:2:6: exceeds the limit", "too many digits"),
        ("\ufeffa = 1", "x:1:1: the file begins with a byte order mark", "without"),
        ("a = 1\n\nb = " + "[" * 50_000, "x:3:5: values nested too deeply", "brackets"),
        ("a = { b = 1 }\na.c = 2", "x:2:8: cannot mutate immutable namespace a", "inside"),
    ],
)
def test_an_error_names_its_place_and_what_to_do(text: str, message: str, hint: str) -> None:
    with pytest.raises(AtlasError) as caught:
        parse(text, "x")
    assert caught.value.code == "config.invalid"
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint
    assert caught.value.details["origin"] == "x"


def test_parses_do_not_disturb_the_standard_library() -> None:
    before = tomllib.loads
    parse("a = 1", "x")
    assert tomllib.loads is before
    assert tomllib.loads.__globals__["parse_key"].__name__ == "parse_key"


def test_a_python_whose_parser_is_built_otherwise_still_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Loader:
        def create_module(self, spec: object) -> None:
            return None

        def exec_module(self, module: Any) -> None:
            module.loads = tomllib.loads

    spec = importlib.util.spec_from_loader("other", Loader())  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    layer = parse("a = 1", "x")
    assert layer.data == {"a": 1}
    assert str(layer.where(("a",))) == "x"
