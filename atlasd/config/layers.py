"""Which layers make up a configuration, in which order, and for which environment."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from atlasd.config import environments, files, shape, texts
from atlasd.config.environments import Choice
from atlasd.config.files import Sources
from atlasd.config.merge import Merged, Merging
from atlasd.config.outline import Further, nothing_further, outline
from atlasd.config.problems import Problem, dotted
from atlasd.contracts.config import ConfigSource, Fault, KeyPath, Layer, NameSettings
from atlasd.errors import AtlasError
from atlasd.paths import Paths

PREFIX = "ATLASD__"
"""What the name of a variable begins with that is a setting."""
DIALECT = "systemd"
"""Of atlasd.env: it can be the EnvironmentFile= of a unit too."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """One layer, as `atlasctl config sources` lists it."""

    name: str
    """`main file`, `conf.d`, `environment production` …"""
    origin: str
    """The file, or what else it is from."""
    source: str = ""
    """What reads it: `toml`."""
    dialect: str = ""
    modified: datetime | None = None
    """When the file was last changed; None for what is no file."""
    keys: int = 0
    """How many settings it has."""
    present: bool = True
    """False for an optional file that isn't there."""

    def to_wire(self) -> dict[str, object]:
        """As JSON-able material."""
        return {
            "name": self.name,
            "origin": self.origin,
            "source": self.source,
            "dialect": self.dialect,
            "modified": self.modified.isoformat() if self.modified is not None else None,
            "keys": self.keys,
            "present": self.present,
        }


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Everything that was read, the lowest layer first."""

    environment: str
    chosen_by: str
    """What named the environment: `--env`, `ATLASD_ENV`, a place in a file, or `default`."""
    layers: tuple[Layer, ...]
    """Those of variables as they are: what their names mean depends on the layers below."""
    problems: tuple[Problem, ...]
    complete: bool
    """Whether every layer could be read, as far as it goes."""
    described: tuple[Described, ...]
    """Every layer there is or could be, the lowest first; without the defaults."""
    naming: Mapping[str, NameSettings]
    """By name of the layer: how it is found out which settings its variables mean."""

    @property
    def awaited(self) -> tuple[str, ...]:
        """Files that need not exist, and don't."""
        return tuple(d.origin for d in self.described if not d.present and d.origin[:1] == "/")


@dataclass(frozen=True, kw_only=True)
class Laid:
    """All layers, laid over each other."""

    merged: Merged
    problems: tuple[Problem, ...]


def read(
    paths: Paths,
    sources: Sequence[ConfigSource],
    *,
    env: str | None,
    environ: Mapping[str, str],
    overrides: Sequence[str] = (),
    hostname: str = "",
) -> Layers:
    """The layers: main file, conf.d, environment, host, atlasd.env, variables, `--set`.

    The environment's name is taken from `env` (`--env`), else from ATLASD_ENV, else from
    `host.environment` in the layers, the highest first. Files that cannot be read become problems.
    Raises `AtlasError`: `config.missing` without a main file, `config.environment` for an unknown
    environment.
    """
    reading = _Reading(sources, environ)
    reading.main(Path(paths.config_file))
    for path in reading.parts(Path(paths.config_parts)):
        reading.file(path, "conf.d")
    below = reading.take()
    reading.of_host(Path(paths.hosts), hostname or os.uname().nodename)
    reading.variables(Path(paths.variables))
    reading.process()
    reading.command_line(overrides)
    above = reading.take()

    known = environments.files_of(reading.parts(Path(paths.environments)))
    choice = environments.choose([*below, *above], reading.naming, env, environ, PREFIX)
    environments.require(choice, known)
    for layer in reading.environments(choice, known, Path(paths.environments)):
        reading.add(layer)
    layers = (*below, *reading.take(), *above)
    return Layers(
        environment=choice.name,
        chosen_by=choice.by,
        layers=layers,
        problems=tuple(reading.problems),
        complete=reading.complete,
        described=tuple(sorted(reading.described, key=lambda d: _rank(d.name))),
        naming=reading.naming,
    )


def lay(found: Layers, further: Further = nothing_further) -> Laid:
    """The layers merged by the schema's idea of what may replace what.

    `further` knows the models of plugins, by which the variables of their settings are read.
    """
    merging = Merging(shape.rules())
    problems: list[Problem] = []
    for layer in found.layers:
        name_settings = found.naming.get(layer.name)
        taken = layer
        if name_settings is not None:
            taken = _named(layer, name_settings, merging.data, further)
            problems += [of_fault(fault) for fault in taken.faults if fault not in layer.faults]
        merging.add(taken)
    return Laid(merged=merging.result(), problems=tuple(problems))


def _named(
    layer: Layer, name_settings: NameSettings, below: dict[str, Any], further: Further
) -> Layer:
    named = name_settings(layer, outline(below, further), PREFIX)

    def informed(path: KeyPath, table: Mapping[str, Any]) -> Any:
        # The variables may say themselves of which type the table is.
        own: Any = named.data
        for key in path:
            own = own.get(key, {}) if isinstance(own, dict) else {}
        return further(path, {**table, **own} if isinstance(own, dict) else table)

    typed = texts.typed(named, outline(below, informed))
    return replace(typed, name=layer.name, source=layer.source, dialect=layer.dialect)


def of_fault(fault: Fault) -> Problem:
    """The problem that a source has told of."""
    return Problem(
        file=fault.where.origin,
        line=fault.where.line,
        column=fault.where.column,
        key=dotted(fault.path),
        expected=fault.expected,
        got=fault.got,
        hint=fault.hint,
        warning=fault.warning,
    )


BESIDE_NO_FILE = ("process environment", "command line", "built-in defaults", "")
"""Layers that are no file: relative paths in them start at the main file's folder."""

_ORDER = (
    "main file",
    "conf.d",
    "environment",
    "host file",
    ".env file",
    "process environment",
    "command line",
)


def _rank(name: str) -> int:
    return next(number for number, start in enumerate(_ORDER) if name.startswith(start))


class _Reading:
    """Files read so far."""

    def __init__(self, sources: Sequence[ConfigSource], environ: Mapping[str, str]) -> None:
        self._sources = Sources(sources)
        self._environ = environ
        self._layers: list[Layer] = []
        self._passed_over: set[Path] = set()
        self.problems: list[Problem] = []
        self.complete = True
        """False once a layer is missing from those that there are."""
        self.described: list[Described] = []
        self.naming: dict[str, NameSettings] = {}

    def take(self) -> list[Layer]:
        """The layers that were added since the last time."""
        taken, self._layers = self._layers, []
        return taken

    def add(self, layer: Layer) -> None:
        """Add a layer that was read, and tell of its faults."""
        self._layers.append(layer)
        self.problems += [of_fault(fault) for fault in layer.faults]
        self.described.append(
            Described(
                name=layer.name,
                origin=layer.origin,
                source=layer.source,
                dialect=layer.dialect,
                modified=layer.modified,
                keys=count(layer.data),
            )
        )

    def absent(self, name: str, origin: str) -> None:
        """Note an optional layer that isn't there."""
        self.described.append(Described(name=name, origin=origin, present=False))

    def main(self, path: Path) -> None:
        """Read the main file, which must be there."""
        source = self._sources.of_settings(path)
        if source is None:
            raise AtlasError(
                "config.invalid",
                f"{path}: no plugin reads files of this kind",
                hint=f"known endings: {', '.join(self._sources.endings) or 'none'}",
            )
        try:
            self.add(replace(files.read(path, source), name="main file"))
        except AtlasError as error:
            if error.code == "config.missing":
                raise AtlasError(
                    "config.missing",
                    f"{path}: there is no configuration",
                    hint="write it (share/atlasd/etc/atlasd.toml shows every setting), or name "
                    "another with --config FILE or --root DIR",
                ) from None
            self._miss(_unread(error, path))

    def _miss(self, problem: Problem) -> None:
        self.problems.append(problem)
        self.complete = False

    def file(self, path: Path, name: str) -> None:
        """Read a file of settings that was found."""
        layer = self._read(path)
        if layer is not None:
            self.add(replace(layer, name=name))

    def _read(self, path: Path) -> Layer | None:
        source = self._sources.of_settings(path)
        assert source is not None
        try:
            return files.read(path, source)
        except AtlasError as error:
            self._miss(_unread(error, path))
            return None

    def of_host(self, folder: Path, hostname: str) -> None:
        """Read the file of this host, named with or without its domain."""
        names = tuple(dict.fromkeys((hostname, hostname.partition(".")[0])))
        found = [path for path in self.parts(folder) if path.stem in names]
        if len(found) > 1:
            self._miss(_two(found, f"one file for the host {names[-1]}"))
        if found:
            self.file(found[0], "host file")
        else:
            self.absent("host file", str(folder / f"{names[-1]}.toml"))

    def variables(self, path: Path) -> None:
        """Read atlasd.env, where there is one."""
        source = self._sources.of(path)
        if not os.path.lexists(path):
            self.absent(".env file", str(path))
            return
        if source is None or not source.dialects:
            self.problems.append(
                Problem(file=str(path), got="not read: no plugin reads .env files", warning=True)
            )
            return
        try:
            layer = files.read(path, source, dialect=DIALECT, variables=self._environ)
        except AtlasError as error:
            self._miss(_unread(error, path))
            return
        self._of_variables(replace(layer, name=".env file"))
        for name in layer.data:
            if not name.startswith(PREFIX):
                where = layer.where_key((name,))
                self.problems.append(
                    Problem(
                        file=where.origin,
                        line=where.line,
                        column=where.column,
                        got=f"{name} is no setting: their names begin with {PREFIX}",
                        hint=f"write {PREFIX}HOST__ENVIRONMENT" if name == "ATLASD_ENV" else "",
                        warning=True,
                    )
                )

    def process(self) -> None:
        """The variables of the process itself."""
        layer = texts.variables(self._environ, PREFIX)
        if layer.data:
            self._of_variables(replace(layer, name="process environment", source="environ"))
        else:
            self.absent("process environment", f"{PREFIX}…")

    def _of_variables(self, layer: Layer) -> None:
        named = self._sources.named("environ")
        if named is None or named.name_settings is None:
            where = layer.where_key(tuple(layer.data)[:1])
            got = "not read: no plugin finds out which settings variables mean"
            self.problems.append(Problem(file=where.origin, got=got, warning=True))
            return
        self.add(layer)
        self.naming[layer.name] = named.name_settings

    def command_line(self, overrides: Sequence[str]) -> None:
        """What `--set KEY=VALUE` says."""
        layer = replace(texts.assignments(overrides), name="command line")
        if not overrides:
            self.absent("command line", "--set KEY=VALUE")
            return
        self.add(layer)
        self.naming[layer.name] = texts.name_keys

    def environments(
        self, choice: Choice, known: Mapping[str, list[Path]], folder: Path
    ) -> list[Layer]:
        """The files of the environment and of those that it extends, the lowest first."""
        chain = environments.Chain(choice, known, self._read)
        layers = chain.layers()
        self.problems += chain.problems
        self.complete = self.complete and not chain.problems
        if not layers and not known.get(choice.name):
            self.absent(f"environment {choice.name}", str(folder / f"{choice.name}.toml"))
        return layers

    def parts(self, folder: Path) -> list[Path]:
        """The files of a folder that a source reads, in the byte order of their names.

        What editors and package managers leave about is passed over in silence, anything else
        with a warning: a misspelt ending would otherwise look like a setting without effect.
        """
        try:
            found = sorted(folder.iterdir(), key=lambda path: path.name.encode())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._miss(
                Problem(file=str(folder), got=f"the folder cannot be read: {error.strerror}")
            )
            return []
        parts = []
        for path in found:
            if path.name.startswith((".", "#")) or path.name.endswith(_LEFT_ABOUT):
                continue
            # Unlike pathlib's, this never raises; what cannot be looked at, reading it will tell.
            if self._sources.of_settings(path) is not None and not os.path.isdir(path):  # noqa: PTH112
                parts.append(path)
            elif path not in self._passed_over:
                self._passed_over.add(path)
                self.problems.append(
                    Problem(
                        file=str(path),
                        got="not read: no plugin reads files of this kind",
                        hint=f"known endings: {', '.join(self._sources.endings)}",
                        warning=True,
                    )
                )
        return parts


_LEFT_ABOUT = ("~", ".bak", ".dpkg-dist", ".dpkg-new", ".dpkg-old", ".md", ".orig", ".rej", ".swp")


def count(value: object) -> int:
    """How many settings there are in a table; a list is one."""
    if isinstance(value, dict) and value:
        return sum(count(item) for item in value.values())
    return 0 if value == {} else 1


def _two(found: Sequence[Path], expected: str) -> Problem:
    return Problem(file=str(found[1]), expected=expected, got=f"{found[0].name} beside it")


def _unread(error: AtlasError, path: Path) -> Problem:
    """The problem that a source has raised about a file, its place taken apart again."""
    origin = str(error.details.get("origin", path))
    line, column = error.details.get("line", 0), error.details.get("column", 0)
    assert isinstance(line, int)
    assert isinstance(column, int)
    place = f"{origin}:{line}:{column}" if line else origin
    return Problem(
        file=origin,
        line=line,
        column=column,
        got=error.message.removeprefix(place).removeprefix(": "),
        hint=error.hint,
    )
