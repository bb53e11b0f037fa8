"""When a failed job is tried again: attempt → delay, pure; all times in milliseconds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Delays that grow with each failed attempt."""

    base: int = 5_000
    factor: float = 2.0
    cap: int = 3_600_000
    jitter: float | Literal["full"] = 0.5
    """Part of the delay that chance may take away: never more than `delay`, never less than
    `delay * (1 - jitter)`. `full` is anything from nothing to the delay."""
    within: int = 0
    """Milliseconds after which nothing is tried again, from the job's creation; 0: no bound."""


def delay(policy: Retry, failures: int, chance: float) -> int:
    """The wait after failure number `failures`, counted from 1; `chance` is uniform in [0, 1).

    The downward half-range keeps a floor, unlike full jitter, which may retry at once.
    """
    full = float(policy.base)
    for _ in range(failures - 1):
        if full >= policy.cap or policy.factor == 1.0:
            break  # an exponent this large would overflow
        full *= policy.factor
    full = min(full, policy.cap)
    part = 1.0 if policy.jitter == "full" else policy.jitter
    return round(full * (1.0 - part * chance))
