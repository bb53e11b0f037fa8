"""Descriptors that peers keep duplicates of, so that they outlive a `kill -9` of this process.

The peers are core (over `services.sock`) and systemd's descriptor store. What a predecessor had
entrusted to them comes back through `offer`, by name.
"""

import os
from collections.abc import Callable, Mapping

from atlasd import notify
from atlasd.services.loop import Loop, Timer

PATIENCE = 4.0
"""Seconds after which what came back and nobody has taken is closed."""

UNHEARD = "notify/"
"""Sockets of this kind hold what was sent to them: wanted back though there is another by now."""

Tell = Callable[[list[tuple[str, int]], list[str]], object]
"""Sends a peer (name, descriptor) pairs to keep, and names to let go."""


class Held:
    """What is to be kept, what came back, and who keeps it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._held: dict[str, int] = {}
        self._offered: dict[str, int] = {}
        self._new: dict[str, int] = {}
        self._gone: set[str] = set()
        self._peer: Tell | None = None
        self._systemd = notify.enabled()
        self._waiting: list[Callable[[], object]] = []
        self._flushing = False
        self._settling: Timer | None = None

    # ------------------------------------------------------------------ keeping

    def hold(self, name: str, fd: int) -> None:
        """Have peers keep a duplicate of `fd` under `name`; replaces one of that name."""
        if name in self._held:
            self._gone.add(name)
        self._held[name] = fd
        self._new[name] = fd
        self._tell_soon()

    def drop(self, name: str) -> None:
        """Peers need not keep it any longer. Call it before the descriptor is closed."""
        if self._held.pop(name, None) is None:
            return
        if self._new.pop(name, None) is None or name in self._gone:
            self._gone.add(name)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Tell the peers what has changed."""
        self._flushing = False
        new, self._new = self._new, {}
        gone, self._gone = self._gone, set()
        if self._systemd:
            for name in gone:
                notify.unstore(name)
            for name, fd in new.items():
                notify.store(name, [fd], poll=name.startswith("socket/"))
        if self._peer is not None and (new or gone):
            self._peer(list(new.items()), sorted(gone))

    def connect(self, peer: Tell) -> None:
        """Core has come: it is sent everything, and every change from now on."""
        self.flush()
        self._peer = peer
        peer(list(self._held.items()), [])

    def disconnect(self, peer: Tell) -> None:
        """This peer has gone; harmless when another has taken its place."""
        if self._peer == peer:
            self._peer = None

    # ------------------------------------------------------------------ getting back

    def offer(self, descriptors: Mapping[str, int]) -> list[str]:
        """A peer gives back what it has kept. The names that were not there yet are returned."""
        taken = []
        for name, fd in descriptors.items():
            known = name in self._held and not name.startswith(UNHEARD)
            if known or name in self._offered:
                os.close(fd)
                continue
            os.set_inheritable(fd, False)
            self._offered[name] = fd
            taken.append(name)
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()
        if self._settling is not None:
            self._settling.cancel()
        self._settling = self._loop.call_later(PATIENCE, self.settle)
        return taken

    def take(self, name: str) -> int | None:
        """The descriptor that a peer has given back under this name; the caller's from now on."""
        return self._offered.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether a peer has given back something of this name that nobody has taken."""
        return name in self._offered

    def offered(self, prefix: str) -> list[str]:
        """The names with this beginning under which something waits to be taken, sorted."""
        return sorted(name for name in self._offered if name.startswith(prefix))

    def when_offered(self, callback: Callable[[], object]) -> None:
        """Call once after the next `offer`."""
        self._waiting.append(callback)

    def settle(self) -> None:
        """Everything that was wanted has been taken: close the rest, and let peers forget it."""
        for name, fd in self._offered.items():
            os.close(fd)
            if name not in self._held:
                self._gone.add(name)
        self._offered.clear()
        self._tell_soon()

    def entries(self) -> dict[str, int]:
        """Everything that is held, for an upgrade in place."""
        return dict(self._held)
