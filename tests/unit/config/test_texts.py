"""Text that is given a type by the schema: values of variables, and of `--set`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.config.outline import outline
from atlasd.config.problems import dotted
from atlasd.config.texts import (
    NotThatError,
    assignments,
    name_keys,
    read,
    split_key,
    typed,
    variables,
)
from atlasd.contracts.config import UNSET

STRING = {"string"}
NUMBER = {"number"}


@pytest.mark.parametrize(
    ("text", "kinds", "value"),
    [
        ("5", STRING, "5"),
        ("5", NUMBER, 5),
        ("-5", NUMBER, -5),
        ("1.5", NUMBER, 1.5),
        ("1e3", NUMBER, 1000.0),
        ("true", {"boolean"}, True),
        ("true", STRING, "true"),
        ("5", {"number", "string"}, 5),
        ("5s", {"number", "string"}, "5s"),
        ("0660", {"number", "string"}, "0660"),
        ('["a", 1]', {"list"}, ["a", 1]),
        ("['a']", {"list"}, ["a"]),
        ('["a"]', {"list", "string"}, ["a"]),
        ('["a"]', STRING, '["a"]'),
        ("[ -f x ]", {"list", "string"}, "[ -f x ]"),
        ('{"a": 1}', {"table"}, {"a": 1}),
        ("{ a = 1 }", {"table"}, {"a": 1}),
        ("x", set(), "x"),
        ("secret://db#port", NUMBER, "secret://db#port"),
        ("${env:PORT}", NUMBER, "${env:PORT}"),
        ("{ unset = true }", NUMBER, dict(UNSET)),
        ('{"unset": true}', STRING, dict(UNSET)),
    ],
)
def test_a_text_stands_for_what_its_setting_takes(text: str, kinds: set[str], value: Any) -> None:
    found = read(text, frozenset(kinds))
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("x", NUMBER),
        ("0660", NUMBER),
        ("yes", {"boolean"}),
        ("True", {"boolean"}),
        ("1", {"boolean"}),
        ("a, b", {"list"}),
        ("[1", {"list"}),
        ("[" * 100_000, {"list"}),
        ("[" * 300 + "]" * 300, {"list"}),
        ("{}", {"list"}),
        ("[]", {"table"}),
        ("", NUMBER),
        ("9" * 400 + "x", NUMBER),
    ],
)
def test_a_text_that_stands_for_nothing_there_is_refused(text: str, kinds: set[str]) -> None:
    with pytest.raises(NotThatError):
        read(text, frozenset(kinds))


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=5)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_dotted_key_is_taken_apart_as_it_was_put_together(path: list[str]) -> None:
    path = [key.replace('"', "").replace("\\", "") or "x" for key in path]
    assert split_key(dotted(tuple(path))) == tuple(path)


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "a..b", "a b", 'a."b', "a[0]", "ä"])
def test_what_is_no_dotted_key_is_none(key: str) -> None:
    assert split_key(key) is None


def test_an_operator_may_stand_behind_a_key() -> None:
    assert split_key("services.web.requires+") == ("services", "web", "requires+")
    assert split_key("services.'my shop'.env-") == ("services", "my shop", "env-")


def test_assignments_become_a_layer_of_settings() -> None:
    below: dict[str, Any] = {"services": {"web": {}}}
    words = [
        "log.level=debug",
        "services.web.nice=5",
        'services.web.requires+=["db"]',
        "services.web.env.A=b=c",
        "services.web.umask={unset=true}",
    ]
    layer = typed(name_keys(assignments(words), outline(below)), outline(below))
    assert layer.faults == ()
    assert layer.data == {
        "log": {"level": "debug"},
        "services": {
            "web": {"nice": 5, "requires+": ["db"], "env": {"A": "b=c"}, "umask": {"unset": True}}
        },
    }
    assert str(layer.where(("services", "web", "nice"))) == "--set services.web.nice"


def test_variables_of_others_stay_outside() -> None:
    layer = variables({"ATLASD__A": "1", "ATLASD_ENV": "x", "PATH": "y"}, "ATLASD__")
    assert layer.data == {"ATLASD__A": "1"}
    assert str(layer.where(("ATLASD__A",))) == "environment ATLASD__A"
