"""requests over a unix socket, for tools that speak through it."""

import socket

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool


class UnixConnection(HTTPConnection):
    """A connection to a socket's file, whatever the host's name."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._limit)
        self.sock.connect(self._path)


class UnixPool(HTTPConnectionPool):
    """Connections to one socket's file."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost")
        self._path = path
        self._limit = timeout

    def _new_conn(self) -> UnixConnection:
        return UnixConnection(self._path, self._limit)


class UnixAdapter(HTTPAdapter):
    """What a session mounts."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        self._pool = UnixPool(path, timeout)

    def get_connection_with_tls_context(self, *args: object, **kwargs: object) -> UnixPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


def session(path: str, *, timeout: float = 30.0) -> requests.Session:
    """A session whose requests to http://localhost go to the socket at `path`."""
    made = requests.Session()
    made.mount("http://localhost", UnixAdapter(path, timeout))
    return made
