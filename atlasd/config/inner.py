"""Layers within layers: what lies below a key as a layer of its own, and back again."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from atlasd.contracts.config import KeyPath, Layer, Position


def part(data: Any, path: KeyPath) -> Any:
    """What stands at a path, or None."""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


class _Under(Mapping[KeyPath, Position]):
    """Positions of a tree that has been put into another one."""

    def __init__(
        self,
        outer: Mapping[KeyPath, Position],
        prefix: KeyPath,
        inner: Mapping[KeyPath, Position],
    ) -> None:
        self._outer = outer
        self._prefix = prefix
        self._inner = inner

    def __getitem__(self, path: KeyPath) -> Position:
        depth = len(self._prefix)
        if path[:depth] == self._prefix and len(path) > depth:
            return self._inner[path[depth:]]
        return self._outer[path]

    def __iter__(self) -> Iterator[KeyPath]:
        depth = len(self._prefix)
        yield from (path for path in self._outer if path[:depth] != self._prefix)
        yield from ((*self._prefix, *path) for path in self._inner)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Below(Mapping[KeyPath, Position]):
    """Positions of what lies below a path, as if it were all."""

    def __init__(self, outer: Mapping[KeyPath, Position], prefix: KeyPath) -> None:
        self._outer = outer
        self._prefix = prefix

    def __getitem__(self, path: KeyPath) -> Position:
        return self._outer[*self._prefix, *path]

    def __iter__(self) -> Iterator[KeyPath]:
        depth = len(self._prefix)
        return (path[depth:] for path in self._outer if path[:depth] == self._prefix)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def within(layer: Layer, prefix: KeyPath) -> Layer:
    """What lies below a path, as a layer of its own."""
    data = part(layer.data, prefix)
    return Layer(
        origin=layer.where(prefix).origin,
        data=data if isinstance(data, dict) else {},
        values=_Below(layer.values, prefix),
        keys=_Below(layer.keys, prefix),
    )


def put_in(outer: Layer, prefix: KeyPath, inner: Layer) -> Layer:
    """The outer layer, with the inner one in place of what stands at the path."""
    return replace(
        outer,
        data=_with(outer.data, prefix, inner.data),
        values=_Under(outer.values, prefix, inner.values),
        keys=_Under(outer.keys, prefix, inner.keys),
    )


def _with(data: Any, path: KeyPath, value: Any) -> Any:
    if not path:
        return value
    table = dict(data) if isinstance(data, dict) else {}
    return table | {path[0]: _with(table.get(path[0]), path[1:], value)}
