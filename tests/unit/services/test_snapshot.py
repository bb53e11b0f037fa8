"""What is, as it is told to core: complete, of the types that the protocol names, and no secret."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from atlasd.services import snapshot
from atlasd.services.protocol import InstanceStatus, ServiceStatus, SnapshotBody
from atlasd.services.restart import Exit
from atlasd.states import Wanted
from tests.unit.services.stage import Stage, needs, spec


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    assert made.reports == []


def test_every_field_of_the_protocol_is_there_and_no_other(stage: Stage) -> None:
    stage.apply(spec("web", instances=2), spec("off"), wanted={"off": Wanted.DOWN})
    stage.wind(2)
    body = snapshot.take(stage.supervisor)
    assert body.keys() == get_type_hints(SnapshotBody).keys()
    for service in body["services"]:
        assert service.keys() == get_type_hints(ServiceStatus).keys()
        for instance in service["instances"]:
            assert instance.keys() == get_type_hints(InstanceStatus).keys()
    assert [(s["name"], len(s["instances"])) for s in body["services"]] == [("off", 1), ("web", 2)]


def test_services_are_chosen_by_name_and_unknown_names_passed_over(stage: Stage) -> None:
    stage.apply(spec("a"), spec("b"))
    chosen = snapshot.take(stage.supervisor, ["b", "nobody"])["services"]
    assert [s["name"] for s in chosen] == ["b"]


def test_a_state_is_told_with_its_reason_and_what_comes_next(stage: Stage) -> None:
    stage.apply(spec("api", edges=needs("requires db:ready")), spec("db"))
    stage.dies("db", exit_=Exit(code=3))
    stage.dies("db", exit_=Exit(code=3))
    api, db = snapshot.take(stage.supervisor)["services"]
    assert api["waiting_for"] == ["db"]
    assert api["instances"][0]["detail"].startswith("waiting for db to be ready")
    [instance] = db["instances"]
    assert (instance["state"], instance["health"], instance["pid"]) == ("backoff", "fail", None)
    assert (instance["reason"], instance["detail"]) == ("exit-code", "exit code 3")
    assert instance["next_start_in"] == pytest.approx(1.0)
    assert (instance["restarts"], instance["failures"]) == (1, 2)
    stage.wind(20)
    [instance] = snapshot.take(stage.supervisor, ["db"])["services"][0]["instances"]
    assert (instance["state"], instance["failures"]) == ("running", 0)
    assert instance["next_start_in"] is None


def test_the_environment_of_a_program_is_told_to_nobody(stage: Stage) -> None:
    secret = "hunter2-the-password"
    stage.apply(spec("web", env={"PASSWORD": secret}, command=("/bin/web", "--token=tok-en")))
    stage.wind(2)
    stage.dies("web", exit_=Exit(signal=11))
    stage.no_program.add("/bin/web")
    stage.wind(5)
    told = json.dumps([snapshot.take(stage.supervisor), stage.events])
    assert secret not in told
    assert "tok-en" not in told
    crashes = (stage.folder / "state/crashes/web.jsonl").read_text()
    assert secret not in crashes
    assert "tok-en" not in crashes
    for kept in (stage.folder / "run").rglob("*.json"):
        assert kept.stat().st_mode & 0o077 == 0, "whoever keeps it keeps it for itself"
