"""From single probe results to a verdict, and when to probe again: pure, given the times."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from atlasd.services.spec import Probe
from atlasd.states import Health

START_DELAY = 0.25
"""Seconds between the first probes of a starting instance."""
START_GROWTH = 1.25
"""Each further pause while starting; so a start is noticed within a quarter of its duration."""
JITTER = 0.1
"""Fraction by which a pause varies, so that instances started together are not probed together."""
LEAST_PAUSE = 0.1
"""Seconds of rest after a probe that took longer than its interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one probe found. UNKNOWN: it could not run, which says nothing about the service."""

    health: Health
    detail: str = ""
    """In plain words, for people."""
    seconds: float = 0.0
    """How long the probe took."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """When results become a verdict; times in seconds."""

    interval: float = 10.0
    fail_after: int = 3
    pass_after: int = 2
    start_period: float = 0.0

    @classmethod
    def of(cls, probe: Probe) -> "Thresholds":
        """Those that a probe's specification asks for, each made at least 1 where it counts."""
        return cls(
            interval=max(probe.interval, LEAST_PAUSE),
            fail_after=max(probe.fail_after, 1),
            pass_after=max(probe.pass_after, 1),
            start_period=probe.start_period,
        )


AT_ONCE = Thresholds(fail_after=1, pass_after=1)
"""For what is a fact rather than a sample: a log line, a newline on a descriptor, a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeState:
    """What is known after the results so far."""

    health: Health = Health.UNKNOWN
    passes: int = 0
    """Results in a row that passed or warned."""
    fails: int = 0
    """Results in a row that failed and were not forgiven."""
    unable: int = 0
    """Results in a row in which the probe could not run."""
    attempts: int = 0
    settled: bool = False
    """It has passed once: the start is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A result and what it makes of the instance's health."""

    health: Health
    previous: Health
    result: Result
    state: ProbeState
    forgiven: bool = False
    """The result was a failure within the start period, and does not count."""

    @property
    def changed(self) -> bool:
        """Whether this result changed the verdict."""
        return self.health is not self.previous

    @property
    def warning(self) -> str:
        """Why the probe could not run; empty when it could."""
        return self.result.detail if self.result.health is Health.UNKNOWN else ""


OnVerdict = Callable[[Verdict], object]
"""Hears every result of a probe; `Verdict.changed` tells whether it matters."""


class Watching(Protocol):
    """What the supervisor holds of a probe, of whatever kind."""

    def start(self) -> None:
        """Begin: the first attempt is made at once."""

    def stop(self) -> None:
        """End, whatever is on its way; no verdict comes any more. Harmless when it is over."""


def advance(thresholds: Thresholds, state: ProbeState, result: Result, *, age: float) -> Verdict:
    """The verdict after one more result, `age` seconds after the instance was started.

    The verdict becomes fail only after `fail_after` failures in a row. Once it has passed and then
    failed, it passes (or warns) again only after `pass_after` results in a row that did not fail;
    a starting instance passes with the first, and only a pass settles it: the commands that people
    ask for readiness (pg_isready, redis-cli ping, test) say "not yet" with the code that warns.
    A probe that cannot run makes the verdict unknown, never fail: a broken probe must not restart a
    good service.
    """
    after = replace(state, attempts=state.attempts + 1)
    forgiven = False
    if result.health is Health.UNKNOWN:
        after = replace(after, health=Health.UNKNOWN, passes=0, fails=0, unable=state.unable + 1)
    elif result.health is Health.FAIL:
        forgiven = age < thresholds.start_period
        fails = 0 if forgiven else state.fails + 1
        health = Health.FAIL if fails >= thresholds.fail_after else state.health
        after = replace(after, health=health, passes=0, fails=fails, unable=0)
    else:
        passes = state.passes + 1
        relapsed = state.settled and state.health is Health.FAIL
        good = not relapsed or passes >= thresholds.pass_after
        after = replace(
            after,
            health=result.health if good else state.health,
            passes=passes,
            fails=0,
            unable=0,
            settled=state.settled or result.health is Health.PASS,
        )
    return Verdict(
        health=after.health,
        previous=state.health,
        result=result,
        state=after,
        forgiven=forgiven,
    )


def next_delay(
    thresholds: Thresholds, state: ProbeState, *, took: float, uniform: Callable[[], float]
) -> float:
    """Seconds from the end of a probe that took `took` seconds to the beginning of the next.

    Probes begin `interval` apart and never overlap. Until the first pass they begin closer:
    every 250 ms at first, growing to the interval. `uniform` gives values in [0, 1).
    """
    pause = thresholds.interval
    if not state.settled:
        grown = START_DELAY * START_GROWTH ** min(max(state.attempts - 1, 0), 100)
        pause = min(pause, grown)
    pause *= 1 - JITTER + 2 * JITTER * uniform()
    return max(pause - took, min(LEAST_PAUSE, pause))
