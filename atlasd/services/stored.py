"""Descriptors that a program has stored with us (FDSTORE=1) for the process that comes after."""

import os

from atlasd.services.held import Held

MOST = 64
"""Descriptors of one instance."""


class Stored:
    """Those of one instance, in the order in which they came; peers hold duplicates of them."""

    def __init__(self, held: Held, service: str, index: int) -> None:
        self._held = held
        self._prefix = f"stored/{service}/{index}/"
        self._fds: dict[str, int] = {}
        """Key → descriptor; the key ends with a number that grows and the name."""
        self._next = 0

    def entries(self) -> list[tuple[str, int]]:
        """Name and descriptor of each, as LISTEN_FDS passes them on."""
        return [(self._name(key), fd) for key, fd in self._fds.items()]

    def _name(self, key: str) -> str:
        return key.removeprefix(self._prefix).split("/", 1)[1]

    def keep(self, name: str, fds: list[int]) -> int:
        """Keep descriptors, which become ours, under a name; how many of them found room."""
        kept = fds[: max(0, MOST - len(self._fds))]
        for fd in kept:
            os.set_inheritable(fd, False)
            self._add(f"{self._prefix}{self._next}/{name}", fd)
            self._next += 1
        return len(kept)

    def _add(self, key: str, fd: int) -> None:
        self._fds[key] = fd
        self._held.hold(key, fd)

    def remove(self, name: str | None) -> None:
        """Close those of a name."""
        for key in [k for k in self._fds if self._name(k) == name]:
            self._held.drop(key)
            os.close(self._fds.pop(key))

    def take_back(self) -> None:
        """Take those that a peer has given back."""
        for key in self._held.offered(self._prefix):
            number, slash, _ = key.removeprefix(self._prefix).partition("/")
            if not (slash and number.isdigit()):
                continue
            fd = self._held.take(key)
            if fd is not None:
                self._add(key, fd)
                self._next = max(self._next, int(number) + 1)

    def close(self) -> None:
        """The instance is no more."""
        for key, fd in self._fds.items():
            self._held.drop(key)
            os.close(fd)
        self._fds.clear()
