"""Settings as text of every format, read back by that format's own readers."""

import io
import json
import math
import subprocess
import tomllib
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.settings.render import CannotRenderError, env_lines, env_text, quoted, render

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
KEY = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
WORDS = st.sampled_from(
    ["on", "0o7", "No", "y",
     "0644", "1:30", "1e3", "null", "~", "", " x ", "#a", "a: b", "- a", "0x1F",
     "2026-11-25", "1_000", ".inf", "true", "%", "@", "'", '"', "\\", "a\nb\n", "=", "!", "<<",
     "${x}", "$x", "`x`", "\u2028", "\x85", "\ufeff", "\x7f", "\x01", "é", "🔑"]
)  # fmt: skip
LEAF = (
    TEXT
    | WORDS
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.recursive(
    st.dictionaries(KEY, LEAF | st.lists(LEAF, max_size=3), max_size=4),
    lambda inner: st.dictionaries(KEY, inner | LEAF | st.lists(inner, max_size=2), max_size=3),
    max_leaves=8,
)


@given(TREES)
def test_what_is_rendered_is_read_back(tree: dict[str, Any]) -> None:
    assert json.loads(render(tree, "json")) == tree
    assert tomllib.loads(render(tree, "toml")) == tree
    assert yaml.safe_load(render(tree, "yaml")) == tree


DATES = {"day": date(2026, 11, 25), "at": datetime(2026, 11, 25, 8, 30, tzinfo=UTC), "t": time(8)}


def test_dates_are_dates_where_there_are_any_and_text_elsewhere() -> None:
    assert tomllib.loads(render(DATES, "toml")) == DATES
    assert json.loads(render(DATES, "json")) == {
        "day": "2026-11-25", "at": "2026-11-25T08:30:00+00:00", "t": "08:00:00"
    }  # fmt: skip
    assert yaml.safe_load(render(DATES, "yaml")) == DATES | {"t": "08:00:00"}


def test_null_is_left_out_of_toml_and_stays_elsewhere() -> None:
    tree: dict[str, Any] = {"a": None, "b": [{"c": None, "d": 1}]}
    assert tomllib.loads(render(tree, "toml")) == {"b": [{"d": 1}]}
    assert json.loads(render(tree, "json")) == tree
    assert yaml.safe_load(render(tree, "yaml")) == tree
    with pytest.raises(CannotRenderError, match="null") as caught:
        render({"a": {"b": [1, None]}}, "toml")
    assert caught.value.key == "a.b"


def test_what_json_cannot_say_is_refused_by_its_key() -> None:
    with pytest.raises(CannotRenderError, match="inf, which JSON does not have") as caught:
        render({"a": [1.0, math.inf]}, "json")
    assert caught.value.key == "a[1]"


def test_text_that_other_readers_take_for_something_else_is_quoted() -> None:
    assert (
        render({"a": "y", "b": "0o644", "c": "1:30"}, "yaml") == "a: 'y'\nb: '0o644'\nc: '1:30'\n"
    )


# --- variables


def sourced(lines: str, names: list[str]) -> dict[str, str]:
    """What bash has when it has read the lines, each name and value ended by a NUL."""
    shown = "".join(f'printf "%s\\0" "${name}"; ' for name in names)
    # As strict as a script can be; nothing of the value may run.
    done = subprocess.run(
        ["/bin/bash", "--norc", "--noprofile", "-c", f"set -eu; . /dev/stdin; {shown}"],
        input=lines.encode(), capture_output=True, check=True, env={"PATH": "/nowhere"},
    )  # fmt: skip
    assert done.stderr == b""
    return dict(zip(names, (v.decode() for v in done.stdout.split(b"\0")), strict=False))


@settings(max_examples=12)
@given(st.lists(TEXT | WORDS, min_size=30, max_size=30))
def test_bash_reads_back_what_is_written_for_it(values: list[str]) -> None:
    wanted = {f"V{number}": value for number, value in enumerate(values)}
    assert sourced(env_lines(wanted, "bash"), list(wanted)) == wanted


def docker_reads(text: str) -> dict[str, str]:
    """The lines of `docker run --env-file`, by docker's rules: no quotes, no escapes."""
    lines = [line for line in io.StringIO(text, newline="\n").read().split("\n") if line.strip()]
    return dict(line.split("=", 1) for line in lines)


@given(st.lists(TEXT | WORDS, max_size=5))
def test_docker_reads_back_what_can_be_written_for_it(values: list[str]) -> None:
    wanted = {f"V{number}": value for number, value in enumerate(values)}
    if any("\n" in value or "\r" in value for value in values):
        with pytest.raises(CannotRenderError, match="line break"):
            env_lines(wanted, "docker")
    else:
        assert docker_reads(env_lines(wanted, "docker")) == wanted


def systemd_reads(text: str) -> dict[str, str]:  # noqa: C901, PLR0912  its states, side by side
    """systemd's EnvironmentFile=, as `parse_env_file` has it: states, no expansion."""
    found: dict[str, str] = {}
    name, value, state, space = "", "", "name", 0
    for char in text + "\n":
        if state == "name":
            if char == "=":
                state, value, space = "pre", "", 0
            elif char != "\n":
                name += char
        elif state in ("pre", "bare"):
            if char == "\n":
                found[name], name, state = value[: len(value) - space], "", "name"
            elif state == "pre" and char in "'\"":
                state = char
            elif char == "\\":
                state = "escaped"
            elif state == "pre" and char in " \t\r":
                pass
            else:
                state, value = "bare", value + char
                space = space + 1 if char in " \t\r" else 0
        elif state == "escaped":
            state, space, value = "bare", 0, value + ("" if char == "\n" else char)
        elif state == "'":
            state, value = ("pre", value) if char == "'" else (state, value + char)
        elif state == '"':
            if char == '"':
                state = "pre"
            elif char == "\\":
                state = "in double quotes"
            else:
                value += char
        else:
            if char in '"\\`$':
                value += char
            elif char != "\n":
                value += "\\" + char
            state = '"'
    return found


@given(st.lists(TEXT | WORDS, max_size=5))
def test_systemd_reads_back_what_is_written_for_it(values: list[str]) -> None:
    wanted = {f"V{number}": value for number, value in enumerate(values)}
    assert systemd_reads(env_lines(wanted, "systemd")) == wanted


def test_values_are_only_quoted_where_they_must_be() -> None:
    assert quoted("https://shop.example/a?b=c", "bash") == "'https://shop.example/a?b=c'"
    assert quoted("a/b:c@d-1.5", "bash") == "a/b:c@d-1.5"
    assert quoted("it's", "bash") == "'it'\\''s'"
    assert quoted("it's", "systemd") == '"it\'s"'
    assert quoted("a $b", "compose") == "'a $b'"
    assert quoted("a b", "docker") == "a b"


def test_what_no_variable_can_hold_is_refused_by_its_key() -> None:
    assert env_text(True, ("a",)) == "true"
    assert env_text({"b": [1, None]}, ("a",)) == '{"b":[1,null]}'
    assert env_text(date(2026, 11, 25), ("a",)) == "2026-11-25"
    for value in ("a\0b", "x" * 200_000, [math.nan]):
        with pytest.raises(CannotRenderError) as caught:
            env_text(value, ("a", "b"))
        assert caught.value.key == "a.b"
