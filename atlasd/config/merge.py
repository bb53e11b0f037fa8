"""Layers of settings laid over each other: tables deep, everything else replaced, origins kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atlasd.contracts.config import KeyPath, Layer, Position

Kinds = Callable[[KeyPath], frozenset[str]]
"""The kinds of value that may stand at a path; empty where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Two layers that hold different kinds of value at one path; the higher one was left out."""

    path: KeyPath
    lower: Position
    higher: Position
    lower_value: Any
    higher_value: Any


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What all layers together say."""

    layer: Layer
    """The data, and for each key and value the file that had the last word on it."""
    shadowed: dict[KeyPath, tuple[Position, ...]]
    """Where values stand that a higher layer replaced, the lowest first."""
    conflicts: tuple[Conflict, ...]

    @property
    def data(self) -> dict[str, Any]:
        """The settings themselves."""
        return self.layer.data


def merge(
    layers: Sequence[Layer], kind_of: Callable[[Any], str], kinds: Kinds | None = None
) -> Merged:
    """All layers in one, the first one lowest.

    A value of another kind than the one below it is a conflict, unless `kinds` allows both there
    (a command may be a string or a list). No layer is changed.
    """
    merging = _Merging(kind_of, kinds or (lambda _path: frozenset()))
    for layer in layers:
        merging.lay(layer, merging.data, layer.data, ())
    return Merged(
        layer=Layer(
            origin=layers[-1].origin if layers else "",
            data=merging.data,
            values=merging.values,
            keys=merging.keys,
        ),
        shadowed=merging.shadowed,
        conflicts=tuple(merging.conflicts),
    )


class _Merging:
    """The state of one merge."""

    def __init__(self, kind_of: Callable[[Any], str], kinds: Kinds) -> None:
        self.kind_of = kind_of
        self.kinds = kinds
        self.data: dict[str, Any] = {}
        self.values: dict[KeyPath, Position] = {}
        self.keys: dict[KeyPath, Position] = {}
        self.shadowed: dict[KeyPath, tuple[Position, ...]] = {}
        self.conflicts: list[Conflict] = []

    def lay(
        self, layer: Layer, below: dict[str, Any], above: dict[str, Any], path: KeyPath
    ) -> None:
        for key, value in above.items():
            here = (*path, key)
            if key not in below:
                below[key] = self.take(layer, value, here)
            elif isinstance(value, dict) and isinstance(below[key], dict):
                self.lay(layer, below[key], value, here)
            elif self.compatible(below[key], value, here):
                old = self.values.get(here)
                if old is not None:
                    self.shadowed[here] = (*self.shadowed.get(here, ()), old)
                self.forget(below[key], here)
                below[key] = self.take(layer, value, here)
            else:
                self.conflicts.append(
                    Conflict(
                        path=here,
                        lower=self.values.get(here) or self.keys.get(here) or layer.where(()),
                        higher=layer.where(here),
                        lower_value=below[key],
                        higher_value=value,
                    )
                )

    def compatible(self, old: Any, new: Any, path: KeyPath) -> bool:
        found = {self.kind_of(old), self.kind_of(new)}
        return len(found) == 1 or found <= self.kinds(path)

    def take(self, layer: Layer, value: Any, path: KeyPath) -> Any:
        """A copy of the value, its positions noted."""
        if path in layer.values:
            self.values[path] = layer.values[path]
        if path in layer.keys:
            self.keys[path] = layer.keys[path]
        if isinstance(value, dict):
            return {key: self.take(layer, item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.take(layer, item, (*path, i)) for i, item in enumerate(value)]
        return value

    def forget(self, value: Any, path: KeyPath) -> None:
        """Drop the positions of a value that is replaced."""
        self.values.pop(path, None)
        self.keys.pop(path, None)
        if isinstance(value, dict):
            for key, item in value.items():
                self.forget(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.forget(item, (*path, index))
