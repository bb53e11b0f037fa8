"""Which files make up a configuration, in which order, and for which environment."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atlasd.config import files, shape
from atlasd.config.files import Sources
from atlasd.config.merge import Merged, merge
from atlasd.config.problems import Problem
from atlasd.contracts.config import ConfigSource, Layer
from atlasd.errors import AtlasError, nearest
from atlasd.paths import Paths

BUILT_IN = ("development", "staging", "production")
"""Environments that need no file."""
OTHERWISE = "production"
"""The environment of those who name none: what is meant for development must be asked for."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Everything that was read, the lowest layer first."""

    environment: str
    chosen_by: str
    """What named the environment: `--env`, `ATLASD_ENV`, a place in a file, or `default`."""
    layers: tuple[Layer, ...]
    problems: tuple[Problem, ...]


def read(
    paths: Paths,
    sources: Sequence[ConfigSource],
    *,
    env: str | None,
    environ: Mapping[str, str],
) -> Layers:
    """The layers of the files: the main one, conf.d in byte order, then the environment's.

    The environment's name is taken from `env` (`--env`), else from ATLASD_ENV, else from
    `host.environment` in the files below it. Files that cannot be read become problems.
    Raises `AtlasError`: `config.missing` without a main file, `config.environment` for an unknown
    environment.
    """
    reading = _Reading(sources)
    reading.main(Path(paths.config_file))
    for path in reading.parts(Path(paths.config_parts)):
        reading.file(path)
    name, chosen_by = _environment(reading.layers, env, environ)
    folder = Path(paths.environments)
    files = [path for path in reading.parts(folder) if path.stem == name]
    if name not in BUILT_IN and not files:
        raise _unknown_environment(name, chosen_by, reading.parts(folder))
    if len(files) > 1:
        reading.problems.append(
            Problem(
                file=str(files[1]),
                expected=f"one file for the environment {name}",
                got=f"{files[0].name} beside it",
            )
        )
    for path in files[:1]:
        reading.file(path)
        reading.problems += _contradiction(reading.layers, name, path)
    return Layers(
        environment=name,
        chosen_by=chosen_by,
        layers=tuple(reading.layers),
        problems=tuple(reading.problems),
    )


def lay(layers: Sequence[Layer]) -> Merged:
    """The layers merged by the schema's idea of what may replace what."""
    return merge(layers, shape.rules())


class _Reading:
    """Files read so far."""

    def __init__(self, sources: Sequence[ConfigSource]) -> None:
        self._sources = Sources(sources)
        self.layers: list[Layer] = []
        self.problems: list[Problem] = []
        self._passed_over: set[Path] = set()

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
            self.layers.append(files.read(path, source))
        except AtlasError as error:
            if error.code == "config.missing":
                raise AtlasError(
                    "config.missing",
                    f"{path}: there is no configuration",
                    hint="write it (share/atlasd/etc/atlasd.toml shows every setting), or name "
                    "another with --config FILE or --root DIR",
                ) from None
            self.problems.append(_unread(error, path))

    def file(self, path: Path) -> None:
        """Read a file that was found."""
        source = self._sources.of_settings(path)
        assert source is not None
        try:
            self.layers.append(files.read(path, source))
        except AtlasError as error:
            self.problems.append(_unread(error, path))

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
            self.problems.append(
                Problem(file=str(folder), got=f"the folder cannot be read: {error.strerror}")
            )
            return []
        files = []
        for path in found:
            if path.name.startswith((".", "#")) or path.name.endswith(_LEFT_ABOUT):
                continue
            # Unlike pathlib's, this never raises; what cannot be looked at, reading it will tell.
            if self._sources.of_settings(path) is not None and not os.path.isdir(path):  # noqa: PTH112
                files.append(path)
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
        return files


_LEFT_ABOUT = ("~", ".bak", ".dpkg-dist", ".dpkg-new", ".dpkg-old", ".md", ".orig", ".rej", ".swp")


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


def _environment(
    layers: Sequence[Layer], env: str | None, environ: Mapping[str, str]
) -> tuple[str, str]:
    if env:
        return env, "--env"
    if environ.get("ATLASD_ENV"):
        return environ["ATLASD_ENV"], "ATLASD_ENV"
    for layer in reversed(layers):
        host = layer.data.get("host")
        name = host.get("environment") if isinstance(host, dict) else None
        if isinstance(name, str):
            return name, str(layer.where(("host", "environment")))
    return OTHERWISE, "default"


def _unknown_environment(name: str, chosen_by: str, files: Sequence[Path]) -> AtlasError:
    known = sorted({*BUILT_IN, *(path.stem for path in files)})
    close = nearest(name, known)
    listed = f"known environments: {', '.join(known)}"
    return AtlasError(
        "config.environment",
        f"{chosen_by}: unknown environment {name!r}; {listed}",
        hint=close if close.startswith("did") else f"write environments/{name}.toml to have it",
        details={"environment": name, "known": known},
    )


def _contradiction(layers: Sequence[Layer], name: str, path: Path) -> list[Problem]:
    """An environment's own file that names another environment would be read by halves."""
    if not layers or layers[-1].origin != str(path):
        return []
    host = layers[-1].data.get("host")
    said = host.get("environment") if isinstance(host, dict) else None
    if said is None or said == name:
        return []
    where = layers[-1].where(("host", "environment"))
    return [
        Problem(
            file=where.origin,
            line=where.line,
            column=where.column,
            key="host.environment",
            expected=f'"{name}", as the file is named, or nothing',
            got=repr(said),
        )
    ]
