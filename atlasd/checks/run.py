"""Checks at work: a task for each, and one that reports what they found, however long it takes."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from atlasd.checks.schedule import Pace, first, following
from atlasd.clock import Clock, isoformat
from atlasd.contracts.checks import CheckResult
from atlasd.errors import AtlasError

REPORT_AFTER = 0.2
"""Seconds that a verdict may wait for others to be reported with."""
RETRY_FIRST = 1.0
RETRY_CAP = 30.0
"""Seconds between two tries to report; the time doubles from the first to the cap."""

REPORTED_AT_ONCE = 50
MOST_OUTPUT = 4000
"""Verdicts in one report, and characters of each: core takes 256 KiB."""

_log = logging.getLogger("atlasd.checks")


class Runs(Protocol):
    """An opened check behind the plugin host's guard."""

    async def run(self, limit: timedelta) -> CheckResult:
        """The verdict; never raises, but for its own cancellation."""


@dataclass(frozen=True, kw_only=True)
class PlannedCheck:
    """A configured check, ready to be opened."""

    name: str
    type: str
    pace: Pace
    service: str | None
    required: bool
    """Whether it can make its service, or the host, fail; else it makes it warn at most."""
    open: Callable[[], AbstractAsyncContextManager[Runs]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One result, with what core needs to know about the check."""

    check: PlannedCheck
    result: CheckResult
    time: float
    """Wall time of the observation, seconds since the epoch."""
    duration: float
    """Seconds that the run took."""

    def to_wire(self) -> dict[str, object]:
        """As `atlasd.control.models.CheckResult` has it."""
        return {
            "name": self.check.name,
            "type": self.check.type,
            "status": self.result.status.value,
            "time": isoformat(self.time),
            "service": self.check.service,
            "required": self.check.required,
            "interval_seconds": self.check.pace.interval,
            "duration_seconds": round(self.duration, 6),
            "output": self.result.output[:MOST_OUTPUT],
            "observed_value": self.result.observed_value,
            "observed_unit": self.result.observed_unit,
        }


class CheckEngine:
    """Runs checks until cancelled. Core may come and go: the last verdict of each check waits."""

    def __init__(
        self,
        report: Callable[[Sequence[dict[str, object]]], Awaitable[None]],
        *,
        clock: Clock,
        chance: Callable[[], float] = random.random,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`report` hands verdicts to core and raises `AtlasError` while it cannot."""
        self.latest: dict[str, Verdict] = {}
        """The last verdict of each check."""
        self.core_gone = ""
        """Why the last report did not get through; empty when it did."""
        self._report = report
        self._clock = clock
        self._chance = chance
        self._pause = pause
        self._unreported: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self, checks: Sequence[PlannedCheck]) -> None:
        """Run these checks and report, until cancelled; verdicts of others are forgotten."""
        names = {check.name for check in checks}
        self.latest = {name: v for name, v in self.latest.items() if name in names}
        self._unreported &= names
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_reporting(), name="checks report")
            for check in checks:
                group.create_task(self._keep_checking(check), name=f"check {check.name}")

    def report_all(self) -> None:
        """Report every verdict again: core is a new one, and knows nothing."""
        self._unreported |= set(self.latest)
        self._wake.set()

    async def _keep_checking(self, check: PlannedCheck) -> None:
        await self._pause(first(check.pace, self._chance()))
        try:
            opened = check.open()
            async with opened as running:
                while True:
                    began = self._clock.monotonic()
                    result = await running.run(timedelta(seconds=check.pace.limit))
                    now = self._clock.monotonic()
                    self._found(check, result, now - began)
                    await self._pause(following(check.pace, began, now, self._chance()))
        except AtlasError as error:
            # What it was to be opened with is no longer there, such as its plugin.
            _log.error("check %s is not run: %s", check.name, error.message)

    def _found(self, check: PlannedCheck, result: CheckResult, duration: float) -> None:
        verdict = Verdict(check=check, result=result, time=self._clock.wall(), duration=duration)
        before = self.latest.get(check.name)
        if before is None or before.result.status is not result.status:
            _log.info("check %s: %s %s", check.name, result.status.value, result.output)
        self.latest[check.name] = verdict
        self._unreported.add(check.name)
        self._wake.set()

    async def _keep_reporting(self) -> None:
        delay = RETRY_FIRST
        while True:
            await self._wake.wait()
            await self._pause(REPORT_AFTER)
            self._wake.clear()
            names = sorted(self._unreported)
            self._unreported.clear()
            try:
                for some in batched(names, REPORTED_AT_ONCE):
                    await self._report([self.latest[name].to_wire() for name in some])
            except AtlasError as error:
                if not self.core_gone:
                    _log.warning(
                        "core is gone (%s); checks go on, and are reported when it is back",
                        error.message,
                    )
                self.core_gone = error.message
                self._unreported |= set(self.latest)
                self._wake.set()
                await self._pause(delay)
                delay = min(RETRY_CAP, delay * 2)
                continue
            if self.core_gone:
                _log.info("core is back: %d verdicts were reported", len(names))
            self.core_gone = ""
            delay = RETRY_FIRST


def batched(names: Sequence[str], size: int) -> list[Sequence[str]]:
    """The names in portions of at most `size`."""
    return [names[at : at + size] for at in range(0, len(names), size)]
