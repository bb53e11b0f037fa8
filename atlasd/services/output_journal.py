"""Where output is between a pipe and its log file, so that it survives the death of this process.

A chunk is read straight into a mapped file: what the kernel has handed over is in the page cache,
whoever dies. The header says where the chunk was going:

    1. offset, inode and owner of the log file, and the time, are stored; state := TAKING
    2. readv into the data region (it holds only zeros before)
    3. the chunk is appended to the log file
    4. state := WRITTEN; the data region is zeroed; on to 1

Found TAKING with bytes in the data region, the successor cuts the log file back to the offset and
writes the chunk again: the same bytes, since records depend on chunk and time alone. Found WRITTEN,
there is nothing to do. Each store is one aligned 8-byte word, so none is ever half done.

Where secrets are taken out, a chunk's end may be held back in a file of its own (`Carry`), and the
records depend on what was held back of the chunk before too. The new end is staged beside the old
one after 3; then state := SETTLING; the new end takes the old one's place; then 4. Found TAKING,
the old end is the right one; found SETTLING, the new one, which a successor puts in its place.
What is held back when the program has ended is appended without a chunk: state ENDING for TAKING.

The chunk's length is stored right after the read. For a death between those two instructions the
length is found by stripping trailing zeros: only then, a chunk that truly ended in NULs loses them.
"""

import mmap
import os
from typing import NamedTuple

HEADER = 4096
CHUNK = 1 << 19
"""Bytes that are read at once, at most."""

_MAGIC = int.from_bytes(b"atlasout", "little")
_VERSION = 1
_WRITTEN = 0
_TAKING = 1
_SETTLING = 2
_ENDING = 3
# Words of the header.
_W_MAGIC, _W_VERSION, _W_STATE, _W_OFFSET, _W_INODE, _W_MICROS, _W_LENGTH, _W_OWNER = range(8)
_OWNER = 64  # where the owner's bytes begin


class Unfinished(NamedTuple):
    """A chunk that was taken from its pipe and may not, or only partly, be in its log file."""

    owner: bytes
    offset: int
    """Size of the log file before the chunk; negative if it could not be opened."""
    inode: int
    micros: int
    data: bytes
    ending: bool = False
    """There is no chunk: what was held back is to be written, as nothing follows it."""


def owner_of(service: str, instance: int, stream: str) -> bytes:
    """Whose a chunk is, as it stands in the journal."""
    return f"{service}\0{instance}\0{stream}".encode()


def split_owner(owner: bytes) -> tuple[str, int, str]:
    """Service, instance and stream that `owner_of` was given."""
    service, instance, stream = owner.decode().split("\0")
    return service, int(instance), stream


class Journal:
    """The mapped file. One chunk at a time; `begin`, `read`, `taken`, `done`."""

    def __init__(self, path: str, *, chunk: int = CHUNK) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size <= HEADER:
                size = HEADER + chunk
            # Allocated now: a full file system is an error here rather than a SIGBUS later.
            os.posix_fallocate(fd, 0, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.chunk = size - HEADER
        self._words = memoryview(self._map)[:_OWNER].cast("Q")
        self._signed = memoryview(self._map)[:_OWNER].cast("q")
        self._data = memoryview(self._map)[HEADER:]
        self._into = (self._data,)
        self._zeros = memoryview(bytes(self.chunk))  # only read, so it takes no memory
        self._owner: bytes | None = None
        words = self._words
        if words[_W_MAGIC] != _MAGIC or words[_W_VERSION] != _VERSION:
            words[_W_STATE] = _WRITTEN
            words[_W_VERSION] = _VERSION
            words[_W_MAGIC] = _MAGIC
            self.clear()

    def unfinished(self) -> Unfinished | None:
        """What a predecessor had taken and may not have written; `clear` when that is done."""
        words = self._words
        ending = words[_W_STATE] == _ENDING
        if words[_W_STATE] != _TAKING and not ending:
            return None
        length = words[_W_LENGTH]
        data = self._map[HEADER : HEADER + length] if length else self._map[HEADER:].rstrip(b"\0")
        if not data and not ending:
            return None
        return Unfinished(
            self._written_owner(),
            self._signed[_W_OFFSET],
            words[_W_INODE],
            words[_W_MICROS],
            data,
            ending,
        )

    def settling(self) -> bytes | None:
        """Whose chunk a predecessor had written, but not put the new held back end in its place."""
        return self._written_owner() if self._words[_W_STATE] == _SETTLING else None

    def _written_owner(self) -> bytes:
        return self._map[_OWNER : _OWNER + self._words[_W_OWNER]]

    def clear(self) -> None:
        """Forget all that is in the data region, whoever put it there."""
        self._words[_W_STATE] = _WRITTEN
        self._data[:] = self._zeros
        self._words[_W_LENGTH] = 0
        self.trim()

    def begin(
        self, owner: bytes, offset: int, inode: int, micros: int, *, ending: bool = False
    ) -> None:
        """Say where the next chunk goes. The data region is empty, so no order matters here.

        `ending`: no chunk comes, but what was held back is to be written.
        """
        words = self._words
        if owner is not self._owner:
            self._map[_OWNER : _OWNER + len(owner)] = owner
            words[_W_OWNER] = len(owner)
            self._owner = owner
        self._signed[_W_OFFSET] = offset
        words[_W_INODE] = inode
        words[_W_MICROS] = micros
        words[_W_STATE] = _ENDING if ending else _TAKING

    def read(self, fd: int) -> int:
        """Bytes taken from `fd` into the journal; 0 when it has none at the moment."""
        try:
            count = os.readv(fd, self._into)
        except BlockingIOError:
            return 0
        self._words[_W_LENGTH] = count
        return count

    def taken(self, count: int, before: bytes = b"") -> bytes:
        """The chunk that was read, after `before`."""
        if before:
            return b"".join((before, self._data[:count]))
        return self._map[HEADER : HEADER + count]

    def settle(self) -> None:
        """The chunk is in its log file, and the new held back end is staged."""
        self._words[_W_STATE] = _SETTLING

    def done(self, count: int) -> None:
        """The chunk is in its log file, or is given up: it need not be remembered."""
        self._words[_W_STATE] = _WRITTEN
        self._data[:count] = self._zeros[:count]
        self._words[_W_LENGTH] = 0

    def trim(self) -> None:
        """After a flood: give the mapping's memory back to the page cache; the content stays."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap. What is unfinished stays in the file."""
        self._words.release()
        self._signed.release()
        self._data.release()
        self._into = ()  # type: ignore[assignment]
        self._map.close()
