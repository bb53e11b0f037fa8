"""Files that hold keys: read only where nobody else can, and replaced in one step."""

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from atlasd.errors import AtlasError

MOST = 64 * 1024
"""Bytes that a file of keys may have."""

Signature = tuple[int, ...] | None
"""What tells one state of a file from another without reading it; None where there is none."""


def signature(path: Path) -> Signature:
    """The file's signature. Replacing or rewriting it, or changing its mode, gives another one."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (error.errno or 0,)
    return (
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_uid,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def trusted_owners(folder: Path) -> frozenset[int]:
    """Whose files may hold keys or be the store: root's, our own, and for root the daemon's.

    The daemon is whoever `folder`, its state folder, belongs to: an administrator's command looks
    after its files.
    """
    owners = {0, os.geteuid()}
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            owners.add(folder.stat().st_uid)
    return frozenset(owners)


def read(path: Path, owners: Collection[int]) -> bytes:
    """The contents of a file that only its owner, one of `owners`, can read or replace.

    Raises `secret.key` with the sentence that says why it is refused, and `OSError` where it
    cannot be opened.
    """
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in owners:
        raise _refused(path, f"it is a link of user {link.st_uid}'s", f"chown -h root {path}")
    target = path.resolve()
    _check_folder(target.parent, owners)
    with contextlib.ExitStack() as stack:
        # Neither waits for a FIFO's writer, nor follows a link that was put there meanwhile.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        descriptor = os.open(target, flags)
        stack.callback(os.close, descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "it is not a regular file", "")
        if found.st_uid not in owners:
            why = f"it belongs to user {found.st_uid}, neither root nor the daemon's user"
            raise _refused(path, why, f"chown {os.geteuid()} {path}")
        if found.st_mode & 0o077:
            why = f"others than its owner may use it (mode {stat.S_IMODE(found.st_mode):04o})"
            raise _refused(path, why, f"chmod 0400 {path}")
        if found.st_size > MOST:
            raise _refused(path, f"it has more than {MOST // 1024} KiB", "")
        return os.read(descriptor, MOST)


def replace(path: Path, data: bytes, *, owner: int, mode: int = 0o400) -> None:
    """Put `data` in the file's place, durably and in one step; mode and owner are kept.

    A new file gets `owner` and `mode`. A link stays, its target is replaced. Raises `OSError`.
    """
    target = path.resolve()
    with contextlib.suppress(FileNotFoundError):
        before = target.stat()
        owner, mode = before.st_uid, stat.S_IMODE(before.st_mode)
    new = target.with_name(f".{target.name}.new")
    # Only one process writes at a time (see `Keychain`): what is there, a killed one has left.
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner != os.geteuid():
                os.fchown(descriptor, owner, -1)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_folder(folder: Path, owners: Collection[int]) -> None:
    found = folder.stat()
    if found.st_uid not in owners:
        why = f"its folder belongs to user {found.st_uid}, who could replace it"
        raise _refused(folder, why, f"chown root {folder}")
    # In a sticky folder only a file's owner can replace it.
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise _refused(
            folder,
            f"others could replace the keys in it (mode {stat.S_IMODE(found.st_mode):04o})",
            f"chmod go-w {folder}",
        )


def _refused(path: Path, why: str, command: str) -> AtlasError:
    return AtlasError("secret.key", f"{path} is refused: {why}", hint=command)
