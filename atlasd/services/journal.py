"""Facts of the services role: numbered, kept for whoever was away, and told to whoever listens."""

from collections import deque
from collections.abc import Callable

from atlasd.clock import Clock
from atlasd.services.protocol import EventBody

KEPT = 10_000
"""Facts kept in memory for a core that was away."""

Listener = Callable[[EventBody], object]


class Journal:
    """The ring of recent facts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ring: deque[EventBody] = deque(maxlen=KEPT)
        self._listeners: list[Listener] = []
        self.next_seq = 1

    def add(self, kind: str, **fields: object) -> EventBody:
        """Number a fact, keep it and tell the listeners."""
        event: EventBody = {
            "seq": self.next_seq,
            "time": self._clock.wall(),
            "monotonic": self._clock.monotonic(),
            "kind": kind,
            **fields,  # type: ignore[typeddict-item]
        }
        self.next_seq += 1
        self._ring.append(event)
        for listener in list(self._listeners):
            listener(event)
        return event

    def since(self, seq: int) -> tuple[list[EventBody], int]:
        """Facts from number `seq` on, and how many of those asked for are no longer kept."""
        first = self._ring[0]["seq"] if self._ring else self.next_seq
        kept = [e for e in self._ring if e["seq"] >= seq]
        return kept, max(0, first - seq)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told each fact from now on; call what is returned to hear no more."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None
