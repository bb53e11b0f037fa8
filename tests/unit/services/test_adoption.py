"""What a successor makes of what it finds: with played processes, after any kind of death."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atlasd.services import adoption
from atlasd.services.adoption import PATIENCE
from atlasd.services.restart import Exit
from atlasd.services.spec import Hook, Probe, Stop
from atlasd.states import Wanted
from tests.unit.services.stage import NOTIFY, Stage, needs, spec


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    assert made.reports == []


def killed(stage: Stage) -> str:
    """`kill -9` of the supervisor and another start; what it says of what it found."""
    stage.successor()
    report = adoption.adopt(stage.supervisor)
    stage.turn()
    return str(report)


def record(stage: Stage, name: str = "web.0", **changes: Any) -> dict[str, Any]:
    """An instance's record; changed, as another version or a fault may leave it."""
    path = stage.folder / f"run/instances/{name}.json"
    body: dict[str, Any] = json.loads(path.read_text())
    if changes:
        path.write_text(json.dumps(body | changes))
    return body


def test_what_runs_is_adopted_and_nothing_is_started_twice(stage: Stage) -> None:
    stage.apply(spec("web", instances=2), spec("db"), spec("off"), wanted={"off": Wanted.DOWN})
    stage.wind(5)
    pids = [stage.process("web", i).pid for i in (0, 1)]
    assert killed(stage) == "3 adopted, 0 had ended meanwhile"
    stage.wind(5)
    assert [stage.process("web", i).pid for i in (0, 1)] == pids
    assert [stage.state(n) for n in ("web", "db", "off")] == ["running", "running", "stopped"]
    assert len(stage.processes) == 3
    assert (
        stage.apply(spec("web", instances=2), spec("db"), spec("off"), wanted={"off": Wanted.DOWN})
        == []
    )


def test_an_adopted_process_that_ends_is_started_again(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(20)
    killed(stage)
    stage.ends_alone(stage.process("web"), Exit(signal=11))
    assert stage.state("web") == "starting"
    assert stage.told("crash")[0]["data"]["signal"] == "SEGV"


def test_a_start_goes_on_and_has_the_time_that_was_left(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY, start_timeout=10.0))
    stage.wind(8)
    killed(stage)
    assert stage.state("web") == "starting"
    stage.wind(1.5)
    assert stage.state("web") == "starting"
    stage.wind(1)
    assert stage.state("web") == "stopping"


def test_a_backoff_goes_on_and_its_failures_are_remembered(stage: Stage) -> None:
    stage.apply(spec("web"))
    for _ in range(4):
        stage.dies("web")
        stage.wind(5)
    assert stage.unit("web").machine.failures == 4
    stage.dies("web")
    assert stage.state("web") == "backoff"
    killed(stage)
    assert stage.state("web") == "backoff"
    assert stage.unit("web").machine.in_crash_loop(stage.clock.monotonic())
    stage.wind(7)
    assert stage.state("web") == "backoff"
    stage.wind(2)
    assert stage.state("web") in ("starting", "running")
    assert stage.unit("web").machine.restarts == 5


def test_what_has_ended_unseen_is_judged_by_a_descriptor_that_comes_back(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(20)
    process = stage.process("web")
    process.alive, process.exit = False, Exit(code=7)
    assert killed(stage) == "0 adopted, 1 had ended meanwhile"
    stage.wind(0.5)
    assert stage.state("web") == "running", "nobody can tell yet"
    handed_back = os.dup(next(iter(process.pidfds)))
    process.pidfds.add(handed_back)
    stage.held.offer({"pidfd/web/0": handed_back})
    stage.turn()
    assert stage.told("crash")[0]["data"]["exit_code"] == 7
    assert stage.state("web") == "starting"
    stage.wind(PATIENCE)
    assert len(stage.told("crash")) == 1


def test_what_has_ended_unseen_counts_as_unknown_when_nobody_tells(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(20)
    stage.process("web").alive = False
    killed(stage)
    stage.wind(PATIENCE + 0.5)
    assert len(stage.processes) == 2
    assert "exit code unknown" in stage.told("crash")[0]["detail"]


def test_a_stranger_with_the_pid_is_never_touched_and_ours_is_lost(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(20)
    stranger = stage.process("web")
    stranger.start_time += 1
    stranger.launch = replace(stranger.launch, env={})
    assert "not provably ours: web.0" in killed(stage)
    stage.wind(PATIENCE + 0.5)
    moves = [(e["old"], e["new"]) for e in stage.told("transition")]
    assert moves[:2] == [("running", "lost"), ("lost", "starting")]
    stage.requests.stop("web", None, actor="test")
    stage.turn()
    assert stranger.got == []


def test_records_of_another_boot_name_nobody(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(5)
    former = stage.process("web")
    stage.boot = "another boot"
    assert killed(stage) == "0 adopted, 0 had ended meanwhile"
    assert stage.state("web") == "starting"
    assert stage.process("web") is not former
    assert former.got == []


@pytest.mark.parametrize("kind", ["requires", "after"])
def test_the_order_holds_after_a_boot_too(stage: Stage, kind: str) -> None:
    stage.apply(spec("api", edges=needs(f"{kind} db:ready")), spec("db"))
    stage.boot = "another boot"
    stage.processes.clear()
    killed(stage)
    assert stage.started() == ["db"]
    stage.wind(1.5)
    assert stage.started() == ["db", "api"]


def test_a_program_that_was_started_but_not_yet_noted_is_found_by_its_invocation(
    stage: Stage,
) -> None:
    stage.apply(spec("web"))
    process = stage.process("web")
    record(stage, state="starting", pid=None, start_time=0)
    assert killed(stage).startswith("1 adopted")
    assert stage.process("web") is process
    assert len(stage.processes) == 1


# ---------------------------------------------------------------------- stops under way


def test_a_stop_that_was_under_way_goes_on(stage: Stage) -> None:
    stage.apply(spec("web", stop=Stop(timeout=5.0)))
    stage.wind(5)
    stage.requests.stop("web", None, actor="test")
    stage.turn()
    process = stage.process("web")
    killed(stage)
    assert stage.state("web") == "stopping"
    stage.wind(5.5)
    assert process.got[-1] == 9
    stage.ends_alone(process, Exit(signal=9))
    stage.wind(5)
    assert stage.state("web") == "stopped"
    assert len(stage.processes) == 1


def test_a_removal_that_was_under_way_goes_on(stage: Stage) -> None:
    stage.apply(spec("old"), spec("web"))
    stage.wind(5)
    process = stage.process("old")
    stage.apply(spec("web"))
    killed(stage)
    assert stage.state("old") == "stopping"
    stage.ends_alone(process, Exit(signal=15))
    stage.turn()
    assert list(stage.supervisor.services) == ["web"]


@pytest.mark.parametrize(("asked", "then"), [(True, "stopped"), (False, "starting")])
def test_a_sweep_that_was_cut_off_goes_on(stage: Stage, *, asked: bool, then: str) -> None:
    stage.apply(spec("web"))
    stage.wind(20)
    child = stage.child_of("web")
    if asked:
        stage.requests.stop("web", None, actor="test")
        stage.turn()
    stage.dies("web", exit_=Exit(code=3))
    assert stage.state("web") == "stopping"
    killed(stage)
    assert stage.state("web") == "stopping"
    stage.wind(1.5)
    assert child.got[-1] == 9
    child.alive = False
    stage.wind(1.5)
    assert stage.state("web") in (then, "running" if then == "starting" else then)
    assert (stage.unit("web").machine.failures == 1) is (not asked)


def test_hooks_of_a_start_that_was_cut_off_run_anew(stage: Stage) -> None:
    stage.apply(spec("web", pre_start=(Hook(command=("/bin/prepare",)),)))
    killed(stage)
    assert stage.state("web") == "starting"
    assert [c.argv[0] for c in stage.commands.all] == ["/bin/prepare"] * 2
    assert stage.started() == []


def test_an_instance_that_was_stopped_by_itself_stays_stopped(stage: Stage) -> None:
    stage.apply(spec("web", instances=2))
    stage.wind(5)
    stage.requests.stop("web", 1, actor="test")
    stage.dies("web", 1, Exit(signal=15))
    killed(stage)
    assert [stage.state("web", i) for i in (0, 1)] == ["running", "stopped"]
    assert stage.apply(spec("web", instances=2)) == []


# ---------------------------------------------------------------------- bad files


def test_words_of_another_version_cost_nobody_his_process(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(5)
    record(stage, state="meditating", reason="karma", health="serene", wanted="perhaps")
    assert killed(stage).startswith("1 adopted")
    assert len(stage.processes) == 1


def test_a_target_that_cannot_be_read_costs_nobody_his_process(stage: Stage) -> None:
    stage.apply(spec("web"), spec("old"))
    stage.wind(5)
    web, old = stage.process("web"), stage.process("old")
    (stage.folder / "run/target.json").write_text('{"services": [{"nonsense": 1}]}')
    assert killed(stage) == "0 adopted, 0 had ended meanwhile"
    assert "cannot be read" in stage.reports.pop()
    assert stage.apply(spec("web"), dry_run=True) == [("web", 0, "start")]
    done = stage.apply(spec("web"))
    assert ("web", 0, "start") not in done
    assert stage.process("web") is web
    assert (web.got, old.got[:1]) == ([], [15]), "what nobody wants any more is ended"
    stage.ends_alone(old, Exit(signal=15))
    stage.turn()
    assert list(stage.supervisor.services) == ["web"]
    assert "2 adopted" in stage.reports.pop()


def test_one_bad_record_costs_the_others_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.apply(spec("a"), spec("b"))
    stage.wind(5)
    record(stage, "a.0", window=["nonsense"])
    assert killed(stage).startswith("1 adopted")
    assert (stage.state("a"), stage.state("b")) == ("lost", "running")
    assert stage.unit("a").machine.detail == "it could not be taken over, see the log"
    assert "a.0" in stage.reports.pop()
    assert len(stage.processes) == 2, "what may still run isn't started a second time"


def test_surplus_instances_are_ended_and_not_started(stage: Stage) -> None:
    stage.apply(spec("web", instances=3))
    stage.wind(5)
    surplus = stage.process("web", 2)
    stage.dies("web", 1, Exit(code=78))
    target = stage.folder / "run/target.json"
    body = json.loads(target.read_text())
    body["services"][0]["instances"] = 1
    target.write_text(json.dumps(body))
    killed(stage)
    assert surplus.got[:1] == [15]
    stage.ends_alone(surplus, Exit(signal=15))
    stage.wind(2)
    assert sorted(stage.supervisor.services["web"].units) == [0]
    assert len(stage.processes) == 3


def test_a_line_that_was_said_before_the_kill_makes_it_ready_all_the_same(stage: Stage) -> None:
    stage.apply(spec("web", ready=Probe(kind="log", target="last words")))
    stage.wind(3)
    assert stage.state("web") == "starting"
    killed(stage)
    assert stage.state("web") == "running"
