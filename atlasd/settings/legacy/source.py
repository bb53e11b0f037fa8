"""An existing file, read: what it means, its comments, and every step that loses something."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.errors import AtlasError


@dataclass(frozen=True, kw_only=True)
class Note:
    """One step that loses or changes something, for the report."""

    where: Position
    key: str
    """Dotted; empty where it is about no single setting."""
    what: str

    def __str__(self) -> str:
        about = f"{self.key}: " if self.key else ""
        return f"{self.where}: {about}{self.what}"


@dataclass(frozen=True, kw_only=True)
class Existing:
    """What an existing file means."""

    tree: dict[str, Any] = field(repr=False)
    positions: Mapping[KeyPath, Position] = field(default_factory=dict)
    comments: Mapping[KeyPath, tuple[str, ...]] = field(default_factory=dict)
    """Lines that stand above a key, without their marks; an empty one is an empty line."""
    closing: tuple[str, ...] = ()
    """Comments behind the last key."""
    notes: tuple[Note, ...] = ()


Parse = Callable[[str, str, str, str], Layer]
"""The layer that a text means, by the sources of configuration: its text, its origin, the name of
the source, and the dialect of one that has several."""


def form_of(path: PurePath) -> str:
    """env, yaml, json or ini, by the file's name. Raises `AtlasError` `usage`."""
    if path.name == ".env" or path.name.startswith(".env.") or path.suffix == ".env":
        return "env"
    found = _FORMS.get(path.suffix)
    if found is None:
        raise AtlasError(
            "usage",
            f"{path}: what kind of file this is cannot be told by its name",
            hint="known: .env, .env.NAME, .yaml, .yml, .json, .ini, .cfg; or say --format",
        )
    return found


_FORMS = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".ini": "ini", ".cfg": "ini"}
FORMS = ("env", "yaml", "json", "ini")


def refused(where: Position, what: str, hint: str) -> AtlasError:
    """The error for what cannot be taken over."""
    return AtlasError(
        "config.invalid",
        f"{where}: {what}",
        hint=hint,
        details={"origin": where.origin, "line": where.line, "column": where.column},
    )
