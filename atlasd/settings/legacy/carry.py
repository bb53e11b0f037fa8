"""The taking over of existing files, done: all of it, or nothing."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from atlasd.errors import AtlasError
from atlasd.settings.legacy.plan import References, Taken, prove
from atlasd.settings.legacy.source import Parse


class Store(Protocol):
    """The place where secrets are kept; each call may block, and raises `AtlasError`."""

    def get(self, name: str) -> str | None:
        """The value, or None where there is no such secret."""

    def put(self, name: str, value: str) -> None:
        """Keep a value."""

    def drop(self, name: str) -> None:
        """Forget a secret that was put a moment ago."""


@dataclass(kw_only=True)
class _Undo:
    """What has been done so far, to be undone when something fails."""

    store: Store | None
    secrets: list[tuple[str, str | None]] = field(default_factory=list, repr=False)
    """Names that were put, with the values before."""
    files: list[tuple[Path, bytes | None]] = field(default_factory=list, repr=False)
    """Files that were replaced, with what was in them."""
    folders: list[Path] = field(default_factory=list)
    waiting: list[Path] = field(default_factory=list)
    """Files that were written beside their places."""

    def undo(self) -> list[str]:
        """Undo it in reverse; what could not be undone."""
        left = []
        for path in self.waiting:
            path.unlink(missing_ok=True)
        for path, before in reversed(self.files):
            try:
                if before is None:
                    path.unlink(missing_ok=True)
                else:
                    _place(_beside(path, before, path.stat().st_mode & 0o777, path), path)
            except OSError:
                left.append(str(path))
        for folder in reversed(self.folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
        for name, value in reversed(self.secrets):
            assert self.store is not None
            try:
                if value is None:
                    self.store.drop(name)
                else:
                    self.store.put(name, value)
            except AtlasError:
                left.append(f"the secret {name}")
        return left


def carry_out(
    taken: Sequence[Taken],
    store: Store | None,
    parse: Parse,
    references: References,
    *,
    force: bool = False,
) -> None:
    """Put the secrets, write the files, read all of it back; or leave everything as it was.

    `force` allows to replace files and secrets that exist. Raises `AtlasError`.
    """
    _free(taken, force=force)
    undo = _Undo(store=store)
    try:
        for one in taken:
            _secrets(one, undo, force=force)
            prove(one, parse, references, _kept(one, store))
        for one in taken:
            _folder(one.target.parent, undo)
            content = one.text.encode()
            undo.waiting.append(_beside(one.target, content, one.mode & 0o666, one.source))
        for one, written in zip(taken, list(undo.waiting), strict=True):
            before = one.target.read_bytes() if one.target.exists() else None
            undo.files.append((one.target, before))
            _place(written, one.target)
        for one in taken:
            prove(one, parse, references, one.secrets, one.target.read_text(encoding="utf-8"))
    except OSError as error:
        raise _undone(
            undo,
            AtlasError(
                "config.invalid",
                f"{error.filename or 'a file'} cannot be written: {error.strerror}",
                hint="nothing was changed; choose another --out",
            ),
        ) from None
    except AtlasError as error:
        raise _undone(undo, error) from None
    except BaseException:
        undo.undo()
        raise


def _undone(undo: _Undo, error: AtlasError) -> AtlasError:
    left = undo.undo()
    if not left:
        return error
    told = f"{error.message}; not taken back again: {', '.join(left)}"
    return AtlasError(error.code, told, hint=error.hint)


def _free(taken: Sequence[Taken], *, force: bool) -> None:
    for one in taken:
        if one.target.is_dir():
            raise AtlasError(
                "config.exists", f"{one.target} is a folder", hint="name a file, or another folder"
            )
        if one.target.exists() and not force:
            raise AtlasError(
                "config.exists",
                f"{one.target} exists; nothing was changed",
                hint="choose another --out, or replace it with --force",
            )


def _secrets(one: Taken, undo: _Undo, *, force: bool) -> None:
    for name, value in one.secrets.items():
        assert undo.store is not None
        before = undo.store.get(name)
        if before == value:
            continue  # from an attempt before this one, or from another file
        if before is not None and not force:
            raise AtlasError(
                "secret.conflict",
                f"a secret {name} exists and has another value; nothing was changed",
                hint="choose other names with --name, or replace it with --force",
            )
        undo.store.put(name, value)
        undo.secrets.append((name, before))


def _kept(one: Taken, store: Store | None) -> dict[str, str]:
    """The secrets as the store has them now, which is what will be read."""
    found = {}
    for name in one.secrets:
        assert store is not None
        value = store.get(name)
        if value is not None:
            found[name] = value
    return found


def _folder(folder: Path, undo: _Undo) -> None:
    if folder.is_dir():
        return
    folder.mkdir(mode=0o750)
    undo.folders.append(folder)


def _beside(target: Path, content: bytes, mode: int, like: Path) -> Path:
    """The content in a file beside its place, durable, with the owner of the file it is from."""
    written = target.with_name(f".{target.name}.{os.getpid()}.new")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  it is open already
            file.write(content)
            file.flush()
            with contextlib.suppress(OSError):  # who may not give it away keeps it
                owner = like.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    return written


def _place(written: Path, target: Path) -> None:
    written.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
