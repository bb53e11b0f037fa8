"""Settings from INI files, as Python's configparser reads them; every value is text.

    # a comment, also with ;          a line of its own: behind a value it would be part of it
    [section]
    key = value                       or `key: value`
        and a second line of it       lines that are indented go on with the value
    flag                              a key without a value: empty text

Keys before the first section are settings of the top. `[DEFAULT]` is a section like any other,
and nothing is interpolated.
"""

import re

from atlasd import hookimpl
from atlasd.contracts.config import ConfigSource, Fault, KeyPath, Layer, Lines, Offsets

ATLASD_API = 1

_SECTION = re.compile(r"\[(?P<name>.+)\]")
_OPTION = re.compile(r"(?P<key>[^=:]*?)[ \t]*(?:(?P<sign>[=:])[ \t]*(?P<value>.*))?", re.DOTALL)


@hookimpl
def register_config_sources() -> list[ConfigSource]:
    """The `ini` source."""
    return [
        ConfigSource(
            name="ini", summary="INI files, all values text, errors with line and column",
            suffixes=(".ini", ".cfg"), parse=parse,
        )
    ]  # fmt: skip


def parse(text: str, origin: str, /) -> Layer:
    """The settings in an INI text, and their positions; see `atlasd.contracts.config.Parse`."""
    reading = _Reading(text.removeprefix("\ufeff").replace("\r\n", "\n"), origin)
    at = 0
    for line in reading.text.split("\n"):
        reading.line(line, at)
        at += len(line) + 1
    reading.end_value()
    return Layer(
        origin=origin,
        data=reading.data,
        values=Offsets(reading.lines, reading.values),
        keys=Offsets(reading.lines, reading.keys),
        faults=tuple(reading.faults),
        text=True,
    )


class _Reading:
    """A text that is being read, line by line."""

    def __init__(self, text: str, origin: str) -> None:
        self.text = text
        self.lines = Lines(text, origin)
        self.data: dict[str, object] = {}
        self.values: dict[KeyPath, int] = {}
        self.keys: dict[KeyPath, int] = {}
        self.faults: list[Fault] = []
        self._section: KeyPath = ()
        self._value: list[str] = []
        self._path: KeyPath = ()
        self._indent = 0

    def line(self, line: str, at: int) -> None:
        """Take in one line that begins at an offset."""
        said = line.strip()
        if said.startswith(("#", ";")):
            return
        if not said:
            if self._path:
                self._value.append("")
            return
        indent = len(line) - len(line.lstrip())
        if self._path and indent > self._indent:
            self._value.append(said)
            return
        self.end_value()
        self._indent = indent
        section = _SECTION.match(said)
        if section is not None:
            self._begin(section["name"], at + indent)
            return
        option = _OPTION.fullmatch(said)
        assert option is not None
        if not option["key"]:
            self._fault(at + indent, (), "KEY = VALUE, or [SECTION]", "a line without a key")
            return
        self._option(option["key"], option["value"] or "", at + indent, option.start("value"))

    def _begin(self, name: str, at: int) -> None:
        self._section = (name,)
        found = self.data.setdefault(name, {})
        if not isinstance(found, dict):
            self._fault(at, (name,), "a section's own name", "that of a key before it")
            self.data[name] = {}
        self.keys.setdefault((name,), at)
        self.values.setdefault((name,), at)

    def _option(self, key: str, value: str, at: int, value_at: int) -> None:
        path = (*self._section, key)
        if path in self.keys:
            first = self.lines.at(self.keys[path]).line
            self.faults.append(
                Fault(
                    where=self.lines.at(at),
                    path=path,
                    got=f"{key} again, which line {first} has set",
                    hint="this value counts; remove the other line",
                    warning=True,
                )
            )
        self.keys[path] = at
        self.values[path] = at + max(value_at, 0)
        self._path = path
        self._value = [value]

    def end_value(self) -> None:
        """Put the value that was being read in its place."""
        if not self._path:
            return
        while self._value and not self._value[-1]:
            self._value.pop()
        table: dict[str, object] = self.data
        if self._section:
            section = self.data[str(self._section[0])]
            assert isinstance(section, dict)
            table = section
        table[str(self._path[-1])] = "\n".join(self._value)
        self._path = ()

    def _fault(self, at: int, path: KeyPath, expected: str, got: str) -> None:
        where = self.lines.at(at)
        self.faults.append(Fault(where=where, path=path, expected=expected, got=got))
