"""One client of `services.sock`: lines of JSON both ways, with descriptors beside them."""

import array
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from atlasd.services.loop import HANGUP, READ, WRITE, Loop
from atlasd.services.protocol import encode

MAX_LINE = 64 * 1024 * 1024
MAX_BACKLOG = 64 * 1024 * 1024
"""Bytes that a client may leave unread before it is cut off; it can come back and catch up."""
DESCRIPTORS = 200
"""In one message; the kernel takes 253."""

Body = Mapping[str, object]


class Connection:
    """One client: `receive` is called with each request, `gone` once at the end."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        receive: Callable[["Connection", Body], object],
        gone: Callable[["Connection"], object],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._receive = receive
        self._gone = gone
        self._in = bytearray()
        self._out: deque[tuple[bytes, list[int]]] = deque()
        self._out_bytes = 0
        self._descriptors: deque[int] = deque()
        self._writing = False
        sock.setblocking(False)
        self._loop.watch(sock.fileno(), self._ready)

    @property
    def is_open(self) -> bool:
        """Whether the client can still be spoken to."""
        return self._socket.fileno() >= 0

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self.flush()
        if mask & (READ | HANGUP):
            self._read()

    def _read(self) -> None:
        if not self.is_open:
            return
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                262144, socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._descriptors.extend(fds)
        if not data or len(self._in) > MAX_LINE:
            self.close()
            return
        self._in += data
        while (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            if not self._take(line):
                return

    def _take(self, line: bytes) -> bool:
        """Whether there is any sense in the next line."""
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, dict):
            self._receive(self, body)
        else:  # no client of ours: whatever follows means nothing either
            self.close()
        return self.is_open

    def take_descriptors(self, count: int) -> list[int]:
        """The descriptors that came with the message."""
        return [self._descriptors.popleft() for _ in range(min(count, len(self._descriptors)))]

    def send_descriptors(self, new: list[tuple[str, int]], gone: list[str]) -> None:
        """Have the peer keep duplicates of descriptors, and let others go."""
        drop = list(gone)
        for start in range(0, max(1, len(new)), DESCRIPTORS):
            part = new[start : start + DESCRIPTORS]
            self.send({"hold": [n for n, _ in part], "drop": drop}, [os.dup(fd) for _, fd in part])
            drop = []

    def send(self, body: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        """Queue a line; `fds` are closed once they are sent."""
        self.queue(encode(body).encode() + b"\n", fds)

    def queue(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Queue a line that is encoded already; otherwise as `send`."""
        if not self.is_open:
            for fd in fds:
                os.close(fd)
            return
        self._out.append((data, list(fds)))
        self._out_bytes += len(data)
        if self._out_bytes > MAX_BACKLOG:
            self.close()
        elif not self._writing:
            self.flush()

    def flush(self) -> None:
        """Send as much as the peer takes."""
        while self._out and self.is_open:
            data, fds = self._out[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:  # gone, or too slow at the end
                self.close()
                return
            for fd in fds:
                os.close(fd)
            self._out_bytes -= sent
            if sent < len(data):
                self._out[0] = (data[sent:], [])
            else:
                self._out.popleft()
        if not self.is_open:
            return
        waiting = bool(self._out)
        if waiting != self._writing:
            self._writing = waiting
            self._loop.watch(self._socket.fileno(), self._ready, READ | WRITE if waiting else READ)

    def finish(self, seconds: float) -> None:
        """Send what is queued, waiting for the peer that long at most, and end the connection."""
        if self.is_open:
            self._socket.settimeout(seconds)
            self.flush()
        self.close()

    def close(self) -> None:
        """End the connection."""
        if not self.is_open:
            return
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for _, fds in self._out:
            for fd in fds:
                os.close(fd)
        for fd in self._descriptors:
            os.close(fd)
        self._gone(self)
