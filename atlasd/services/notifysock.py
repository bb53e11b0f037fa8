"""The receiving end of the notify protocol: a datagram socket for each instance."""

import array
import hashlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from atlasd.services.loop import Loop, Timer

MESSAGE_LIMIT = 4096
"""Bytes of one message; a longer one is dropped, as systemd does."""
FD_LIMIT = 253
"""Descriptors in one message: the kernel's own limit."""
PER_TURN = 32
"""Messages that one turn of the loop takes from one instance."""
REST = 0.05
"""Seconds without listening after a turn's fill: a program that floods waits, the loop doesn't."""
PATH_LIMIT = 107
"""Bytes that fit into a unix socket's address, with its final zero."""

# Of Linux 6.5; Python 3.13 and older have no names for them.
SO_PASSPIDFD = 76
SCM_PIDFD = 4

_CREDENTIALS = struct.Struct("3i")
_INT = struct.Struct("i")


@dataclass(frozen=True, kw_only=True, slots=True)
class Notification:
    """What one message says. Times in microseconds, as they stand in it."""

    ready: bool = False
    reloading: bool = False
    monotonic_usec: int | None = None
    """When the reload began, on the sender's monotonic clock, which is ours too."""
    stopping: bool = False
    status: str | None = None
    """One line for people; empty clears it."""
    errno: int | None = None
    watchdog: str | None = None
    """`ping`, or `trigger`: the program asks to be treated as if it had missed its time."""
    watchdog_usec: int | None = None
    """The program wants another watchdog time from now on; 0: none."""
    extend_timeout_usec: int | None = None
    main_pid: int | None = None
    """Who is to count as the main process: to be believed only of a process of the instance."""
    fd_store: bool = False
    fd_store_remove: bool = False
    fd_name: str | None = None
    fd_poll: bool = True
    barrier: bool = False
    malformed: int = 0
    """Lines with a known name and a value that it cannot have; they count as not sent."""

    @property
    def empty(self) -> bool:
        """Whether it says nothing that this protocol knows."""
        return self == Notification(malformed=self.malformed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A notification and who sent it, by the kernel's word.

    `pidfd` and the descriptors in `fds` are closed when the receiver returns; one that it removes
    from `fds` is its own.
    """

    notification: Notification
    pid: int
    uid: int
    gid: int
    pidfd: int | None = None
    """Pins the sender, where the kernel offers it (Linux 6.5): its pid cannot be another's."""
    fds: list[int] = field(default_factory=list)


def parse(data: bytes) -> Notification | None:
    """The notification in one datagram; None when it is not text of this protocol at all.

    Of a name that comes twice the first counts, as for systemd; unknown names are passed over.
    """
    data = data.removesuffix(b"\0")
    if b"\0" in data or len(data) > MESSAGE_LIMIT:
        return None
    values: dict[str, object] = {}
    malformed = 0
    for line in data.split(b"\n"):
        name, equals, value = line.partition(b"=")
        reader = _READERS.get(name) if equals else None
        if reader is None or reader[0] in values:
            continue
        try:
            values[reader[0]] = reader[1](value)
        except ValueError:
            malformed += 1
    return Notification(malformed=malformed, **values)  # type: ignore[arg-type]


def _yes(value: bytes) -> bool:
    if value == b"1":
        return True
    raise ValueError


def _number(value: bytes) -> int:
    if value.isdigit() and len(value) < 20:
        return int(value)
    raise ValueError


def _pid(value: bytes) -> int:
    pid = _number(value)
    if not 0 < pid < 2**31:
        raise ValueError
    return pid


def _text(value: bytes) -> str:
    text = value.decode()
    # It is shown on terminals: what could steer one is left out.
    return "".join(c if c.isprintable() else " " for c in text)


def _name(value: bytes) -> str:
    name = value.decode("ascii")
    if not 0 < len(name) <= 255 or not name.isprintable() or ":" in name:
        raise ValueError
    return name


def _watchdog(value: bytes) -> str:
    if value == b"1":
        return "ping"
    if value == b"trigger":
        return "trigger"
    raise ValueError


def _poll(value: bytes) -> bool:
    return value not in (b"0", b"no", b"false", b"off", b"n", b"f")


_READERS: dict[bytes, tuple[str, Callable[[bytes], object]]] = {
    b"READY": ("ready", _yes),
    b"RELOADING": ("reloading", _yes),
    b"MONOTONIC_USEC": ("monotonic_usec", _number),
    b"STOPPING": ("stopping", _yes),
    b"STATUS": ("status", _text),
    b"ERRNO": ("errno", _number),
    b"WATCHDOG": ("watchdog", _watchdog),
    b"WATCHDOG_USEC": ("watchdog_usec", _number),
    b"EXTEND_TIMEOUT_USEC": ("extend_timeout_usec", _number),
    b"MAINPID": ("main_pid", _pid),
    b"FDSTORE": ("fd_store", _yes),
    b"FDSTOREREMOVE": ("fd_store_remove", _yes),
    b"FDNAME": ("fd_name", _name),
    b"FDPOLL": ("fd_poll", _poll),
    b"BARRIER": ("barrier", _yes),
}


def address_of(path: str) -> str:
    """What `NOTIFY_SOCKET` says for a socket at `path`: the path, or an abstract name.

    The latter where the path doesn't fit into a socket's address; it is the same after a restart.
    """
    if len(os.fsencode(path)) <= PATH_LIMIT:
        return path
    return "@atlasd/" + hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()


class NotifySocket:
    """The socket of one instance. `receive` is called with each message and decides what it may.

    A successor makes one at the same `path` and the programs go on speaking to it; handed `fd`, a
    duplicate of the old socket, not even what was sent in between is lost. Anybody may send to it:
    who sent is in the message. Raises `OSError` when the socket cannot be made.
    """

    def __init__(
        self,
        loop: Loop,
        path: str,
        receive: Callable[[Message], object],
        *,
        fd: int | None = None,
    ) -> None:
        self._loop = loop
        self._path = path
        self._receive = receive
        self._rest: Timer | None = None
        self._closed = False
        self.address = address_of(path)
        """The value of `NOTIFY_SOCKET` for the program."""
        self.dropped = 0
        """Messages that were not of the protocol, too long, or without a sender."""
        self.malformed = 0
        """Lines of otherwise good messages that had to be passed over."""
        if fd is None:
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
        else:
            self._socket = socket.socket(fileno=fd)
            self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
            except OSError:
                pass  # before Linux 6.5: the pid alone must do
            if fd is None:
                self._bind()
        except OSError:
            self._socket.close()
            raise
        loop.watch(self._socket.fileno(), self._readable)

    def _bind(self) -> None:
        if self.address.startswith("@"):
            self._socket.bind(b"\0" + os.fsencode(self.address[1:]))
            return
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        self._socket.bind(self._path)
        # The program may run as any user, or change its own; the sender is what is checked.
        os.chmod(self._path, 0o666)  # noqa: S103  see above

    def fileno(self) -> int:
        """The descriptor; a duplicate of it in other hands keeps messages while we are dead."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listen no more, and remove the socket. Harmless when it is closed."""
        if self._closed:
            return
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        if not self.address.startswith("@"):
            try:
                os.unlink(self._path)
            except OSError:
                pass

    def drain(self) -> None:
        """Take what is waiting now; for the moment at which a program was seen to end."""
        if not self._closed:
            self._readable(0)

    def _readable(self, _mask: int) -> None:
        for _ in range(PER_TURN):
            try:
                received = self._socket.recvmsg(MESSAGE_LIMIT + 1, _ANCILLARY, _FLAGS)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error that was queued on the socket; the next message may be good
            self._take(*received[:3])
            if self._closed:
                return
        self._loop.unwatch(self._socket.fileno())
        if self._rest is None or not self._rest.pending:
            self._rest = self._loop.call_later(REST, self._resume)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.watch(self._socket.fileno(), self._readable)

    def _take(self, data: bytes, ancillary: list[tuple[int, int, bytes]], flags: int) -> None:
        fds: list[int] = []
        pidfd: int | None = None
        sender: tuple[int, int, int] | None = None
        for level, kind, body in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(body[: len(body) - len(body) % numbers.itemsize])
                fds.extend(numbers)
            elif kind == socket.SCM_CREDENTIALS:
                pid, uid, gid = _CREDENTIALS.unpack_from(body)
                sender = (pid, uid, gid)
            elif kind == SCM_PIDFD:
                number = _INT.unpack_from(body)[0]
                pidfd = number if number >= 0 else None
        try:
            whole = not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            notification = parse(data) if whole else None
            # Pid 0 is a sender of another pid namespace, which can be nobody of ours.
            if notification is None or sender is None or sender[0] <= 0:
                self.dropped += 1
                return
            self.malformed += notification.malformed
            if not notification.empty:
                pid, uid, gid = sender
                self._receive(
                    Message(
                        notification=notification, pid=pid, uid=uid, gid=gid, pidfd=pidfd, fds=fds
                    )
                )
        finally:
            # Closing is also the answer to BARRIER=1: all that came before it was dealt with.
            for fd in fds:
                os.close(fd)
            if pidfd is not None:
                os.close(pidfd)


_ANCILLARY = (
    socket.CMSG_SPACE(_CREDENTIALS.size)
    + socket.CMSG_SPACE(_INT.size)
    + socket.CMSG_SPACE(FD_LIMIT * _INT.size)
)
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
