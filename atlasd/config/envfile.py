r"""Environment files: NAME=VALUE lines in one careful dialect, with nothing guessed.

    # a comment; blank lines are passed over
    export NAME=value           `export` is allowed and means nothing
    NAME=some words # comment   spaces inside count, around the value they don't
    NAME='as it stands, \n and $ included'
    NAME="with \" \\ \n \r \t \$ for the characters that need them"

No variable is expanded and no value goes over the end of its line.
"""

import re
from dataclasses import dataclass

_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[^=\s]*)(?P<gap>[ \t]*)(?P<equals>=?)[ \t]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong in one place of an environment file; no value is repeated."""

    line: int
    """From 1."""
    column: int
    """From 1."""
    expected: str
    got: str
    hint: str = ""


def parse(text: str) -> tuple[dict[str, str], list[Fault]]:
    """The variables of a file's text, and what is wrong with it."""
    values: dict[str, str] = {}
    seen: dict[str, int] = {}
    faults: list[Fault] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        stripped = line.removesuffix("\r")
        if not stripped.strip(" \t") or stripped.lstrip(" \t").startswith("#"):
            continue
        try:
            name, value, column = _parse_line(stripped)
        except _LineError as error:
            faults.append(
                Fault(
                    line=number,
                    column=error.column,
                    expected=error.expected,
                    got=error.got,
                    hint=error.hint,
                )
            )
            continue
        if name in seen:
            faults.append(
                Fault(
                    line=number,
                    column=column,
                    expected="each name once",
                    got=f"{name} again, which line {seen[name]} has set",
                )
            )
            continue
        seen[name] = number
        values[name] = value
    return values, faults


class _LineError(Exception):
    def __init__(self, index: int, expected: str, got: str, hint: str = "") -> None:
        super().__init__(expected)
        self.column = index + 1
        self.expected = expected
        self.got = got
        self.hint = hint


def _parse_line(line: str) -> tuple[str, str, int]:
    if "\0" in line:
        raise _LineError(line.index("\0"), "text", "a NUL character")
    head = _LINE.match(line)
    assert head is not None
    name = head["name"]
    if not head["equals"]:
        # The line may be a bare secret that lost its name: nothing of it is repeated.
        raise _LineError(head.start("name"), "NAME=VALUE", "a line without =")
    if head["gap"]:
        raise _LineError(head.start("gap"), "= right after the name", "a space")
    if not _NAME.fullmatch(name):
        raise _LineError(
            head.start("name"),
            "a name of letters, digits and _, no digit first",
            "another name" if name else "no name",
        )
    rest = line[head.end() :]
    if rest[:1] in ("'", '"'):
        return name, _quoted(rest, head.end()), head.start("name") + 1
    return name, _bare(rest), head.start("name") + 1


def _bare(text: str) -> str:
    # `#` begins a comment only after a space: a URL may have one inside.
    return re.split(r"(?:^|[ \t])#", text, maxsplit=1)[0].strip(" \t")


def _quoted(text: str, start: int) -> str:
    quote = text[0]
    value = []
    index = 1
    while True:
        if index >= len(text):
            raise _LineError(
                start,
                f"a closing {quote}",
                "the end of the line",
                "a value ends on the line on which it begins; \\n in double quotes is a line break",
            )
        char = text[index]
        if char == quote:
            break
        if char == "\\" and quote == '"':
            index += 1
            escape = text[index : index + 1]
            if escape not in _ESCAPES:
                raise _LineError(
                    start + index - 1,
                    'one of \\" \\\\ \\n \\r \\t \\$',
                    "another escape",
                    "single quotes take everything as it stands",
                )
            char = _ESCAPES[escape]
        value.append(char)
        index += 1
    after = text[index + 1 :]
    if after.strip(" \t") and not re.match(r"[ \t]+#", after):
        raise _LineError(
            start + index + 1, "nothing after the closing quote", "more text", "quote all of it"
        )
    return "".join(value)
