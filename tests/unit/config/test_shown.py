import datetime as dt
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.config.exporting import text_of, variable
from atlasd.config.problems import dotted, undotted
from atlasd.config.shown import HIDDEN, leaves, named_secret, safe, to_toml
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError

KEYS = st.text(min_size=1, max_size=8)
VALUES = st.recursive(
    st.one_of(
        st.text(max_size=20),
        st.integers(-(2**62), 2**62),
        st.booleans(),
        st.floats(allow_nan=False),
        st.dates(),
        st.datetimes(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)


@given(TABLES)
def test_what_is_written_as_toml_reads_back_the_same(data: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(data)) == data


@given(st.lists(st.one_of(KEYS, st.integers(0, 99)), min_size=1, max_size=4))
def test_a_dotted_key_means_the_path_that_it_was_made_of(parts: list[str | int]) -> None:
    path: KeyPath = ("a", *parts)
    assert undotted(dotted(path)) == path


@pytest.mark.parametrize("key", ["a..b", "a[b]", 'a."b', "a]"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(AtlasError, match="is no key") as error:
        undotted(key)
    assert error.value.code == "config.unknown"


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        (("services", "web", "env", "DB_PASSWORD"), True),
        (("services", "web", "env", "PORT"), False),
        (("services", "token", "command"), False),
        (("secrets", "backend"), False),
        (("services", "web", "secrets", "DB"), False),
        (("plugins", "mail", "credentials", "user"), True),
        (("settings", "shop", "values", "api_key"), True),
    ],
)
def test_a_secret_is_known_by_its_name(path: KeyPath, secret: bool) -> None:
    assert named_secret(path) is secret


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("hunter22", HIDDEN),
        ("secret://prod/db#password", "secret://prod/db#password"),
        ("${secret:db}", "${secret:db}"),
        ("enc:v1:k1:gAAA", "enc:v1:k1:gAAA"),
        ("secret://db and hunter22", HIDDEN),
        (12345, HIDDEN),
        (True, True),
    ],
)
def test_only_references_are_shown_where_a_secret_stands(value: object, shown: object) -> None:
    assert safe({"password": value}) == {"password": shown}


def test_a_password_in_a_url_is_hidden_wherever_it_stands() -> None:
    assert safe({"url": "a://u:hunter22@h and b://v:x@i"}) == {
        "url": f"a://u:{HIDDEN}@h and b://v:{HIDDEN}@i"
    }
    assert safe({"url": "a://u:${secret:db}@h"}) == {"url": "a://u:${secret:db}@h"}


def test_dates_become_text_and_lists_keep_their_places() -> None:
    assert safe({"when": dt.date(2026, 1, 2), "list": ["a", {"token": "t"}]}) == {
        "when": "2026-01-02",
        "list": ["a", {"token": HIDDEN}],
    }


def test_leaves_are_settings_and_empty_tables() -> None:
    data = {"a": {"b": 1, "c": {}}, "d": [1, 2]}
    assert dict(leaves(data)) == {("a", "b"): 1, ("a", "c"): {}, ("d",): [1, 2]}
    assert list(leaves({})) == []


def test_each_format_says_the_same() -> None:
    import json

    import yaml

    data = {"a": {"list": [1, "zwei"], "on": True}, "b-c": "it's"}
    assert tomllib.loads(text_of(data, "toml")) == data
    assert json.loads(text_of(data, "json")) == data
    assert yaml.safe_load(text_of(data, "yaml")) == data
    assert text_of(data, "env") == (
        "ATLASD__A__LIST='[1, \"zwei\"]'\nATLASD__A__ON=true\nATLASD__B_C='it'\"'\"'s'\n"
    )
    assert variable(("host", "log_budget")) == "ATLASD__HOST__LOG_BUDGET"
