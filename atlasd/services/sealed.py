"""Memory that nobody can change any more, passed as a descriptor: a sealed memfd."""

import errno
import fcntl
import os

_NOEXEC_SEAL = 8
"""MFD_NOEXEC_SEAL of Linux 6.3; Python has no name for it yet."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _NOEXEC_SEAL


def sealed(name: str, data: bytes) -> int:
    """A descriptor of these bytes, at their beginning; `name` is what /proc shows.

    Its offset is nobody else's. Raises `OSError`.
    """
    fd = _create(name)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _create(name: str) -> int:
    global _flags  # noqa: PLW0603  a kernel doesn't change
    try:
        return os.memfd_create(name, _flags)
    except OSError as error:
        if error.errno != errno.EINVAL or not _flags & _NOEXEC_SEAL:
            raise
        _flags &= ~_NOEXEC_SEAL  # Linux before 6.3
        return os.memfd_create(name, _flags)
