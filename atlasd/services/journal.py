"""Facts of the services role: numbered, kept for whoever was away, and told to whoever listens."""

from collections import deque
from collections.abc import Callable

from atlasd.clock import Clock
from atlasd.services.protocol import EventBody, encode

KEPT_BYTES = 256 * 1024
"""Of facts that are kept for a core that was away: some 900 of them. What is lost is counted, a
snapshot tells the state all the same, and crash records are on disk."""

Listener = Callable[[bytes], object]
"""Is given a fact as a line of JSON: `{"event": {…}}` and a newline."""


class Journal:
    """The ring of recent facts, kept as the bytes that are sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ring: deque[bytes] = deque()
        self._bytes = 0
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
        line = encode({"event": event}).encode() + b"\n"
        self._ring.append(line)
        self._bytes += len(line)
        while self._bytes > KEPT_BYTES and len(self._ring) > 1:
            self._bytes -= len(self._ring.popleft())
        for listener in list(self._listeners):
            listener(line)
        return event

    def since(self, seq: int) -> tuple[list[bytes], int]:
        """Facts from number `seq` on, and how many of those asked for are no longer kept."""
        first = self.next_seq - len(self._ring)
        seq = max(seq, 1)
        start = max(0, seq - first)
        return [line for i, line in enumerate(self._ring) if i >= start], max(0, first - seq)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told each fact from now on; call what is returned to hear no more."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop
