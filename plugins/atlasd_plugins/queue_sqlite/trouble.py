"""What is wrong when the database refuses, and what a person can do about it."""

import sqlite3
from pathlib import Path

from atlasd.errors import AtlasError

_REQUEST = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_TOOBIG,
}
"""Codes that are about what was asked, not about the database."""

_FULL = "make room on its file system; nothing was lost, and it works again by itself"
_READONLY = (
    "make {path} and its folder writable for atlasd's user; a file system that went read-only by "
    "itself has a reason in the kernel's log (`dmesg`)"
)
_DISK = "the disk has failed to read or write: the kernel's log (`dmesg`) tells more"
_LOCKED = "another process holds the file; `fuser {path}` names it"
_CORRUPT = (
    "the file is left as it is. Stop atlasd, keep a copy of it and of {path}-wal, then restore a "
    "backup, or save what can be read with `sqlite3 {path} .recover | sqlite3 recovered.db` "
    "(Debian's sqlite3 lacks it, sqlite.org's has it) and put that in its place"
)
_OTHER = "check the folder's owner, its file system's free space and the disk, then try again"

_HINTS = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READONLY,
    sqlite3.SQLITE_PERM: _READONLY,
    sqlite3.SQLITE_CANTOPEN: _READONLY,
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
}


def trouble_of(path: Path, error: Exception) -> AtlasError | None:
    """`job.store` for an error of the database or the disk; None when a request is to blame."""
    if not isinstance(error, sqlite3.Error | OSError):
        return None
    # The extended code says more than is needed: its low byte is the kind.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _REQUEST:
        return None
    hint = _HINTS.get(code, _OTHER).format(path=path)
    return AtlasError("job.store", f"the queue {path} cannot be used: {error}", hint=hint)
