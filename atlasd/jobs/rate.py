"""Rates without window edges: the generic cell rate algorithm, one timestamp a key, pure.

The theoretical arrival time (TAT) is the moment at which the key would be idle again if it kept to
its rate exactly (ITU-T I.371).
"""


def sane(tat: float, now: int, *, rate: float, burst: int) -> float:
    """The TAT, unless it lies further ahead than any burst explains: then the clock went back.

    Without it a clock that is set back by an hour would shut a queue for an hour.
    """
    return tat if tat <= now + burst * 1000.0 / rate + 1.0 else float(now)


def allowed(tat: float, now: int, *, rate: float, burst: int) -> int:
    """How many may go now, at `rate` a second with bursts of `burst`; `tat` and `now` in ms."""
    interval = 1000.0 / rate
    start = max(tat, float(now)) - (burst - 1) * interval
    if start > now:
        return 0
    return int((now - start) / interval + 1e-9) + 1


def take(tat: float, now: int, count: int, *, rate: float) -> float:
    """The TAT after `count` have gone."""
    return max(tat, float(now)) + count * 1000.0 / rate


def next_allowed(tat: float, *, rate: float, burst: int) -> int:
    """The moment at which the next one may go, in ms."""
    earliest = tat - (burst - 1) * 1000.0 / rate
    whole = int(earliest)
    return whole if whole >= earliest else whole + 1
