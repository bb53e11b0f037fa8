import copy
import re
import tomllib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from atlasd.config import edit
from atlasd.config.shown import to_toml
from atlasd.contracts.config import KeyPath
from atlasd.errors import AtlasError

FILE = """\
# the shop
[api]
listen = "127.0.0.1:0"   # any port

# what runs
[services.web]
command = "sleep 1"
env = { PORT = "1", HOST = "a" }  # inline

[services.db]
command = ["serve",
    "--all",  # of it
]
[[services.db.pre_start]]
command = "mkdir x"
# the end
"""


@pytest.mark.parametrize(
    ("path", "value", "before", "after"),
    [
        (("api", "listen"), "[::1]:0", 'listen = "127.0.0.1:0"   #', 'listen = "[::1]:0"   #'),
        (
            ("services", "web", "env", "PORT"),
            "2",
            '{ PORT = "1", HOST = "a" }  # inline',
            '{ PORT = "2", HOST = "a" }  # inline',
        ),
        (("services", "db", "command", 1), "--few", '    "--all",  # of', '    "--few",  # of'),
        (("services", "db", "pre_start", 0, "command"), "true", '"mkdir x"', '"true"'),
    ],
)
def test_only_the_value_is_exchanged(path: KeyPath, value: Any, before: str, after: str) -> None:
    assert edit.set_value(FILE, path, value) == FILE.replace(before, after)


def test_a_table_that_is_not_there_is_made() -> None:
    assert edit.set_value(FILE, ("log", "level"), "debug") == FILE + '\n[log]\nlevel = "debug"\n'
    assert edit.set_value("", ("a", "b", "c"), 1) == "[a.b]\nc = 1\n"


def test_a_setting_is_removed_and_all_else_stays() -> None:
    text = edit.remove(FILE, ("services", "web", "env", "HOST"))
    assert tomllib.loads(text)["services"]["web"]["env"] == {"PORT": "1"}
    assert "# inline" in text
    assert [line for line in FILE.splitlines() if "env" not in line] == [
        line for line in text.splitlines() if "env" not in line
    ]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (("log", "level"), "config.unknown"),
        (("services", "web", "nice"), "config.unknown"),
        (("services", "db", "command", 7), "config.unknown"),
    ],
)
def test_what_is_not_there_is_not_removed(path: KeyPath, code: str) -> None:
    with pytest.raises(AtlasError, match="does not stand in this file") as error:
        edit.remove(FILE, path)
    assert error.value.code == code


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(AtlasError, match="no place for 'x'") as error:
        edit.set_value(FILE, ("api", "listen", "x"), 1)
    assert error.value.code == "config.conflict"


def test_a_text_that_is_no_toml_is_refused_in_words() -> None:
    with pytest.raises(AtlasError, match="no TOML: invalid value") as error:
        edit.set_value("x = \n", ("a",), 1)
    assert error.value.code == "config.invalid"


KEYS = st.sampled_from(["a", "b", "c-d", "e f", "ü"])
LEAVES = st.one_of(st.integers(-9, 9), st.text("ab\"'\\\n#é", max_size=5), st.booleans())
DATA = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)
PATHS = st.lists(KEYS, min_size=1, max_size=4).map(tuple)


@given(DATA, PATHS, st.one_of(LEAVES, st.lists(LEAVES, max_size=2)), st.booleans())
def test_an_edit_changes_exactly_one_setting(
    data: dict[str, Any], path: KeyPath, value: Any, comment: bool
) -> None:
    text = to_toml(data, lambda _path: "said" if comment else "")
    wanted = copy.deepcopy(data)
    around: Any = wanted
    for key in path[:-1]:
        around = around.setdefault(key, {})
        assume(isinstance(around, dict))
    around[path[-1]] = value
    found = edit.set_value(text, path, value)
    assert tomllib.loads(found) == wanted
    # What a file says in comments is never lost, but with what it is said of.
    kept = len(re.findall(r"# said$", text, re.MULTILINE))
    old: Any = data
    for key in path:
        old = old.get(key) if isinstance(old, dict) else None
    if not isinstance(old, dict | list):
        assert len(re.findall(r"# said$", found, re.MULTILINE)) >= kept

    around.pop(path[-1])
    assert tomllib.loads(edit.remove(found, path)) == wanted
