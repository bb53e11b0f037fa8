"""What a configuration source promises: one layer of settings, and where each of them stands."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

KeyPath = tuple[str | int, ...]
"""The way to a setting: table keys, and indexes where a list is crossed; `()` is the whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where something stands, for a person who is to mend it."""

    origin: str
    """The file as the operator named it, or another name for the place (`environment SHOP_X`)."""
    line: int = 0
    """Counted from 1; 0 where the origin has no lines."""
    column: int = 0
    """Counted from 1, in characters; 0 where the origin has no lines."""

    def __str__(self) -> str:
        """`file:line:column`, as editors and terminals understand it."""
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


class Lines:
    """Lines and columns of offsets in one text, whose lines are counted when first asked for."""

    def __init__(self, text: str, origin: str) -> None:
        self._text = text
        self._origin = origin
        self._starts: list[int] = []

    def at(self, offset: int) -> Position:
        """The position of the character at an offset."""
        if not self._starts:
            self._starts = [0, *_line_starts(self._text)]
        line = bisect_right(self._starts, offset)
        column = offset - self._starts[line - 1] + 1
        return Position(origin=self._origin, line=line, column=column)


def _line_starts(text: str) -> Iterator[int]:
    at = text.find("\n")
    while at >= 0:
        yield at + 1
        at = text.find("\n", at + 1)


class Offsets(Mapping[KeyPath, Position]):
    """Positions by path, made of offsets when asked for: of a thousand keys few are ever named."""

    def __init__(self, lines: Lines, offsets: Mapping[KeyPath, int]) -> None:
        self._lines = lines
        self._offsets = offsets

    def __getitem__(self, path: KeyPath) -> Position:
        return self._lines.at(self._offsets[path])

    def __contains__(self, path: object) -> bool:
        return path in self._offsets

    def __iter__(self) -> Iterator[KeyPath]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong or doubtful in a text that could be read all the same."""

    where: Position
    got: str
    """What came; no value that may be a secret."""
    expected: str = ""
    path: KeyPath = ()
    """Of the setting; empty where it is about no single one."""
    hint: str = ""
    warning: bool = False
    """The layer may be used all the same."""


UNSET: Mapping[str, bool] = {"unset": True}
"""In the place of a value: whatever lower layers say of the key does not hold (`!unset`)."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one source says: plain data, and the position of every key and value in it.

    `data` holds what TOML knows: strings, whole and real numbers, booleans, dates and times, lists
    and tables with string keys; and None where a form has it. `values` has the position of every
    leaf, list and table, elements of lists included; `keys` that of every key of a table, where it
    is first written.
    """

    origin: str
    data: dict[str, Any]
    values: Mapping[KeyPath, Position] = field(default_factory=dict)
    keys: Mapping[KeyPath, Position] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    """What is wrong with the text beyond its first mistake; none are raised but told all at once.
    With one that is no warning, the layer is not used."""
    text: bool = False
    """The values are text that is still to be read by the schema: variables have no types."""
    # What the reader of the file adds:
    name: str = ""
    """Which layer it is: `main file`, `conf.d`, `environment production` …"""
    source: str = ""
    """The source that read it: `toml`."""
    dialect: str = ""
    """Of a source that knows several."""
    modified: datetime | None = None
    """When the file was last changed."""

    def where(self, path: KeyPath) -> Position:
        """The position of the value at `path`, or of the nearest thing around it that has one."""
        return self._nearest(path, self.values)

    def where_key(self, path: KeyPath) -> Position:
        """The position of the key that ends `path`, else that of the value, else around it."""
        found = self.keys.get(path)
        return found if found is not None else self._nearest(path, self.values)

    def _nearest(self, path: KeyPath, known: Mapping[KeyPath, Position]) -> Position:
        for length in range(len(path), 0, -1):
            found = known.get(path[:length]) or self.keys.get(path[:length])
            if found is not None:
                return found
        return Position(origin=self.origin)


class Parse(Protocol):
    """Reading the text of a file: called at start and at every reload; it touches nothing else."""

    def __call__(self, text: str, origin: str, /) -> Layer:
        """The layer that the text means; `origin` is the name of its place in positions.

        Raises `AtlasError("config.invalid")` for a text that means nothing: the message opens with
        `file:line:column`, and `details` has `origin`, `line` and `column`. What does not keep the
        rest from being read goes into `faults` instead.
        """


class ParseVariables(Protocol):
    """Reading a file of NAME=VALUE lines in one dialect."""

    def __call__(self, text: str, origin: str, variables: Mapping[str, str], /) -> Layer:
        """The variables: a layer whose data is text by name. Raises as `Parse` does.

        `variables` are those of the process, for dialects in which a value may refer to them.
        """


class Outline(Protocol):
    """What may stand in one place of the settings, and what stands there already."""

    @property
    def kinds(self) -> frozenset[str]:
        """Of string, number, boolean, list, table, date: those taken here; empty: not known."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that a table here may have: all of them, or all that are known."""

    @property
    def open(self) -> bool:
        """Whether a table here may have other keys too, as names that the operator chose."""

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that lower layers have here."""

    def new_name(self, word: str, /) -> str:
        """The name that a part of a variable's name means, where the table here is `open`."""

    def child(self, key: str, /) -> "Outline | None":
        """What may stand at a key of the table here; None where there can be no such key."""


class NameSettings(Protocol):
    """Finding out which settings variables mean."""

    def __call__(self, variables: Layer, outline: Outline, prefix: str, /) -> Layer:
        """The variables whose names begin with `prefix`, as tables of text (`Layer.text`).

        Those that mean no setting become `faults`.
        """


@dataclass(frozen=True, kw_only=True)
class ConfigSource:
    """A kind of configuration file, as `register_config_sources` returns it.

    It has one of `parse` (a file of settings), `dialects` (a file of variables, which can be
    read in several ways) and `name_settings` (no file: what variables mean). Sources are used
    before anything else is known, so they have no settings of their own.
    """

    name: str
    """What the kind is called: `toml`."""
    summary: str
    """One line for `atlasctl plugins`."""
    suffixes: tuple[str, ...] = ()
    """Endings of file names that this source reads, with their dot: `.toml`."""
    parse: Parse | None = None
    dialects: Mapping[str, ParseVariables] = field(default_factory=dict)
    """By name: which one a file is written in, whoever names the file has to say."""
    name_settings: NameSettings | None = None
    requires: tuple[str, ...] = ()
    """Modules that it imports; looked for when the plugin is admitted."""
    extra: str = ""
    """The extra of atlasd that brings them: `pip install 'atlasd[extra]'`."""
