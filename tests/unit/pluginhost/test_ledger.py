"""The books: what each plugin cost, what ails it, and how often the bus is told."""

import pytest

from atlasd.clock import HandClock
from atlasd.events import Event, PluginFailed
from atlasd.pluginhost.ledger import Cause, Cost, Ledger


class Desk:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.published: list[Event] = []
        self.ledger = Ledger(self.clock, self.published.append)

    def fail(self, subject: str = "check web", cause: Cause = Cause.RAISED) -> None:
        self.ledger.failed("shop", "check", subject, cause, f"{subject}: broken")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_costs_add_up_by_plugin_and_kind(desk: Desk) -> None:
    desk.ledger.called("shop", "check", 0.5)
    desk.ledger.called("shop", "check", 0.25)
    desk.ledger.called("shop", "operation", 1.0)
    desk.fail()
    assert desk.ledger.costs() == {
        ("shop", "check"): Cost(calls=2, seconds=0.75, failures=1),
        ("shop", "operation"): Cost(calls=1, seconds=1.0, failures=0),
    }


def test_what_works_again_no_longer_ails(desk: Desk) -> None:
    desk.fail("check web")
    desk.fail("check db")
    desk.ledger.worked("shop", "check web")
    desk.ledger.worked("nobody", "nothing")
    assert [failure.detail for failure in desk.ledger.ailing("shop")] == ["check db: broken"]
    assert desk.ledger.ailing("nobody") == ()


def test_failures_in_a_row_are_published_once(desk: Desk) -> None:
    for _ in range(3):
        desk.fail()
        desk.clock.wind(300)
    assert desk.published == [
        PluginFailed(time=1_800_000_000.0, plugin="shop", detail="check web: broken")
    ]


def test_what_fails_now_and_then_is_published_once_a_minute(desk: Desk) -> None:
    for _ in range(12):
        desk.fail()
        desk.ledger.worked("shop", "check web")
        desk.clock.wind(10)
    assert [int(event.time) % 1000 for event in desk.published] == [0, 60]


def test_a_flood_ails_until_it_has_been_calm_for_a_minute(desk: Desk) -> None:
    desk.fail("log", Cause.FLOODED)
    desk.fail("check web")
    desk.clock.wind(59)
    assert len(desk.ledger.ailing("shop")) == 2
    desk.clock.wind(1)
    (left,) = desk.ledger.ailing("shop")
    assert left.cause is Cause.RAISED
