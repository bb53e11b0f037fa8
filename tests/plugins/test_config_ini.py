"""INI files, held against Python's configparser."""

import configparser
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd_plugins.config_ini import parse

LINE = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12)
NAME = st.text(string.ascii_lowercase + "_-.", min_size=1, max_size=6)


def configparser_reads(text: str) -> dict[str, Any]:
    """What it reads: keys as they are spelled, nothing interpolated, nothing inherited."""
    parser = configparser.RawConfigParser(
        strict=False, allow_no_value=True, default_section="\0none"
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {
        section: {key: value or "" for key, value in parser[section].items()}
        for section in parser.sections()
    }


TEXTS = st.lists(
    st.one_of(
        NAME.map(lambda name: f"[{name}]"),
        st.tuples(NAME, st.sampled_from([" = ", "=", ": ", ":"]), LINE).map("".join),
        st.tuples(st.sampled_from(["  ", "    "]), LINE).map("".join),
        st.tuples(st.sampled_from(["#", ";", "  #"]), LINE).map("".join),
        st.just(""),
        NAME,
    ),
    max_size=12,
)


@given(TEXTS)
def test_it_reads_what_configparser_reads(lines: list[str]) -> None:
    text = "\n".join(["[first]", *lines])
    try:
        expected = configparser_reads(text)
    except AttributeError:
        return  # it fails over a line that goes on with a key that has no value
    except configparser.Error:
        assert any(not fault.warning for fault in parse(text, "a.ini").faults)
        return
    found = parse(text, "a.ini")
    assert found.data == expected
    assert not any(not fault.warning for fault in found.faults)


def test_every_key_and_value_has_its_place() -> None:
    layer = parse("top = 1\n[web]\n  port: 80\nname =\n  a\n  b\n", "a.ini")
    assert layer.text
    assert layer.data == {"top": "1", "web": {"port": "80", "name": "\na\nb"}}
    assert str(layer.where_key(("web", "port"))) == "a.ini:3:3"
    assert str(layer.where(("web", "port"))) == "a.ini:3:9"
    assert str(layer.where(("web",))) == "a.ini:2:1"


@pytest.mark.parametrize(
    ("text", "said", "warning"),
    [
        ("a = 1\na = 2", "a again, which line 1 has set", True),
        ("= 1", "a line without a key", False),
        ("web = 1\n[web]\na = 1", "that of a key before it", False),
    ],
)
def test_what_is_odd_is_told(text: str, said: str, warning: bool) -> None:
    (fault,) = parse(text, "a.ini").faults
    assert (fault.got, fault.warning) == (said, warning)
