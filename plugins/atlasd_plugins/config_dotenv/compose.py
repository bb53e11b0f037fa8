r"""The dialect of docker compose's .env files.

    NAME=some words # a comment       also NAME: value, and `export` before a name
    NAME='as it stands, $ included, over several lines if need be'
    NAME="with \n \t \" \\ and ${OTHER}"
    NAME                              taken from the process

`$NAME`, `${NAME}` and `${NAME:-default}` are expanded outside single quotes; `$$` is a `$`.
"""

import re
from collections.abc import Mapping

from atlasd.contracts.config import Layer
from atlasd_plugins.config_dotenv.expansion import expand
from atlasd_plugins.config_dotenv.reading import Reading, Refused

_BLANK = re.compile(r"[ \t\n\r\v\f]+")
_SPACE = re.compile(r"[ \t\v\f]*")
_EXPORT = re.compile(r"export[ \t]+")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-\[\]]*")
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"',
    "\\": "\\",
}  # fmt: skip


def parse(text: str, origin: str, variables: Mapping[str, str]) -> Layer:
    """The variables of a text; see `atlasd.contracts.config.ParseVariables`."""
    reading = Reading(text, origin, variables)
    while not reading.over():
        reading.match(_BLANK)
        if reading.over():
            break
        if reading.char == "#":
            reading.skip_line()
            continue
        start = reading.at
        try:
            _statement(reading)
        except Refused as refused:
            reading.refuse(refused)
            reading.at = max(start, reading.at)
            reading.skip_line()
    return reading.layer()


def _statement(reading: Reading) -> None:
    reading.match(_EXPORT)
    name_at = reading.at
    found = reading.match(_KEY)
    if found is None:
        raise Refused(name_at, "a name", "another character", "names have letters, digits and _")
    name = found[0]
    reading.match(_SPACE)
    if reading.ends_line() or reading.char == "#":
        _inherit(reading, name, name_at)
        return
    if reading.char not in ("=", ":"):
        raise Refused(name_at, "NAME=VALUE", "a line without =")
    reading.at += 1
    reading.match(_SPACE)
    value_at = reading.at
    if reading.char == "'":
        value = _quoted(reading, "'")
    elif reading.char == '"':
        value = _expanded(reading, _quoted(reading, '"'), value_at, escapes=True)
    else:
        value = _expanded(reading, _bare(reading), value_at, escapes=False)
    reading.note(name, value, name_at=name_at, value_at=value_at)


def _inherit(reading: Reading, name: str, name_at: int) -> None:
    value = reading.process.get(name)
    if value is not None:
        reading.note(name, value, name_at=name_at, value_at=name_at)
        return
    reading.fault(
        name_at,
        got="a name without a value, which the process has not either",
        hint="it is not set; write NAME= for an empty value",
        warning=True,
    )


def _bare(reading: Reading) -> str:
    start = reading.at
    end = reading.text.find("\n", start)
    end = len(reading.text) if end < 0 else end
    reading.at = end
    line = reading.text[start:end]
    if line.startswith("#"):
        reading.fault(
            start,
            got="a value that begins with #, which compose takes for text",
            hint="quote it if it is, remove it if it is a comment",
            warning=True,
        )
    # Only a space makes a comment of what follows: `#` behind a tab is text.
    return line.partition(" #")[0].rstrip()


def _quoted(reading: Reading, quote: str) -> str:
    """What stands between the quotes; a backslash before the quote itself is gone."""
    start = reading.at
    reading.at += 1
    value = []
    while reading.char != quote:
        if reading.over():
            reading.at = start
            raise Refused(start, f"a closing {quote}", "the end of the file")
        char = reading.char
        reading.at += 1
        if char == "\\" and not reading.over():
            escaped, reading.at = reading.char, reading.at + 1
            char = escaped if escaped == quote else char + escaped
        value.append(char)
    reading.at += 1
    return "".join(value)


def _expanded(reading: Reading, text: str, at: int, *, escapes: bool) -> str:
    """The value with its variables in their places; they are looked up as of this line."""
    inner = _Value(reading, text, at)
    value = []
    while not inner.over():
        char = inner.char
        following = text[inner.at + 1 : inner.at + 2]
        if escapes and char == "\\" and following in _ESCAPES:
            value.append(_ESCAPES[following])
            inner.at += 2
        elif following == "$" and (char == "$" or (escapes and char == "\\")):
            value.append("$")
            inner.at += 2
        elif char == "$":
            found = expand(inner, _word)
            if found is None:
                raise Refused(at, "$$ for a $", "a $ that nothing follows")
            value.append(found)
        else:
            value.append(char)
            inner.at += 1
    return "".join(value)


def _word(reading: Reading) -> str:
    """The word of `${NAME:-word}`, expanded itself."""
    value = []
    while not reading.over() and reading.char != "}":
        found = expand(reading, _word) if reading.char == "$" else None
        if found is None:
            found = reading.char
            reading.at += 1
        value.append(found)
    return "".join(value)


class _Value(Reading):
    """A value that is being expanded; what is wrong with it is said of where it stands."""

    def __init__(self, outer: Reading, text: str, at: int) -> None:
        self.text = text
        self.at = 0
        self._outer = outer
        self._place = at

    def look_up(self, name: str, at: int, *, told: bool = True) -> str | None:
        return self._outer.look_up(name, self._place, told=told)
