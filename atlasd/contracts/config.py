"""What a configuration source promises: one layer of settings, and where each of them stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

KeyPath = tuple[str | int, ...]
"""The way to a setting: table keys, and indexes where a list is crossed; `()` is the whole."""


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one source says: plain data, and the position of every key and value in it.

    `data` holds what TOML knows: strings, whole and real numbers, booleans, dates and times, lists
    and tables with string keys. `values` has the position of every leaf, list and table, lists'
    elements included; `keys` that of every table's key, where it is first written.
    """

    origin: str
    data: dict[str, Any]
    values: Mapping[KeyPath, Position] = field(default_factory=dict)
    keys: Mapping[KeyPath, Position] = field(default_factory=dict)

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


class Read(Protocol):
    """Reading a source: called at start and at every reload, from a thread where it may block."""

    def __call__(self, origin: Path, /) -> Layer:
        """The layer that the file holds now.

        Raises `AtlasError("config.missing")` when there is no such file, and
        `AtlasError("config.invalid")` when it cannot be read or does not parse: the message opens
        with `file:line:column`. `details` then has `origin`, `line` and `column`.
        """


@dataclass(frozen=True, kw_only=True)
class ConfigSource:
    """A kind of configuration file, as `register_config_sources` returns it.

    Sources are opened before anything else is known, so they have no settings of their own.
    """

    name: str
    """What the kind is called: `toml`."""
    summary: str
    """One line for `atlasctl plugins`."""
    suffixes: tuple[str, ...]
    """Endings of file names that this source reads, with their dot: `.toml`."""
    read: Read
    requires: tuple[str, ...] = ()
    """Modules that `read` imports; looked for when the plugin is admitted."""
    extra: str = ""
    """The extra of atlasd that brings them: `pip install 'atlasd[extra]'`."""
