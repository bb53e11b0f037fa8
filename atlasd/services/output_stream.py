"""One output stream of one instance: its pipe, and what was held back of what came through it."""

import fcntl
import os
import stat
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING

from atlasd.services.output_file import LogFile
from atlasd.services.output_journal import owner_of
from atlasd.services.output_secrets import Carry

if TYPE_CHECKING:
    from atlasd.services.output import Capture

PIPE_DEFAULT = 65536
"""Bytes that fit into a pipe, if nobody has asked for more."""


class Stream:
    """One output stream of one instance; its pipe outlives the processes that write to it."""

    __slots__ = (
        "adopted",
        "bytes_total",
        "capture",
        "carry",
        "fd",
        "file",
        "flood",
        "key",
        "lost_bytes",
        "lost_lines",
        "mark",
        "path",
        "read_at",
        "redactor",
        "tap",
        "widened",
    )

    def __init__(
        self, capture: "Capture", file: LogFile, stream: str, fd: int, path: str, *, adopted: bool
    ) -> None:
        self.capture = capture
        self.file = file
        self.mark = stream.encode()
        self.key = owner_of(file.service, file.instance, stream)
        self.path = path
        self.fd = fd
        """The reading end, non-blocking. Others may hold duplicates, and must not read."""
        self.adopted = adopted
        """Whether the pipe was there before, perhaps with processes that write to it."""
        self.flood = PIPE_DEFAULT * 3 // 4
        """A read of so many bytes says that the pipe was full, and the writer perhaps waiting."""
        self.widened = False
        self.read_at = 0
        """When something was last read, in microseconds since the epoch."""
        self.bytes_total = 0
        self.lost_bytes = 0
        self.lost_lines = 0
        self.tap: Callable[[bytes], object] | None = None
        """Is called with what was written of every chunk, while somebody watches the output."""
        self.redactor = capture.secrets.redactor(file.service, file.instance)
        """Takes the secrets out that the instance was given."""
        self.carry = Carry(carry_path(path))
        """What was held back of the last chunk, as a value may begin there."""

    @property
    def service(self) -> str:
        """Name of the service."""
        return self.file.service

    @property
    def instance(self) -> int:
        """Index of the instance."""
        return self.file.instance

    @property
    def stream(self) -> str:
        """Its name: stdout or stderr."""
        return self.mark.decode()

    def readable(self, _mask: int) -> None:
        """The loop says that there is something to read."""
        self.capture.enqueue(self)

    def child_end(self) -> int:
        """A new descriptor for a child's stdout or stderr; the caller closes it.

        It's blocking, close-on-exec, and open for reading too. So the child has a reader in itself
        and no death of ours makes it die of SIGPIPE: its output waits in the pipe.
        """
        if self.carry.data or (
            self.mark not in self.file.mid_line and self.file.unfinished(self.mark)
        ):
            # Of a process that ended while nobody was there to end its line.
            self.capture.end_line(self)
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{self.fd}", flags)
        except FileNotFoundError:  # no /proc
            return os.open(self.path, flags)

    def drain(self) -> None:
        """Read what is in the pipe now, without waiting for the loop."""
        left = struct.unpack("i", fcntl.ioctl(self.fd, termios.FIONREAD, b"\0\0\0\0"))[0]
        while left > 0:
            count = self.capture.take(self)
            if not count:
                return
            left -= count

    def finish(self) -> None:
        """Drain, and end a line that the exited process left unfinished."""
        self.drain()
        if self.carry.data or self.file.unfinished(self.mark):
            self.capture.end_line(self)

    def close(self, *, remove: bool = False) -> None:
        """Give the reading end back. `remove`: the pipe too; for an instance that is no more."""
        if self.fd < 0:
            return
        self.capture.forget(self)
        os.close(self.fd)
        self.fd = -1
        if remove:
            self.carry.remove()
            try:
                os.unlink(self.path)
            except OSError:
                pass


def carry_path(pipe: str) -> str:
    """Where what is held back of a stream is kept."""
    return f"{pipe}.held"


def open_pipe(path: str) -> tuple[int, bool]:
    """The reading end of the named pipe, and whether it was there before."""
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    adopted = True
    try:
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            os.unlink(path)
            raise FileNotFoundError
    except FileNotFoundError:
        os.mkfifo(path, 0o600)
        adopted = False
    return os.open(path, flags), adopted
