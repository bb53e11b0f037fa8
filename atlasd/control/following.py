"""Follows core's events from another role, in a thread, for as long as that role lives."""

import threading
from collections.abc import Callable

from atlasd.control.client import Client
from atlasd.errors import AtlasError

LISTEN = 15.0
"""Seconds after which a silent stream is looked at again: it has to be ended somehow."""
RETRY_FIRST = 0.5
RETRY_CAP = 10.0
"""Seconds between two tries to reach core; the time doubles from the first to the cap."""


class Following:
    """A thread that calls `connected` each time core answers, and `happened` for each event.

    Both are called in that thread. Core being gone is no failure: it is tried again for ever.
    """

    def __init__(
        self,
        client: Client,
        *,
        kind: str,
        connected: Callable[[], object],
        happened: Callable[[], object],
    ) -> None:
        self._client = client
        self._kind = kind
        self._connected = connected
        self._happened = happened
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="core-events", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, some seconds later: the thread sleeps in the stream. Nothing is called any more."""
        self._over.set()

    def _run(self) -> None:
        pause = RETRY_FIRST
        while not self._over.is_set():
            try:
                self._follow()
                pause = RETRY_FIRST
            except (AtlasError, OSError):
                pass
            if self._over.wait(pause):
                return
            pause = min(RETRY_CAP, pause * 2)

    def _follow(self) -> None:
        with self._client.stream("events", follow=True, limit=0, kind=self._kind) as stream:
            self._tell(self._connected)
            while not self._over.is_set():
                try:
                    event = stream.read(timeout=LISTEN)
                except TimeoutError:
                    continue
                if event is None:
                    return
                if event.get("kind") == self._kind:
                    self._tell(self._happened)

    def _tell(self, callback: Callable[[], object]) -> None:
        if not self._over.is_set():
            callback()
