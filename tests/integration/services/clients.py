"""Clients of a service's socket that note who answers, and what goes wrong."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self


class Clients:
    """Some that connect again and again, each connection a new one, until they are told to end."""

    def __init__(
        self, address: tuple[str, int] | str, *, number: int = 4, request: bytes = b""
    ) -> None:
        self._address = address
        self._request = request
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._work) for _ in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        """Connections that were answered."""
        with self._lock:
            return self.answers.total()

    def _work(self) -> None:
        while not self._over.wait(0.002):
            try:
                answer = ask(self._address, self._request)
            except OSError as error:
                with self._lock:
                    self.failures.append(repr(error))
            else:
                with self._lock:
                    self.answers[answer] += 1


def ask(address: tuple[str, int] | str, request: bytes = b"") -> str:
    """What the service says to a new connection; an `OSError` also when that is nothing."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as link:
        link.settimeout(30)
        link.connect(address)
        if request:  # even nothing cannot be sent to whoever has answered and hung up already
            link.sendall(request)
        answer = b""
        while data := link.recv(4096):
            answer += data
    if not answer:
        raise ConnectionResetError("closed without an answer")
    return answer.decode().strip()
