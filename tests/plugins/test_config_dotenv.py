"""The dialects of .env files: each against the program that it is named for, where there is one."""

import io
import os
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from dotenv.main import DotEnv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlasd.contracts.config import Layer
from atlasd_plugins.config_dotenv import register_config_sources

(SOURCE,) = register_config_sources()
PROCESS = {"HOME": "/root", "EMPTY": ""}
DIALECTS = sorted(SOURCE.dialects)


def parse(dialect: str, text: str, variables: Mapping[str, str] = PROCESS) -> Layer:
    return SOURCE.dialects[dialect](text, "x.env", variables)


def said(layer: Layer) -> list[str]:
    found = []
    for fault in layer.faults:
        words = f"expected {fault.expected}, got {fault.got}" if fault.expected else fault.got
        mark = "warning: " if fault.warning else ""
        found.append(f"{fault.where.line}:{fault.where.column}: {mark}{words}")
    return found


@pytest.mark.parametrize(
    ("dialect", "line", "value"),
    [
        # The same line, as the four programs read it.
        ("bash", "A='b c' # d", "b c"),
        ("compose", "A='b c' # d", "b c"),
        ("docker", "A='b c' # d", "'b c' # d"),
        ("systemd", "A='b c' # d", "b c# d"),
        ("compose", "A=b c # d", "b c"),
        ("docker", "A=b c # d", "b c # d"),
        ("systemd", "A=b c # d", "b c # d"),
        ("bash", 'A="$HOME\\n"', "/root\\n"),
        ("compose", 'A="$HOME\\n"', "/root\n"),
        ("docker", 'A="$HOME\\n"', '"$HOME\\n"'),
        ("systemd", 'A="$HOME\\n"', "$HOME\\n"),
        ("bash", "A=b#c", "b#c"),
        ("compose", "A=b#c", "b#c"),
        ("bash", "A=", ""),
        ("compose", "A= # c", "# c"),
        ("compose", "A=b\t# c", "b\t# c"),
        ("docker", "A=", ""),
        ("systemd", "A=", ""),
        ("bash", "A=a\\ b", "a b"),
        ("systemd", "A=a\\ b", "a b"),
        ("compose", "A=a\\ b", "a\\ b"),
        ("bash", "A=${EMPTY:-x}${EMPTY-y}${HOME:+z}${NONE+w}", "xz"),
        ("compose", "A=${EMPTY:-x}${EMPTY-y}${HOME:+z}${NONE+w}", "xz"),
        ("bash", "A=${NONE:-${HOME}/$HOME}", "/root//root"),
        ("compose", "A=${NONE:-${HOME}/$HOME}", "/root//root"),
        ("bash", 'A="${NONE:-a b}"', "a b"),
        ("bash", 'A="5$"', "5$"),
        ("bash", "A='it'\\''s'", "it's"),
        ("compose", "A='it\\'s'", "it's"),
        ("compose", "A=$$HOME", "$HOME"),
        ("compose", 'A="\\$HOME"', "$HOME"),
        ("bash", "A=$'\\x41\\u00e4\\101\\'\\q'", "Aä" + "A'\\q"),
        ("bash", "A='one\ntwo'", "one\ntwo"),
        ("systemd", "A=one \\\ntwo", "one two"),
        ("systemd", 'A="one\\\ntwo"', "onetwo"),
        ("systemd", "A = b", "b"),
        ("docker", "A = b", None),
        ("bash", "A = b", None),
        ("compose", "A = b", "b"),
        ("bash", "A=1 A=2", "2"),
    ],
)
def test_a_line_means_what_its_program_takes_it_for(
    dialect: str, line: str, value: str | None
) -> None:
    layer = parse(dialect, line + "\n")
    assert layer.data.get("A") == value
    if value is None:
        assert [fault for fault in layer.faults if not fault.warning]
    assert layer.data == parse(dialect, line).data


@pytest.mark.parametrize(
    ("dialect", "text", "words"),
    [
        ("bash", "A=$(id)", "1:3: expected text, got a command"),
        ("bash", "A=`id`", "1:3: expected text, got a command"),
        ("bash", 'A="x$(id)"', "1:5: expected text, got a command"),
        ("bash", "A=1 id", "1:5: expected NAME=VALUE, got something else"),
        ("bash", "A=a|b", "1:4: expected text, got a | without quotes"),
        ("bash", "A=(1 2)", "1:3: expected text, got an array"),
        ("bash", "A=~/x", "1:3: expected text, got a ~ without quotes"),
        ("bash", "A+=x", "1:2: expected = after the name, got +="),
        ("bash", "if true; then A=1; fi", "1:1: expected NAME=VALUE, got something else"),
        ("bash", "A='x", "1:3: expected a closing ', got the end of the file"),
        ("bash", 'A="x', '1:3: expected a closing ", got the end of the file'),
        ("bash", "A=${B", "1:3: expected $NAME, ${NAME}, or ${NAME} with :- - :+ + :? ?, got "),
        ("bash", "A=${#HOME}", "1:3: expected $NAME, ${NAME}"),
        ("bash", "A=$1", "1:3: expected $NAME, ${NAME}"),
        ("bash", 'A=$"x"', "1:3: expected $NAME, ${NAME}"),
        ("bash", "A=${B:?no}", "1:3: expected the variable B to be set, got none"),
        ("bash", "A=$'\\0'", "1:5: expected the escape of a character, got another number"),
        ("docker", "A B=1", "1:1: expected a name without spaces, got a name with a space"),
        ("docker", "=1", "1:1: expected NAME=VALUE, got no name"),
        ("compose", "1A=1", "1:1: expected a name, got another character"),
        ("compose", "A 1", "1:1: expected NAME=VALUE, got a line without ="),
        ("compose", 'A="x', '1:3: expected a closing ", got the end of the file'),
        ("compose", "A=$", "1:3: expected $$ for a $, got a $ that nothing follows"),
        ("systemd", "A='x", "1:3: expected a closing ', got the end of the file"),
        ("systemd", "A", "1:1: expected NAME=VALUE, got a line without ="),
        ("systemd", "1A=1", "1:1: expected a name of letters, digits and _, no digit first, got"),
        ("systemd", "=1", "1:1: expected a name of letters, digits and _, no digit first, got no"),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_stands(
    dialect: str, text: str, words: str
) -> None:
    layer = parse(dialect, f"{text}\nZ=1\n" if "closing" not in words else text)
    assert said(layer)[0].startswith(words)
    assert not layer.faults[0].warning


@pytest.mark.parametrize(
    ("dialect", "text", "words"),
    [
        ("bash", "A=$B", "1:3: warning: there is no variable B, so nothing stands in its place"),
        (
            "compose",
            "A=x$B",
            "1:3: warning: there is no variable B, so nothing stands in its place",
        ),
        ("bash", "A=1\nA=2", "2:1: warning: A again, which line 1 has set"),
        ("docker", "B", "1:1: warning: a name without a value, which the process has not either"),
        ("compose", "B", "1:1: warning: a name without a value, which the process has not either"),
        (
            "compose",
            "A= #x",
            "1:4: warning: a value that begins with #, which compose takes for text",
        ),
        ("docker", "A='x'", "1:3: warning: quotes, which docker takes for a part of the value"),
    ],
)
def test_what_is_doubtful_is_warned_of(dialect: str, text: str, words: str) -> None:
    layer = parse(dialect, text)
    assert said(layer) == [words]
    assert all(fault.warning for fault in layer.faults)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_all_that_is_wrong_is_told_at_once_and_no_value_with_it(dialect: str) -> None:
    layer = parse(dialect, "A=hunter2\nB C hunter2\nC=1\nhunter2 x\n")
    assert [fault.where.line for fault in layer.faults] == [2, 4]
    assert "hunter2" not in str(layer.faults)
    assert layer.data == {"A": "hunter2", "C": "1"}


@pytest.mark.parametrize("dialect", ["bash", "compose", "systemd"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_inside_quotes_are_a_part_of_the_value(dialect: str, end: str) -> None:
    layer = parse(dialect, f"A='one{end}two'{end}B=3{end}C=4")
    assert layer.data == {"A": f"one{end}two", "B": "3", "C": "4"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_byte_order_mark_is_no_part_of_a_name(dialect: str) -> None:
    assert parse(dialect, "\ufeffA=1\n").data == {"A": "1"}


def test_names_and_values_have_their_places() -> None:
    layer = parse("bash", "# x\nexport A=1 B='2'\n")
    assert str(layer.keys["B",]) == "x.env:2:12"
    assert str(layer.values["B",]) == "x.env:2:14"


@pytest.mark.parametrize("text", [";A=1", "A=1;;B=2", "A=1\n;B=2", "# x\n ;B=2", "\\\n;A=1"])
def test_a_semicolon_that_ends_nothing_is_refused_as_bash_does(text: str) -> None:
    (fault,) = parse("bash", text).faults
    assert "a ; with nothing before it" in str(fault)
    assert parse("bash", "A=1; B=2;\nC=3").data == {"A": "1", "B": "2", "C": "3"}


# --- against the programs themselves

WORDS = [
    *("A", "B", "C", "=", "x", "#", "'", '"', "$", "{", "}", ":-", "\\", ";", "~", ":", "+"),
    *("$A", "${B}", "$'", "\\n", "A=", "B=", "C='", 'C="', "\\x41", "export ", "${C:-", " ", "\n"),
]
PIECES = st.lists(st.sampled_from(WORDS), max_size=14).map("".join)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, min_size=6, max_size=6))
def test_what_is_taken_for_bash_is_what_bash_sets(texts: list[str]) -> None:
    """A text that is refused is never run; of the others, bash makes the same variables."""
    taken = []
    for text in texts:
        layer = parse("bash", text, {})
        if not [fault for fault in layer.faults if not fault.warning]:
            taken.append((text, layer.data))
    script = "".join(
        f"(set -a; eval {quoted(text)} >/dev/null || exit; env -0); printf '\\1'\n"
        for text, _ in taken
    )
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", script],
        env={"PATH": os.defpath},
        capture_output=True,
        timeout=60,
        check=False,
    )
    answers = done.stdout.decode().split("\1")[: len(taken)]
    for (text, data), answer in zip(taken, answers, strict=True):
        set_by_bash = dict(line.split("=", 1) for line in answer.split("\0") if line)
        got = {name: set_by_bash.get(name) for name in data}
        assert got == data, (text, done.stderr)
        assert {"A", "B", "C"} & set(set_by_bash) == {"A", "B", "C"} & set(data), text


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


LINES = st.lists(
    st.tuples(
        st.sampled_from(["A", "B_1", "export C"]),
        st.text(string.ascii_letters + string.digits + "./:@-_,", min_size=1, max_size=8),
        st.sampled_from(["", " # a comment", "  "]),
    ),
    max_size=5,
)


@given(LINES, st.sampled_from(["'", '"', ""]))
def test_plain_files_mean_the_same_to_python_dotenv(
    lines: list[tuple[str, str, str]], quote: str
) -> None:
    text = "".join(f"{name}={quote}{value}{quote}{rest}\n" for name, value, rest in lines)
    expected = DotEnv(None, stream=io.StringIO(text), interpolate=False).dict()
    assert parse("compose", text).data == expected


@given(st.dictionaries(st.sampled_from("ABC"), st.text(max_size=12)), st.sampled_from(DIALECTS))
def test_no_text_breaks_a_dialect(values: dict[str, str], dialect: str) -> None:
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    layer = parse(dialect, text)
    assert set(layer.data) == {path[0] for path in layer.keys}
    assert all(isinstance(value, str) for value in layer.data.values())


def test_the_dialects_are_not_loaded_before_they_are_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from atlasd_plugins import config_dotenv, config_yaml\n"
        "config_dotenv.register_config_sources(); config_yaml.register_config_sources()\n"
        "print([m for m in sys.modules if m.startswith(('yaml', 'atlasd_plugins.config_dotenv.'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
        cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "[]\n"
