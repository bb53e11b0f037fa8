"""What comes of a merge: the data, where each of its parts is from, and what did not fit."""

from dataclasses import dataclass, field
from typing import Any, Literal

from atlasd.config.places import Origin, Shadowed
from atlasd.contracts.config import KeyPath, Layer, Position

Operator = Literal["+", "-", "unset", ""]
"""What a layer does with what lies below."""
Complaint = Literal["no list", "no list below", "no such item", "nothing below", "ids"]
"""`no list`: an operator's value is none. `no list below`: what it is applied to is none. `no such
item`: it removes what isn't there. `nothing below`: there is nothing to remove from or to unset.
`ids`: some tables of a list have an id and some have none, or two have the same."""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Two layers that hold different kinds of value at one path; the higher one was left out."""

    path: KeyPath
    lower: Position
    higher: Position
    lower_value: Any = field(repr=False)
    higher_value: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Misuse:
    """An operator that cannot do its work, or has none to do."""

    path: KeyPath
    complaint: Complaint
    where: Position
    operator: Operator = ""
    value: Any = field(default=None, repr=False)
    """What the complaint is about; it may be a secret."""

    @property
    def warning(self) -> bool:
        """Whether the result is what the layer wants all the same."""
        return self.complaint in ("no such item", "nothing below")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What all layers together say."""

    layer: Layer
    """The data, and for each key and value the file that had the last word on it."""
    conflicts: tuple[Conflict, ...]
    misuses: tuple[Misuse, ...]
    unset: dict[KeyPath, Position]
    """Keys that a layer has unset, and no higher one has set again."""
    _origin: Origin = field(repr=False)
    _shadowed: dict[KeyPath, list[tuple[Layer, KeyPath, Any]]] = field(repr=False)

    @property
    def data(self) -> dict[str, Any]:
        """The settings themselves."""
        return self.layer.data

    def shadowed(self, path: KeyPath) -> tuple[Shadowed, ...]:
        """The values that were replaced, removed or unset at a path, the lowest layer first."""
        return tuple(
            Shadowed(value=value, place=layer.where(source), layer=layer.name)
            for layer, source, value in self._shadowed.get(path, ())
        )

    def layer_of(self, path: KeyPath) -> Layer:
        """The layer that had the last word on a path, or on what is nearest around it."""
        return self._origin.at(path)[0].layer

    def has(self, path: KeyPath) -> bool:
        """Whether a layer says something at a path."""
        value: Any = self.layer.data
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return False
        return True
