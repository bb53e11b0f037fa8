"""How often a backend may be asked: so many calls at once, and a rest when it says so; pure."""

from atlasd.errors import AtlasError
from atlasd.secrets.cache import retry_after


class Budget:
    """Of one backend: a bucket of calls that fills up steadily, and an end to a rest."""

    def __init__(self, *, per_second: float = 20.0, burst: int = 100) -> None:
        self._rate = per_second
        self._burst = float(burst)
        self._left = float(burst)
        self._filled: float | None = None
        self._rests_until = 0.0
        self._resting: AtlasError | None = None

    def take(self, now: float) -> float:
        """Seconds to wait before the next call is made; the call is counted already.

        Raises `secret.throttled` while the backend has asked to be left alone.
        """
        if self._resting is not None and now < self._rests_until:
            wait = self._rests_until - now
            raise AtlasError(
                "secret.throttled",
                f"{self._resting.message}; it wants no calls for another {wait:.0f} s",
                hint=self._resting.hint,
                details={"retry_after": wait},
            )
        if self._filled is not None:
            grown = (now - self._filled) * self._rate
            self._left = min(self._burst, self._left + max(0.0, grown))
        self._filled = now
        self._left -= 1.0
        return max(0.0, -self._left / self._rate)

    def answered(self, now: float, error: AtlasError | None) -> None:
        """A call ended; one that was throttled, with a time, stops all others for that time."""
        wait = retry_after(error) if error is not None and error.code == "secret.throttled" else 0.0
        if error is not None and wait:
            self._resting, self._rests_until = error, max(self._rests_until, now + wait)
        elif error is None:
            self._resting = None
