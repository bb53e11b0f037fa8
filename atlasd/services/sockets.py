"""Listening sockets: opened once, kept while a service declares them, passed to each instance."""

import errno
import os
import socket
import stat
from urllib.parse import urlsplit

from atlasd.services.spec import Socket


class SocketError(Exception):
    """A socket that cannot be opened; the text says which and why."""

    def __init__(self, text: str, *, in_use: bool = False) -> None:
        super().__init__(text)
        self.in_use = in_use


def open_socket(spec: Socket) -> socket.socket:
    """A bound, listening socket for the declaration.

    Raises `SocketError`; `in_use` is true when somebody else has the address.
    """
    url = urlsplit(spec.address)
    try:
        if url.scheme in ("unix", "unixgram"):
            return _unix(spec, url.path, datagram=url.scheme == "unixgram")
        if url.scheme in ("tcp", "udp"):
            return _inet(spec, url.hostname or "", url.port, datagram=url.scheme == "udp")
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else 0
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SocketError(
            f"socket {spec.name}: cannot listen on {spec.address}: {reason or error}",
            in_use=number == errno.EADDRINUSE,
        ) from None
    raise SocketError(f"socket {spec.name}: unknown kind of address: {spec.address}")


def _inet(spec: Socket, host: str, port: int | None, *, datagram: bool) -> socket.socket:
    if port is None:
        raise ValueError("the port is missing")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM)
    try:
        if not datagram:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        if not datagram:
            made.listen(spec.backlog)
    except BaseException:
        made.close()
        raise
    return made


def _unix(spec: Socket, path: str, *, datagram: bool) -> socket.socket:
    kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        if _is_stale(path, kind):
            os.unlink(path)
        made.bind(path)
        os.chmod(path, spec.mode)
        if not datagram:
            made.listen(spec.backlog)
    except BaseException:
        made.close()
        raise
    return made


def _is_stale(path: str, kind: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def adopt_socket(fd: int, spec: Socket) -> socket.socket | None:
    """The held descriptor as the declared socket; null, and it is closed, if it is another's."""
    try:
        found = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    if not _is_of(found, spec.address):
        found.close()
        return None
    found.set_inheritable(False)
    return found


def adjust_socket(opened: socket.socket, spec: Socket) -> None:
    """Give an open socket what a new declaration of the same address says otherwise."""
    try:
        if opened.type == socket.SOCK_STREAM:
            opened.listen(spec.backlog)
        if opened.family == socket.AF_UNIX:
            os.chmod(opened.getsockname(), spec.mode)
    except OSError:
        pass  # its file was taken away meanwhile: who can connect still can


def _is_of(found: socket.socket, address: str) -> bool:
    url = urlsplit(address)
    stream = url.scheme in ("tcp", "unix")
    if found.type != (socket.SOCK_STREAM if stream else socket.SOCK_DGRAM):
        return False
    name = found.getsockname()
    if url.scheme in ("unix", "unixgram"):
        return found.family == socket.AF_UNIX and bool(name == url.path)
    host = url.hostname or ""
    if found.family != (socket.AF_INET6 if ":" in host else socket.AF_INET):
        return False
    # A name may stand for another address by now; numbers don't.
    numeric = host.replace(".", "").isdigit() or ":" in host
    return bool(name[1] == url.port) and (not numeric or name[0] == host)
