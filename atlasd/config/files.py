"""Reading a configuration file: what every source leaves to us, and its kind by its name."""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atlasd.contracts.config import ConfigSource, KeyPath, Layer
from atlasd.errors import AtlasError

DEEPEST = 200
"""Tables and lists in each other; what lies deeper is no configuration."""
LARGEST = 16 * 2**20
"""Bytes; a larger file is no configuration, and parsing it would hold everything up."""


class Sources:
    """What can read configuration files, by the endings of their names."""

    def __init__(self, sources: Sequence[ConfigSource]) -> None:
        self._by_suffix = {suffix: source for source in sources for suffix in source.suffixes}
        self._all = sources

    def of(self, path: Path) -> ConfigSource | None:
        """The source that reads a file of this name: by its ending, or by all of `.env`."""
        name = path.name
        # `.env` is all ending, and `.env.local` is another one of its kind.
        ending = ".env" if name == ".env" or name.startswith(".env.") else path.suffix
        return self._by_suffix.get(ending)

    def of_settings(self, path: Path) -> ConfigSource | None:
        """The same, for a file that must hold settings and not variables."""
        source = self.of(path)
        return source if source is not None and source.parse is not None else None

    def named(self, name: str) -> ConfigSource | None:
        """The source of this name."""
        return next((source for source in self._all if source.name == name), None)

    @property
    def endings(self) -> list[str]:
        """Endings of files of settings, as a message lists them."""
        return sorted(suffix for suffix, s in self._by_suffix.items() if s.parse is not None)


def read(
    path: Path,
    source: ConfigSource,
    *,
    dialect: str = "",
    variables: Mapping[str, str] | None = None,
) -> Layer:
    """The layer that a file holds now.

    `dialect` chooses one where the source has several, `variables` are those of the process,
    which values may refer to in some of them. Raises `AtlasError`: `config.missing` when there is
    no such file, `config.invalid` when it cannot be read or does not parse; see `parse`.
    """
    text, modified = _text(path)
    layer = parse(text, str(path), source, dialect=dialect, variables=variables)
    return replace(layer, modified=modified)


def parse(
    text: str,
    origin: str,
    source: ConfigSource,
    *,
    dialect: str = "",
    variables: Mapping[str, str] | None = None,
) -> Layer:
    """The layer that a text means, read as a file of the name `origin` would be.

    Raises `AtlasError("config.invalid")`, its place in `details` as `origin`, `line`, `column`.
    """
    if source.parse is not None:
        layer = source.parse(text, origin)
    elif dialect in source.dialects:
        layer = source.dialects[dialect](text, origin, variables or {})
    else:
        known = ", ".join(source.dialects) or "none"
        raise _unreadable(
            origin,
            f"no dialect {dialect!r} of {source.name} is known",
            f"known dialects: {known}",
        )
    deep = too_deep(layer.data)
    if deep is not None:
        where = layer.where(deep)
        raise AtlasError(
            "config.invalid",
            f"{where}: values nested too deeply",
            hint="use fewer brackets in brackets",
            details={"origin": where.origin, "line": where.line, "column": where.column},
        )
    return replace(layer, source=source.name, dialect=dialect if source.dialects else "")


def too_deep(value: Any) -> KeyPath | None:
    """The path of something in a value that lies deeper than `DEEPEST`; None where nothing does.

    Whatever walks through settings may then do it by recursion.
    """
    todo: list[tuple[Any, KeyPath]] = [(value, ())]
    while todo:
        found, path = todo.pop()
        if len(path) > DEEPEST:
            return path
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        todo += [(item, (*path, key)) for key, item in pairs if isinstance(item, dict | list)]
    return None


def _text(path: Path) -> tuple[str, datetime]:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer, and core with it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISFIFO(found.st_mode):
                raise OSError(errno.EINVAL, "it is a named pipe, not a file")
            if stat.S_ISDIR(found.st_mode):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            with open(descriptor, "rb", closefd=False) as file:
                raw = file.read(LARGEST + 1) or b""
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        raise AtlasError(
            "config.missing",
            f"{path}: there is no such file",
            hint="write it, or name another one with --config FILE",
            details={"origin": str(path), "line": 0, "column": 0},
        ) from None
    except OSError as error:
        raise _unreadable(
            str(path),
            f"cannot be read: {error.strerror}",
            "it must be a file that atlasd is allowed to read",
        ) from error
    if len(raw) > LARGEST:
        raise _unreadable(
            str(path),
            f"it has more than {LARGEST // 2**20} MiB",
            "this is no configuration file; split it if it is",
        )
    try:
        return raw.decode(), datetime.fromtimestamp(found.st_mtime, UTC)
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode().replace("\r\n", "\n")
        line, column = good.count("\n") + 1, len(good) - good.rfind("\n")
        raise AtlasError(
            "config.invalid",
            f"{path}:{line}:{column}: not UTF-8 text",
            hint="save the file as UTF-8",
            details={"origin": str(path), "line": line, "column": column},
        ) from error


def _unreadable(origin: str, words: str, hint: str) -> AtlasError:
    return AtlasError(
        "config.invalid",
        f"{origin}: {words}",
        hint=hint,
        details={"origin": origin, "line": 0, "column": 0},
    )
