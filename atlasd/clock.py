"""The real clock, and one that tests wind by hand."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What everything that needs the time is given."""

    def monotonic(self) -> float:
        """Seconds that only grow; the base of every duration."""

    def wall(self) -> float:
        """Seconds since the Unix epoch; for people, never for durations."""


class RealClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class HandClock:
    """A clock that stands still until a test winds it."""

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """The hand-wound monotonic time in seconds."""
        return self._monotonic

    def wall(self) -> float:
        """The hand-wound wall time in seconds since the epoch."""
        return self._wall

    def wind(self, seconds: float) -> None:
        """Let both clocks go forward by `seconds`.

        Raises `ValueError` for a negative amount: monotonic time does not go back.
        """
        if seconds < 0:
            raise ValueError("monotonic time does not go back; use set_wall for the wall clock")
        self._monotonic += seconds
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        """Let the wall clock jump, as an administrator or NTP would; durations don't notice."""
        self._wall = wall


def utc(wall: float) -> datetime:
    """Seconds since the epoch as an aware UTC time."""
    return datetime.fromtimestamp(wall, tz=UTC)


def isoformat(wall: float) -> str:
    """Seconds since the epoch as RFC 3339 with milliseconds, in UTC."""
    return utc(wall).isoformat(timespec="milliseconds").replace("+00:00", "Z")
