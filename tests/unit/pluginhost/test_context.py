"""The context of a plugin: narrow, and bounded in what may be published and logged."""

import logging
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.clock import HandClock
from atlasd.errors import AtlasError
from atlasd.events import CoreStopped, Event, PluginFailed
from atlasd.pluginhost.allowance import Allowance, Rate
from atlasd.pluginhost.context import EVENTS, LOG_RECORDS, Context
from atlasd.pluginhost.ledger import Cause, Ledger


class Desk:
    def __init__(self, folder: Path, plugin: str) -> None:
        self.clock = HandClock()
        self.published: list[Event] = []
        self.ledger = Ledger(self.clock, self.published.append)
        self.context = Context(
            plugin=plugin,
            clock=self.clock,
            state_dir=folder / plugin,
            publish=self.published.append,
            ledger=self.ledger,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state", "shop")


def test_the_folder_is_made_when_asked_for_and_is_the_plugins_alone(
    desk: Desk, tmp_path: Path
) -> None:
    assert not (tmp_path / "state").exists()
    folder = desk.context.state_dir
    assert folder == tmp_path / "state" / "shop"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(AtlasError) as caught:
        _ = Desk(tmp_path / "state", "shop").context.state_dir
    assert caught.value.code == "plugin.state"
    assert str(tmp_path / "state" / "shop") in caught.value.message


async def test_without_a_configuration_there_are_no_secrets(desk: Desk) -> None:
    with pytest.raises(AtlasError) as caught:
        await desk.context.secret("token")
    assert caught.value.code == "plugin.secret"


async def test_blocking_calls_have_threads(desk: Desk) -> None:
    assert await desk.context.in_thread(sorted, [2, 1], reverse=True) == [2, 1]
    desk.context.close()


def test_only_facts_can_be_published(desk: Desk) -> None:
    wrong: Any = {"kind": "crash"}
    with pytest.raises(TypeError, match="only an Event can be published, not a dict"):
        desk.context.publish(wrong)


def test_a_flood_of_facts_is_cut_and_counted(desk: Desk) -> None:
    for _ in range(EVENTS.burst + 10):
        desk.context.publish(CoreStopped(time=1.0))
    facts = [event for event in desk.published if isinstance(event, CoreStopped)]
    assert len(facts) == EVENTS.burst
    assert desk.ledger.costs()["shop", "event"].failures == 10
    assert next(e for e in desk.published if isinstance(e, PluginFailed)).plugin == "shop"
    assert len(desk.published) == EVENTS.burst + 1
    assert desk.ledger.ailing("shop")[0].cause is Cause.FLOODED
    desk.clock.wind(1)
    desk.context.publish(CoreStopped(time=2.0))
    assert desk.published[-1] == CoreStopped(time=2.0)
    assert len(desk.ledger.ailing("shop")) == 1
    desk.clock.wind(60)
    assert desk.ledger.ailing("shop") == ()


def test_a_flood_that_goes_on_is_told_of_once_a_minute(desk: Desk) -> None:
    for _ in range(600):
        desk.clock.wind(0.1)
        for _ in range(20):
            desk.context.publish(CoreStopped(time=1.0))
    told = [event for event in desk.published if isinstance(event, PluginFailed)]
    assert len(told) == 1
    assert desk.ledger.costs()["shop", "event"].failures > 5_000


def test_a_flood_of_log_records_is_cut_and_counted(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="atlasd.plugins.shop"):
        for number in range(LOG_RECORDS.burst + 7):
            desk.context.log.info("%d", number)
            desk.context.log.debug("not even looked at")
    assert len(caplog.records) == LOG_RECORDS.burst
    assert caplog.records[0].__dict__["plugin"] == "shop"
    assert desk.ledger.costs()["shop", "log"].failures == 7


def test_a_second_host_does_not_bound_the_log_twice(tmp_path: Path) -> None:
    one, two = Desk(tmp_path, "shelf"), Desk(tmp_path, "shelf")
    assert one.context.log is two.context.log
    assert len(two.context.log.filters) == 1


@given(
    waits=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    burst=st.integers(1, 10),
    per_second=st.floats(0.1, 20),
)
def test_an_allowance_never_gives_more_than_burst_and_rate(
    waits: list[float], burst: int, per_second: float
) -> None:
    clock = HandClock()
    allowance = Allowance(clock, Rate(per_second=per_second, burst=burst))
    given_out = 0
    for wait in waits:
        clock.wind(wait)
        given_out += allowance.take()
    assert given_out <= burst + sum(waits) * per_second + 1e-6
    assert given_out >= min(burst, len(waits))
    clock.wind(burst / per_second + 1)
    assert all(allowance.take() for _ in range(burst))
    assert not allowance.take()
