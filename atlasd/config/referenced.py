"""What became of references: the data with their values, and what may be shown in their place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from atlasd.config import references
from atlasd.contracts.config import KeyPath
from atlasd.contracts.secrets import Reference, Sealed, SecretsPolicy


@dataclass(frozen=True, kw_only=True)
class Source:
    """A secret of which a setting is made."""

    reference: Reference | Sealed
    backend: str = ""
    version: str = ""
    fetched: datetime | None = None
    stale: bool = False

    def __str__(self) -> str:
        """`secret://db#password`, or `enc:…` for a value that stands encrypted in the file."""
        if isinstance(self.reference, Sealed):
            return f"enc:{self.reference.binding}"
        return str(self.reference)


@dataclass(frozen=True, kw_only=True)
class Referenced:
    """A setting that refers to something else: what may be shown in place of its value."""

    text: str
    """As the file has it: `secret://db#password`; of an encrypted value only the key's id."""
    sources: tuple[Source, ...] = ()
    """The secrets that it is made of; none where it is made of variables, files and settings."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A value that must not show anywhere."""

    name: str
    """What is shown in its place."""
    value: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The data with every reference resolved."""

    data: dict[str, Any] = field(repr=False)
    policy: SecretsPolicy
    references: Mapping[KeyPath, Referenced]
    known: Mapping[KeyPath, tuple[Known, ...]] = field(repr=False)

    def known_below(self, *prefixes: KeyPath) -> tuple[Known, ...]:
        """The values that settings at or below the paths are made of, each once."""
        found: dict[Known, None] = {}
        for path, values in self.known.items():
            if any(path[: len(prefix)] == prefix for prefix in prefixes):
                found.update(dict.fromkeys(values))
        return tuple(found)


class Absent:
    """What an optional reference to nothing stands for."""


ABSENT = Absent()


def written(value: Any) -> str:
    """A value inside a string."""
    if isinstance(value, Absent):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text in the data that may refer to something."""
    if isinstance(value, str):
        if path and ("${" in value or value.startswith((references.SCHEME, references.SEALED))):
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, (*path, index))


def table_at(data: Any, *path: str | int) -> dict[str, Any]:
    """The table at a path; an empty one where there is none."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def branches_of(values: Mapping[KeyPath, Any]) -> frozenset[KeyPath]:
    """The tables and lists in which something changes."""
    return frozenset(path[:length] for path in values for length in range(len(path)))


def rebuilt(
    value: Any, path: KeyPath, values: Mapping[KeyPath, Any], branches: frozenset[KeyPath]
) -> Any:
    """A copy where something changes; what stays as it is isn't copied."""
    if path in values:
        return values[path]
    if path not in branches:
        return value
    items: Sequence[tuple[Any, Any]]
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    made = {key: rebuilt(item, (*path, key), values, branches) for key, item in items}
    kept = {key: item for key, item in made.items() if not isinstance(item, Absent)}
    return kept if isinstance(value, dict) else list(kept.values())
