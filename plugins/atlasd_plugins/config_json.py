"""Configuration from JSON files, with the line and column of every key and value."""

import re
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]
from typing import Any

from atlasd import hookimpl
from atlasd.contracts.config import ConfigSource, Fault, KeyPath, Layer, Lines, Offsets
from atlasd.errors import AtlasError

ATLASD_API = 1

DEEPEST = 200
"""Brackets in brackets; more is no configuration."""
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_WORD = re.compile(r"[A-Za-z_]+")


@hookimpl
def register_config_sources() -> list[ConfigSource]:
    """The `json` source."""
    return [
        ConfigSource(
            name="json", summary="JSON files, errors with line and column", suffixes=(".json",),
            parse=parse,
        )
    ]  # fmt: skip


def parse(text: str, origin: str, /) -> Layer:
    """The settings in a JSON text, and their positions; see `atlasd.contracts.config.Parse`.

    A key that stands twice is a fault of its own: the standard library would keep the last one.
    """
    reading = _Reading(text, origin)
    data = reading.document()
    return Layer(
        origin=origin,
        data=data,
        values=Offsets(reading.lines, reading.values),
        keys=Offsets(reading.lines, reading.keys),
        faults=tuple(reading.faults),
    )


class _Reading:
    """A text that is being read, and what was found in it."""

    def __init__(self, text: str, origin: str) -> None:
        self.text = text
        self.lines = Lines(text, origin)
        self.values: dict[KeyPath, int] = {}
        self.keys: dict[KeyPath, int] = {}
        self.faults: list[Fault] = []

    def document(self) -> dict[str, Any]:
        start = self.skip(0)
        if start == len(self.text):
            return {}
        if self.text[start] != "{":
            raise self.wrong(start, "expected an object", _advice(self.text, start))
        data, end = self.table(start, ())
        end = self.skip(end)
        if end != len(self.text):
            raise self.wrong(end, "more after the end of the object", "a file is one object")
        return data

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        assert found is not None
        return found.end()

    def value(self, at: int, path: KeyPath) -> tuple[Any, int]:
        self.values[path] = at
        first = self.text[at : at + 1]
        if first == '"':
            return self.string(at)
        if first in ("{", "["):
            if len(path) > DEEPEST:
                raise self.wrong(at, "values nested too deeply", "use fewer brackets in brackets")
            return self.table(at, path) if first == "{" else self.list(at, path)
        number = _NUMBER.match(self.text, at)
        if number is not None and not re.match(r"[0-9.A-Za-z_]", self.text[number.end() :][:1]):
            try:
                real = number[1] or number[2]
                return (float(number[0]) if real else int(number[0])), number.end()
            except ValueError:
                raise self.wrong(at, "the number has too many digits", "shorten it") from None
        word = _WORD.match(self.text, at)
        if word is None or word[0] not in _WORDS:
            raise self.wrong(at, "expected a value", _advice(self.text, at))
        return _WORDS[word[0]], word.end()

    def string(self, at: int) -> tuple[str, int]:
        try:
            found, end = scanstring(self.text, at + 1, True)
        except JSONDecodeError as error:
            words = error.msg.removesuffix(" at").lower()
            raise self.wrong(
                error.pos, words, 'a string is "text", a line break in it \\n'
            ) from None
        if not found.isascii() and re.search("[\ud800-\udfff]", found):
            raise self.wrong(
                at, "half a character (a lone surrogate)", "write the character itself"
            )
        return found, end

    def table(self, at: int, path: KeyPath) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "}":
            return found, at + 1
        while True:
            if self.text[at : at + 1] != '"':
                raise self.wrong(at, "expected a key in quotes", _advice(self.text, at))
            place = at
            key, at = self.string(at)
            at = self.skip(at)
            if self.text[at : at + 1] != ":":
                raise self.wrong(at, "expected a colon after the key", 'write "key": "value"')
            here = (*path, key)
            if key in found:
                first = self.lines.at(self.keys[here])
                self.faults.append(
                    Fault(
                        where=self.lines.at(place),
                        path=here,
                        expected="each key once",
                        got=f"the same key as in line {first.line}",
                        hint="keep one of the two",
                    )
                )
            self.keys[here] = place
            found[key], at = self.value(self.skip(at + 1), here)
            at = self.skip(at)
            if self.text[at : at + 1] == "}":
                return found, at + 1
            at = self.comma(at, "}")

    def list(self, at: int, path: KeyPath) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "]":
            return found, at + 1
        while True:
            item, at = self.value(at, (*path, len(found)))
            found.append(item)
            at = self.skip(at)
            if self.text[at : at + 1] == "]":
                return found, at + 1
            at = self.comma(at, "]")

    def comma(self, at: int, closing: str) -> int:
        if self.text[at : at + 1] != ",":
            raise self.wrong(at, f"expected a comma or {closing}", _advice(self.text, at))
        after = self.skip(at + 1)
        if self.text[after : after + 1] == closing:
            raise self.wrong(at, f"a comma before {closing}", "remove it")
        return after

    def wrong(self, at: int, words: str, hint: str) -> AtlasError:
        place = self.lines.at(at)
        return AtlasError(
            "config.invalid",
            f"{place}: {words}",
            hint=hint,
            details={"origin": place.origin, "line": place.line, "column": place.column},
        )


def _advice(text: str, at: int) -> str:
    rest = text[at:]
    if not rest:
        return "the file ends too early: a closing bracket is missing"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments; TOML and YAML have"
    if rest[0] == "'":
        return 'text needs double quotes: "text"'
    if rest[0] == "\ufeff":
        return "the file begins with a byte order mark; save it without (UTF-8)"
    if re.match(r"True|False|None|NaN|-?Infinity|undefined", rest):
        return "JSON has true, false and null, and no other words"
    if re.match(r"[+.]|0[0-9]", rest):
        return "a number begins with its first digit, and not with a zero before others"
    return 'text needs quotes: "key": "text"'
