"""The dialect of environment files, and what is said about lines outside of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.config.envfile import parse


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  export A=1", "1"),
        ("A=", ""),
        ("A=some words  ", "some words"),
        ("A=  spaced", "spaced"),
        ("A=value # comment", "value"),
        ("A=#comment", ""),
        ("A=http://x/#here", "http://x/#here"),
        ("A=a=b", "a=b"),
        ("A=$HOME", "$HOME"),
        (r"A=c:\dir", r"c:\dir"),
        ("A='$HOME # \\n'", "$HOME # \\n"),
        ("A=''  # nothing", ""),
        (r'A="a\n\t\r\"\\\$"', 'a\n\t\r"\\$'),
        ('A="it\'s"', "it's"),
        ("A=it's", "it's"),
        ("A=1\r", "1"),
    ],
)
def test_a_line_gives_its_value(line: str, value: str) -> None:
    assert parse(line) == ({"A": value}, [])


def test_comments_blank_lines_and_a_byte_order_mark_are_passed_over() -> None:
    assert parse("\ufeffA=1\n\n  # B=2\n\t\nC=3\n") == ({"A": "1", "C": "3"}, [])


@pytest.mark.parametrize(
    ("line", "column", "expected", "got"),
    [
        ("hunter2", 1, "NAME=VALUE", "a line without ="),
        ("export", 1, "NAME=VALUE", "a line without ="),
        ("A =1", 2, "= right after the name", "a space"),
        ("=1", 1, "a name of letters, digits and _, no digit first", "no name"),
        ("2A=1", 1, "a name of letters, digits and _, no digit first", "another name"),
        ("A-B=1", 1, "a name of letters, digits and _, no digit first", "another name"),
        ("A='hunter2", 3, "a closing '", "the end of the line"),
        ('A="hunter2', 3, 'a closing "', "the end of the line"),
        (r'A="hunter2\x"', 11, r"one of \" \\ \n \r \t \$", "another escape"),
        ("A='x' hunter2", 6, "nothing after the closing quote", "more text"),
        ("A='x'#no", 6, "nothing after the closing quote", "more text"),
        ("A=x\0", 4, "text", "a NUL character"),
    ],
)
def test_a_line_that_is_not_understood_is_named_and_never_repeated(
    line: str, column: int, expected: str, got: str
) -> None:
    values, faults = parse(f"OK=1\n{line}\nALSO=2")
    assert values == {"OK": "1", "ALSO": "2"}
    (fault,) = faults
    assert (fault.line, fault.column, fault.expected, fault.got) == (2, column, expected, got)
    assert "hunter2" not in repr(fault)


def test_a_name_that_comes_twice_is_a_fault() -> None:
    values, (fault,) = parse("A=1\nB=2\nA=3")
    assert values == {"A": "1", "B": "2"}
    assert (fault.line, fault.got) == (3, "A again, which line 1 has set")


@given(st.text(alphabet=st.characters(exclude_characters="\n\r\t\0", exclude_categories=["Cs"])))
def test_double_quotes_can_hold_everything_that_is_escaped(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse(f'A="{escaped}"') == ({"A": value}, [])


@given(st.text())
def test_any_text_is_read_or_its_faults_are_named(text: str) -> None:
    values, faults = parse(text)
    assert all(1 <= fault.line <= text.count("\n") + 1 for fault in faults)
    assert all("\0" not in name + value for name, value in values.items())
