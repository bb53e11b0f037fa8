"""How long to wait before another attempt: attempt → delay, pure."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Delays that grow with each failure in a row."""

    first: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    longest: timedelta = timedelta(minutes=1)
    jitter: float = 0.1
    """Part of the delay by which chance may shorten or lengthen it, so that many don't retry at
    the same moment."""

    def __post_init__(self) -> None:
        if not timedelta(0) < self.first <= self.longest:
            raise ValueError("the first delay is more than nothing and at most the longest")
        if self.factor < 1.0:
            raise ValueError("delays do not shrink: the factor is at least 1")
        if not 0.0 <= self.jitter < 1.0:
            raise ValueError("jitter is a part of the delay: at least 0 and less than 1")


def delay(policy: RetryPolicy, attempt: int, chance: float) -> timedelta:
    """The wait after failure number `attempt` in a row, counted from 1.

    `chance` is uniform in [0, 1); half of it is no jitter. Raises `ValueError` for an attempt
    below 1.
    """
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    first, longest = policy.first.total_seconds(), policy.longest.total_seconds()
    seconds = first
    for _ in range(attempt - 1):
        seconds *= policy.factor
        if seconds >= longest or policy.factor == 1.0:
            break  # an exponent this large would overflow
    spread = 1.0 + policy.jitter * (2.0 * chance - 1.0)
    return timedelta(seconds=min(seconds, longest) * spread)
