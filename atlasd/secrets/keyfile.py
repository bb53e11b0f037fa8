"""Keys that the engine makes for itself: read where they are, made once where they are not."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from atlasd.errors import AtlasError

LENGTH = 32
"""Bytes of a key."""


def key(path: Path, *, credential: str, credentials: str | None) -> bytes:
    """The key: a systemd credential of that name if there is one, else the file.

    `credentials` is the folder of systemd's credentials (`$CREDENTIALS_DIRECTORY`). A file that is
    not there is made, mode 0600. Raises `AtlasError("secret.key")` for one that others could read,
    that is no key, or that cannot be had.
    """
    if credentials:
        given = Path(credentials, credential)
        with contextlib.suppress(FileNotFoundError):
            return _checked(given.read_bytes(), given)
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as error:
        raise AtlasError(
            "secret.key",
            f"{path}: the key cannot be read or made: {error.strerror}",
            hint="the daemon's user must own its state folder",
        ) from error


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise AtlasError(
                "secret.key",
                f"{path}: others can read this key: its mode is {stat.S_IMODE(status.st_mode):04o}",
                hint=f"chmod 0600 {path}; if others may have read it, remove it: a new one is made",
            )
        # Root may work in the folder of the daemon's user, whose key it is then.
        if status.st_uid not in (0, os.geteuid(), path.parent.stat().st_uid):
            raise AtlasError(
                "secret.key",
                f"{path}: it belongs to user {status.st_uid}, not to the daemon's",
                hint=f"chown {os.geteuid()} {path}",
            )
        return _checked(file.read(), path)


def _checked(raw: bytes, path: Path) -> bytes:
    if len(raw) != LENGTH:
        raise AtlasError(
            "secret.key",
            f"{path}: it is no key: {len(raw)} bytes, not {LENGTH}",
            hint="restore it from its backup; without one, what it protects is lost",
        )
    return raw


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(LENGTH))
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):  # another role was first: its key it is
            path.hardlink_to(fresh)
    finally:
        fresh.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a crash of the host."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
