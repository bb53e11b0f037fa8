"""The kernel's word that something in a folder has changed, by the C library's own calls."""

import ctypes
import os
import struct
from dataclasses import dataclass

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000

ANYTHING = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
    | IN_DELETE_SELF | IN_MOVE_SELF
)  # fmt: skip
"""What is heard of a folder. IN_ATTRIB is how the kernel tells that a name of a file went away."""
GONE = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED
"""The folder itself is no longer where it was."""

_HEADER = struct.Struct("iIII")


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One event: the folder as it was named, and the name in it; empty: the folder itself.

    `folder` is empty when the queue overflowed: anything may have happened.
    """

    folder: str
    name: str
    gone: bool = False


class Inotify:
    """Watches folders. Raises `OSError` where the kernel does not allow it (its limits, say)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._checked(
            self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1"
        )
        """Readable when something was heard."""
        self._folders: dict[int, str] = {}

    @property
    def folders(self) -> frozenset[str]:
        """The folders that are watched, as they were named."""
        return frozenset(self._folders.values())

    def watch(self, folders: frozenset[str]) -> None:
        """Watch exactly these folders; those that are not there are passed over.

        Raises `OSError` for the first one that the kernel has no room for; the others are watched.
        """
        wanted: dict[int, str] = {}
        refused: OSError | None = None
        for folder in sorted(folders):
            try:
                wanted[self._add(folder)] = folder
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            except OSError as error:
                refused = refused or error
        for watch in self._folders.keys() - wanted.keys():
            # It may have gone with its folder.
            self._libc.inotify_rm_watch(self.descriptor, watch)
        self._folders = wanted
        if refused is not None:
            raise refused

    def read(self) -> list[Heard]:
        """What was heard since the last time; never waits."""
        try:
            raw = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return []
        found = []
        at = 0
        while at < len(raw):
            watch, mask, _, length = _HEADER.unpack_from(raw, at)
            at += _HEADER.size
            name = os.fsdecode(raw[at : at + length].split(b"\0", 1)[0])
            at += length
            if mask & IN_Q_OVERFLOW:
                found.append(Heard(folder="", name="", gone=True))
                continue
            folder = self._folders.get(watch)
            if folder is not None:
                found.append(Heard(folder=folder, name=name, gone=bool(mask & GONE)))
            if mask & IN_IGNORED:
                self._folders.pop(watch, None)
        return found

    def close(self) -> None:
        """Let go of all watches."""
        os.close(self.descriptor)

    def _add(self, folder: str) -> int:
        # An existing watch of the same folder is found again by the kernel, under its number.
        return self._checked(
            self._libc.inotify_add_watch(
                self.descriptor, os.fsencode(folder), ANYTHING | IN_ONLYDIR
            ),
            folder,
        )

    def _checked(self, answer: int, what: str) -> int:
        if answer < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), what)
        return answer
