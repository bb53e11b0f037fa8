"""The files of a configuration as they were at one moment: their bytes, and one digest of all."""

import hashlib
import os
import stat
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

LARGEST = 16 * 2**20
"""Bytes of a file that are looked at; what is larger is no configuration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileText:
    """One file."""

    path: str
    content: bytes = field(repr=False)
    """It may hold secrets in plain text: nothing shows it."""
    mode: int = 0o640

    @property
    def digest(self) -> str:
        """Equal for equal contents."""
        return hashlib.blake2b(self.content, digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All files of a configuration, in the order of their paths."""

    files: tuple[FileText, ...]

    @property
    def digest(self) -> str:
        """Equal for files of the same names and contents."""
        found = hashlib.blake2b(digest_size=16)
        for one in self.files:
            for part in (one.path.encode(errors="surrogateescape"), one.content):
                found.update(len(part).to_bytes(8, "big") + part)
        return found.hexdigest()

    def get(self, path: str) -> FileText | None:
        """The file of this path, or None."""
        return next((one for one in self.files if one.path == path), None)

    @property
    def paths(self) -> frozenset[str]:
        """The files' paths."""
        return frozenset(one.path for one in self.files)


EMPTY = Snapshot(files=())


def take(paths: Iterable[str]) -> Snapshot:
    """The files as they are now; those that are missing or cannot be read are left out."""
    found = []
    for path in sorted(set(paths)):
        one = read(path)
        if one is not None:
            found.append(one)
    return Snapshot(files=tuple(found))


def read(path: str) -> FileText | None:
    """One file as it is now, or None when it is not there, no file, or cannot be read."""
    try:
        # A named pipe would be waited for without O_NONBLOCK, and core with it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(LARGEST)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return FileText(path=path, content=content, mode=stat.S_IMODE(found.st_mode))


def suspicious(before: Snapshot, now: Snapshot) -> tuple[str, ...]:
    """Files that had content and are now missing or empty, as during an editor's rename."""
    found = []
    for one in before.files:
        present = now.get(one.path)
        if one.content.strip() and (present is None or not present.content.strip()):
            found.append(one.path)
    return tuple(found)


def edited(before: Snapshot, parts: Path | None, awaited: Iterable[str] = ()) -> tuple[str, ...]:
    """Files that are not as they were.

    Those that are new in the folder `parts` are among them, and those of `awaited` that came.
    """
    now = take(before.paths)
    changed = {one.path for one in before.files if now.get(one.path) != one}
    endings = {Path(path).suffix for path in before.paths} | {".toml"}
    new = set(_listed(parts, endings)) | {path for path in awaited if os.path.exists(path)}  # noqa: PTH110
    return tuple(sorted(changed | (new - before.paths)))


def _listed(folder: Path | None, endings: Container[str]) -> list[str]:
    try:
        names = list(folder.iterdir()) if folder is not None else []
    except OSError:
        return []
    return [
        str(path)
        for path in names
        if path.suffix in endings and not path.name.startswith((".", "#"))
    ]
