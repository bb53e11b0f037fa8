from types import SimpleNamespace
from typing import Any, cast

import pytest

from atlasd.cli import dripping
from atlasd.cli.dripping import Drip, judged
from atlasd.control.client import Client


class Host:
    """A daemon with dead jobs, each of which fails again or does not."""

    def __init__(self, fates: str) -> None:
        self.fates = fates
        self.taken = 0

    def call(self, name: str, /, **fields: Any) -> dict[str, Any]:
        if name == "dead.requeue":
            first = self.taken + 1
            self.taken = min(len(self.fates), self.taken + fields["limit"])
            ids = list(range(first, self.taken + 1))
            return {"jobs": len(ids), "ids": ids}
        assert name == "job.list"
        states = {
            "x": ("dead", 1),
            "r": ("scheduled", 1),
            ".": ("completed", 1),
            "?": ("running", 1),
        }
        found = [(id, *states[self.fates[id - 1]]) for id in fields["id"]]
        return {"jobs": [{"id": i, "state": s, "attempt": a} for i, s, a in found]}


@pytest.fixture
def wound(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(dripping, "time", clock)
    return now


def drip(host: Host, *, rate: float = 5.0, stop_at: float | None = None) -> Drip:
    return Drip(
        cast("Client", host), {"kind": "a"}, rate=rate, stop_at=stop_at,
        say=lambda _done, _known: None,
    )  # fmt: skip


@pytest.mark.parametrize("rate", [0.5, 5.0, 100.0])
def test_the_rate_is_kept(wound: list[float], rate: float) -> None:
    one = drip(Host("." * 200), rate=rate)
    one.run(None)
    assert one.requeued == 200
    assert wound[0] == pytest.approx(200 / rate, rel=0.1, abs=1.5)


def test_it_stops_when_too_many_fail_again(wound: list[float]) -> None:
    one = drip(Host("....r" * 4 + "x" * 100), stop_at=0.3)
    one.run(None)
    assert one.stopped
    assert one.requeued < 60
    error = one.error("atlasctl dead requeue --kind a")
    assert error.code == "dead.stopped"
    assert "failed again" in error.message
    assert "atlasctl dead requeue --kind a" in error.hint


def test_a_first_failure_says_nothing_yet(wound: list[float]) -> None:
    one = drip(Host("x" + "." * 30), stop_at=0.5)
    one.run(None)
    one.settle(30)
    assert not one.stopped
    assert (one.finished, one.failed) == (30, 1)
    assert one.known() == "30 finished, 1 failed again, 0 open"


def test_a_limit_is_a_limit(wound: list[float]) -> None:
    one = drip(Host("." * 50), rate=100.0)
    one.run(7)
    assert one.requeued == 7


def test_patience_ends(wound: list[float]) -> None:
    one = drip(Host("?" * 3), stop_at=0.5)
    one.run(None)
    before = wound[0]
    one.settle(10)
    assert wound[0] - before == pytest.approx(10, abs=0.5)
    assert one.known() == "0 finished, 0 failed again, 3 open"


@pytest.mark.parametrize(
    ("state", "attempt", "outcome"),
    [
        ("available", 0, "open"), ("running", 1, "open"), ("scheduled", 0, "open"),
        ("scheduled", 1, "failed"), ("running", 2, "failed"), ("dead", 1, "failed"),
        ("completed", 1, "finished"), ("completed", 2, "failed"), ("cancelled", 0, "cancelled"),
    ],
)  # fmt: skip
def test_a_requeued_job_is_judged_by_its_attempts(state: str, attempt: int, outcome: str) -> None:
    assert judged(state, attempt) == outcome
