"""Where each setting of a merged configuration came from: places and values, looked up late."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from atlasd.contracts.config import KeyPath, Layer, Position

DEFAULTS = "built-in default"
"""The origin of what no layer says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shadowed:
    """A value that a higher layer has replaced, removed or unset."""

    value: Any = field(repr=False)
    """It may be a secret: show it through `problems.shown` only."""
    place: Position
    layer: str
    """The name of its layer."""


class Origin:
    """A piece of the merged data: the layer that it is from, and what replaced parts of it.

    Positions are only looked up when somebody asks: merging thousands of keys makes none.
    """

    __slots__ = ("below", "layer", "path")

    def __init__(self, layer: Layer, path: KeyPath) -> None:
        self.layer = layer
        self.path = path
        self.below: dict[str | int, Origin] = {}
        """Parts that another layer gave, by their key or index."""

    def at(self, path: KeyPath) -> "tuple[Origin, KeyPath]":
        """The origin of what lies at `path` below this, and its path in the layer it is from."""
        here = self
        for depth, key in enumerate(path):
            nearer = here.below.get(key)
            if nearer is None:
                return here, (*here.path, *path[depth:])
            here = nearer
        return here, here.path


class Places(Mapping[KeyPath, Position]):
    """The position of every key, or of every value, of merged data."""

    def __init__(self, root: Origin, data: dict[str, Any], *, keys: bool) -> None:
        self._root = root
        self._data = data
        self._keys = keys

    def __getitem__(self, path: KeyPath) -> Position:
        if not path:
            raise KeyError(path)
        origin, source = self._root.at(path)
        known = origin.layer.keys if self._keys else origin.layer.values
        return known[source]

    def __iter__(self) -> Iterator[KeyPath]:
        return (path for path in _paths(self._data, ()) if self.get(path) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))
