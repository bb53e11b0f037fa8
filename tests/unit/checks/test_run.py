import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from atlasd.checks.run import REPORTED_AT_ONCE, CheckEngine, PlannedCheck, Runs, batched
from atlasd.checks.schedule import Pace
from atlasd.clock import HandClock
from atlasd.contracts.checks import CheckResult
from atlasd.errors import AtlasError
from atlasd.states import Health


class Scripted:
    """A check that gives one verdict after the other, the last one for ever."""

    def __init__(self, *verdicts: Health) -> None:
        self.verdicts = list(verdicts)
        self.runs = 0
        self.limits: list[timedelta] = []
        self.open_now = 0

    async def run(self, limit: timedelta) -> CheckResult:
        self.runs += 1
        self.limits.append(limit)
        status = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        return CheckResult(status=status, output=status.value)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Runs]:
        self.open_now += 1
        try:
            yield self
        finally:
            self.open_now -= 1


def planned(
    name: str, open_: Callable[[], AbstractAsyncContextManager[Runs]], *, required: bool = True
) -> PlannedCheck:
    return PlannedCheck(
        name=name,
        type="scripted",
        pace=Pace(interval=30.0, deadline=10.0),
        service="web",
        required=required,
        open=open_,
    )


class Core:
    """A core that may be gone, and what it was told."""

    def __init__(self) -> None:
        self.gone = False
        self.told: list[dict[str, Any]] = []
        self.refused = 0

    async def report(self, verdicts: Sequence[dict[str, object]]) -> None:
        if self.gone:
            self.refused += 1
            raise AtlasError("core.unreachable", "nobody answers")
        self.told += verdicts


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


class Stage:
    """An engine on a hand-wound clock, whose pauses end when the clock is wound that far."""

    def __init__(self, clock: HandClock, core: Core) -> None:
        self.clock = clock
        self.waiting: list[tuple[float, asyncio.Event]] = []
        self.engine = CheckEngine(core.report, clock=clock, chance=lambda: 0.5, pause=self.pause)

    async def pause(self, seconds: float) -> None:
        over = asyncio.Event()
        self.waiting.append((self.clock.monotonic() + seconds, over))
        await over.wait()

    async def wind(self, seconds: float) -> None:
        """Let time go by in small steps, and everybody do what is due."""
        end = self.clock.monotonic() + seconds
        await self.settle()
        while self.clock.monotonic() < end:
            due = min((when for when, _ in self.waiting), default=end)
            step = max(0.0, min(due, end) - self.clock.monotonic())
            self.clock.wind(step)
            now = self.clock.monotonic()
            for when, over in self.waiting:
                if when <= now:
                    over.set()
            self.waiting = [(w, o) for w, o in self.waiting if not o.is_set()]
            await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def core() -> Core:
    return Core()


@pytest.fixture
async def stage(clock: HandClock, core: Core) -> Stage:
    return Stage(clock, core)


async def test_checks_run_at_their_pace_and_are_reported(stage: Stage, core: Core) -> None:
    check = Scripted(Health.PASS, Health.FAIL)
    task = asyncio.create_task(stage.engine.run([planned("web", check.open)]))
    await stage.wind(95.0)
    assert check.runs == 4  # at 2.5 s, 32.5 s, 62.5 s and 92.5 s
    assert check.limits[0] == timedelta(seconds=10)
    assert [body["status"] for body in core.told] == ["pass", "fail", "fail", "fail"]
    first = core.told[0]
    assert (first["name"], first["type"], first["service"]) == ("web", "scripted", "web")
    assert first["interval_seconds"] == 30.0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert check.open_now == 0


async def test_a_check_that_cannot_be_opened_hurts_no_other(stage: Stage, core: Core) -> None:
    def refused() -> AbstractAsyncContextManager[Runs]:
        raise AtlasError("plugin.refused", "its plugin was refused")

    good = Scripted(Health.PASS)
    checks = [planned("bad", refused), planned("good", good.open)]
    task = asyncio.create_task(stage.engine.run(checks))
    await stage.wind(40.0)
    assert {body["name"] for body in core.told} == {"good"}
    assert good.runs == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_with_core_gone_checks_go_on_and_are_reported_when_it_is_back(
    stage: Stage, core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    core.gone = True
    one, other = Scripted(Health.PASS, Health.FAIL), Scripted(Health.PASS)
    checks = [planned("one", one.open), planned("other", other.open)]
    task = asyncio.create_task(stage.engine.run(checks))
    await stage.wind(200.0)
    assert one.runs == 7
    assert core.refused > 2
    assert stage.engine.core_gone == "nobody answers"
    assert sum("core is gone" in r.message for r in caplog.records) == 1
    core.gone = False
    await stage.wind(31.0)
    assert stage.engine.core_gone == ""
    latest = {body["name"]: body["status"] for body in core.told}
    assert latest == {"one": "fail", "other": "pass"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_new_core_is_told_everything_again(stage: Stage, core: Core) -> None:
    check = Scripted(Health.PASS)
    task = asyncio.create_task(stage.engine.run([planned("web", check.open)]))
    await stage.wind(5.0)
    assert len(core.told) == 1
    stage.engine.report_all()
    await stage.wind(1.0)
    assert len(core.told) == 2
    assert check.runs == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_another_configuration_forgets_checks_that_are_gone(stage: Stage, core: Core) -> None:
    check = Scripted(Health.PASS)
    task = asyncio.create_task(stage.engine.run([planned("old", check.open)]))
    await stage.wind(5.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    task = asyncio.create_task(stage.engine.run([planned("new", check.open)]))
    await stage.wind(5.0)
    assert stage.engine.latest.keys() == {"new"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_reports_are_small_enough_for_core() -> None:
    names = [str(n) for n in range(REPORTED_AT_ONCE * 2 + 1)]
    parts = batched(names, REPORTED_AT_ONCE)
    assert [len(part) for part in parts] == [REPORTED_AT_ONCE, REPORTED_AT_ONCE, 1]
    assert [name for part in parts for name in part] == names
