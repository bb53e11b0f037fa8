"""How much a plugin may publish or log: so many a second, and a burst; pure but for its clock."""

import threading
from dataclasses import dataclass

from atlasd.clock import Clock


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many a second in the long run, and so many at once."""

    per_second: float
    burst: int


class Allowance:
    """A token bucket; may be drawn on from any thread."""

    def __init__(self, clock: Clock, rate: Rate) -> None:
        self._clock = clock
        self._rate = rate
        self._left = float(rate.burst)
        self._filled = clock.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more is allowed; if so it is taken."""
        with self._lock:
            now = self._clock.monotonic()
            self._left = min(
                float(self._rate.burst), self._left + (now - self._filled) * self._rate.per_second
            )
            self._filled = now
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
