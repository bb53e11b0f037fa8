"""What configuration and the engine of application settings tell each other: plain values."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from atlasd.contracts.config import KeyPath, Layer, Position

MODEL = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
"""A pydantic model, as `schema` names it."""


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """Something that is wrong with settings of an application; never a secret's value."""

    where: Position
    key: str = ""
    """Dotted: of the setting, or of the part of the configuration that names it."""
    expected: str = ""
    got: str = ""
    hint: str = ""
    shadows: str = ""
    """Of a value that is wrong: the value below it that it replaces, and where that stands."""
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of settings, as `files` of a set names it."""

    path: str
    """Absolute, the environment's name put in."""
    optional: bool
    where: Position
    """Of the name in the configuration."""


@dataclass(frozen=True, kw_only=True)
class DeclaredSet:
    """`[settings.NAME]`: what a set is made of, and what it has to be."""

    name: str
    environment: str
    folder: str
    """Where relative paths start: the folder of the configuration file that declares it."""
    files: tuple[SourceFile, ...]
    dialect: str = "bash"
    values: Layer
    """Settings that stand in the configuration itself; they beat those of the files."""
    operators: bool = True
    """Whether keys that end in + or - append to lists of other layers and remove from them."""
    schema: str = ""
    """A path, or `module:Class`; empty for none."""
    python: str = ""
    """Interpreter for `module:Class`; empty: atlasd's own."""
    env_prefix: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further names of environment variables, each with the dotted key that it stands for."""
    check: tuple[str, ...] = ()
    places: Mapping[str, Position] = field(default_factory=dict)
    """Where the configuration says each of these; the empty key is the table itself."""

    def place(self, key: str = "") -> Position:
        """Where the configuration says `key`, or else where the set begins."""
        return self.places.get(key) or self.places[""]


@dataclass(frozen=True, kw_only=True)
class DeclaredFile:
    """A file that a service is to be given, rendered from its settings."""

    path: str
    """Its name in the service's own folder."""
    format: str
    """json | toml | yaml | env | template"""
    variable: str = "SETTINGS"
    """The program is told its path in VARIABLE_FILE."""
    template: str = ""
    """Absolute path, for the format template."""
    dialect: str = "bash"
    """For the format env."""
    check: tuple[str, ...] = ()
    where: Position
    key: str


@dataclass(frozen=True, kw_only=True)
class DeclaredUse:
    """What a service wants of the sets."""

    service: str
    sets: tuple[str, ...]
    files: tuple[DeclaredFile, ...] = ()
    """Empty: it is given environment variables."""
    env: Collection[str] = ()
    """Variables that the service sets itself, which beat those of the settings."""
    reserved: Collection[str] = ()
    """Variables that it has by other ways, and that settings must not claim."""
    where: Position


@dataclass(frozen=True, kw_only=True)
class FileRead:
    """A file of settings, read."""

    layer: Layer
    textual: bool = False
    """Whether all its values are text that has no types of its own (.env, .ini)."""
    variables: bool = False
    """Whether its keys are names of environment variables (.env)."""


@dataclass(frozen=True, kw_only=True)
class Laid:
    """Layers of settings, merged by the rules of the configuration."""

    layer: Layer
    shadowed: Callable[[KeyPath], tuple[Position, ...]]
    """Where values stand that a higher layer replaced at a path, the lowest first."""
    shadow: Callable[[KeyPath], str] = lambda _path: ""
    """The value that was replaced at a path last, for people, and where it stands."""
    complaints: tuple[Complaint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Settings in which every reference to a secret has been replaced by what it stands for."""

    data: dict[str, Any] = field(repr=False)
    secrets: Mapping[KeyPath, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """For each setting that holds or contains secrets: their values, by the names that are
    written in their place."""
    references: Mapping[KeyPath, str] = field(default_factory=dict)
    """For each setting that refers to something: what is shown in place of its value."""
    unknown: frozenset[KeyPath] = frozenset()
    """Settings that refer to something which nobody was asked for, or which is not there."""
    complaints: tuple[Complaint, ...] = ()


class Tools(Protocol):
    """What the configuration does for the engine, by the very rules that it keeps itself."""

    def read(self, path: Path, dialect: str) -> FileRead:
        """A file of settings, by the source for its ending.

        Raises `AtlasError`: `config.missing`, or `config.invalid` for one that does not parse.
        """

    def lay(
        self,
        layers: Sequence[Layer],
        *,
        any_kind: Collection[KeyPath] = (),
        operators: bool = True,
    ) -> Laid:
        """The layers in one, the first one lowest; at `any_kind` no two kinds conflict."""

    def fill(self, name: str, layer: Layer) -> Filled:
        """The settings of the set `name` with their references resolved; nothing is raised."""

    def refers(self, text: str) -> bool:
        """Whether a text is, or contains, a reference that `fill` would resolve."""
