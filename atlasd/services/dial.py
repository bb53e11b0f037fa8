"""Connecting to where a probe points, without ever waiting: addresses, names, and the connect."""

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from atlasd.services.commands import Cancellable, Finished, Spawn
from atlasd.services.loop import WRITE, Loop
from atlasd.states import Health

RESOLVE_TIMEOUT = 2.0
"""Seconds that the look-up of a host's name may take."""
OUR_FAULT = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM}
)
"""Errors of a connect that say something about the prober, nothing about the service."""


class Endpoint(NamedTuple):
    """Where to connect: a path of a unix socket, or a host and a port."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """What `connect` takes."""

    family: int
    address: str | tuple[str, int]


def parse_endpoint(text: str) -> Endpoint:
    """`host:port`, `[::1]:port`, `:port` (this host), or `unix:/path`.

    Raises `ValueError` with what is wrong and what would be right.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{text!r}: a unix socket is given as unix:/absolute/path")
        return Endpoint(path=path)
    host, colon, port = text.removeprefix("tcp://").rpartition(":")
    return endpoint_of(text, host if colon else port, port if colon else "")


def endpoint_of(text: str, host: str, port: str) -> Endpoint:
    """The endpoint of a host and a port that `text` names. Raises `ValueError` quoting `text`."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, as [::1]:8080")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: the port must be a number from 1 to 65535, as localhost:8080")
    host = host or "localhost"
    if host.startswith("-") or not host.isprintable() or " " in host or "/" in host:
        raise ValueError(f"{text!r}: {host!r} is not the name or address of a host")
    return Endpoint(host=host, port=int(port))


def numeric(endpoint: Endpoint) -> tuple[Address, ...]:
    """The addresses of an endpoint that needs no look-up; empty when its name needs one."""
    if endpoint.path:
        return (Address(socket.AF_UNIX, endpoint.path),)
    if endpoint.host == "localhost":
        # Not asked for: it is this host, on whatever machine, whatever /etc/hosts says.
        return (
            Address(socket.AF_INET, ("127.0.0.1", endpoint.port)),
            Address(socket.AF_INET6, ("::1", endpoint.port)),
        )
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        socket.inet_pton(family, endpoint.host.partition("%")[0])
    except OSError:
        return ()
    return (Address(family, (endpoint.host, endpoint.port)),)


def parse_getent(output: bytes, port: int) -> tuple[Address, ...]:
    """The addresses in what `getent ahosts NAME` prints, each once, in its order."""
    found: dict[Address, None] = {}
    for line in output.decode("ascii", "replace").splitlines():
        words = line.split()
        if words:
            for address in numeric(Endpoint(host=words[0], port=port)):
                if words[0] != "localhost":
                    found[address] = None
    return tuple(found)


class Resolver:
    """Finds the addresses of an endpoint; names are looked up by a spawned `getent`.

    What was found is used until `forget`.
    """

    def __init__(self, endpoint: Endpoint, spawn: Spawn | None, env: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._spawn = spawn
        self._env = {"PATH": env.get("PATH", os.defpath)}
        self._known = numeric(endpoint)
        self._fixed = bool(self._known)
        self._asked: Cancellable | None = None

    def find(self, done: Callable[[Sequence[Address], str], object]) -> None:
        """Call `done(addresses, "")`, at once when they are known; `done((), why)` without any."""
        if self._known:
            done(self._known, "")
        elif self._spawn is None:
            done((), f"the name {self._endpoint.host} needs a look-up; give its address instead")
        else:

            def answered(finished: Finished) -> None:
                self._asked = None
                self._known = parse_getent(finished.output, self._endpoint.port)
                why = "" if self._known else self._failure(finished)
                done(self._known, why)

            self._asked = self._spawn(
                ("getent", "ahosts", self._endpoint.host),
                on_exit=answered,
                env=self._env,
                timeout=RESOLVE_TIMEOUT,
            )

    def _failure(self, finished: Finished) -> str:
        if finished.error:
            return f"cannot look up {self._endpoint.host}: {finished.error}"
        return f"no address found for the name {self._endpoint.host}"

    def forget(self) -> None:
        """Look the name up again next time: what it stood for didn't answer."""
        if not self._fixed:
            self._known = ()

    def cancel(self) -> None:
        """Give up a look-up that is on its way."""
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None


Connected = Callable[[socket.socket | None, str, Health], object]
"""`(socket, "", PASS)`, or `(None, why, FAIL)`; UNKNOWN when the fault is on our side."""


class Dial:
    """One connect, to the first of several addresses that takes it."""

    def __init__(self, loop: Loop, addresses: Sequence[Address], done: Connected) -> None:
        self._loop = loop
        self._left = list(addresses)
        self._done = done
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin; `done` is called at once when the answer is immediate."""
        self._next("no address", Health.UNKNOWN)

    def cancel(self) -> None:
        """Give up; `done` is not called."""
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _next(self, why: str, health: Health) -> None:
        while self._left:
            family, address = self._left.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:
                why, health = _reason(error)
                continue
            try:
                code = sock.connect_ex(address)
            except OSError as error:  # a path that is too long, for example
                sock.close()
                why, health = str(error), Health.UNKNOWN
                continue
            if code == errno.EINPROGRESS:
                self._socket = sock
                self._loop.watch(sock.fileno(), self._answered, WRITE)
                return
            if code == 0 and not _met_itself(sock):
                self._done(sock, "", Health.PASS)
                return
            sock.close()
            why, health = _reason(OSError(code, os.strerror(code)))
        self._done(None, why, health)

    def _answered(self, _mask: int) -> None:
        sock, self._socket = self._socket, None
        assert sock is not None
        self._loop.unwatch(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and not _met_itself(sock):
            self._done(sock, "", Health.PASS)
            return
        sock.close()
        self._next(*_reason(OSError(code, os.strerror(code))))


def _met_itself(sock: socket.socket) -> bool:
    # Without a listener, a connect to a port of the ephemeral range may be given that very port
    # as its source, and then succeeds with itself.
    if sock.family == socket.AF_UNIX:
        return False
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False


def _reason(error: OSError) -> tuple[str, Health]:
    if error.errno in (0, None):
        return "connection refused", Health.FAIL
    if error.errno == errno.EAGAIN:
        return "its queue of connections is full", Health.FAIL
    why = (error.strerror or str(error)).lower()
    return why, Health.UNKNOWN if error.errno in OUR_FAULT else Health.FAIL
