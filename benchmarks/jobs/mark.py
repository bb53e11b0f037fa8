"""What every system's handler does: count itself, and say when it began if that was asked.

Standard library only: it runs in the environment of each peer.
"""

import mmap
import os
import socket
import struct
import time
from pathlib import Path

_FOLDER = os.environ.get("BENCH_COUNTS", "/nonexistent")
_pid = 0
_count = 0
_map: mmap.mmap | None = None
_socket: socket.socket | None = None


def mark(text: str) -> None:
    """One job has begun: `t:SECONDS …` says when it was enqueued, on the monotonic clock."""
    global _pid, _count, _map  # noqa: PLW0603  the cheapest counter that there is
    if _map is None or os.getpid() != _pid:
        _pid, _count = os.getpid(), 0
        path = Path(_FOLDER, str(_pid))
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            _map = mmap.mmap(file.fileno(), 8)
    if text.startswith("t:"):
        _tell(time.monotonic() - float(text[2:20]))
    _count += 1
    struct.pack_into("q", _map, 0, _count)


def _tell(seconds: float) -> None:
    global _socket  # noqa: PLW0603
    if _socket is None:
        _socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    _socket.sendto(struct.pack("d", seconds), os.environ["BENCH_SOCKET"])


def marked(folder: Path) -> int:
    """How many jobs have begun, in all processes."""
    return sum(struct.unpack("q", path.read_bytes() or bytes(8))[0] for path in folder.iterdir())
