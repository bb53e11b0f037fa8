"""Those who watch an instance: when they begin to, and what they do about what they see."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.services.restart import Exit
from atlasd.services.spec import Probe
from atlasd.states import Wanted
from tests.unit.services.stage import NOTIFY, Stage, spec

LIVE = Probe(kind="exec", command=("/bin/alive",), interval=5.0, fail_after=3)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    assert made.reports == []


def asked(stage: Stage, program: str) -> int:
    return sum(c.argv[0] == program for c in stage.commands.all)


def answer(stage: Stage, program: str, code: int) -> None:
    """Let the probe that is under way end, and what comes of it happen."""
    stage.commands.named(program).end(code)
    stage.turn()


def test_whoever_is_still_starting_is_not_asked_whether_it_lives(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY, live=LIVE, start_timeout=60.0))
    stage.wind(50)
    assert asked(stage, "/bin/alive") == 0
    stage.unit("web").machine.ready(stage.clock.monotonic())
    stage.turn()
    assert asked(stage, "/bin/alive") == 1


def test_liveness_fails_only_after_its_full_count_of_intervals(stage: Stage) -> None:
    stage.apply(spec("web", live=LIVE))
    stage.wind(1.1)
    for count in (1, 2, 3):
        assert (stage.state("web"), asked(stage, "/bin/alive")) == ("running", count)
        answer(stage, "/bin/alive", 2)
        if count < 3:
            stage.wind(3)
            assert asked(stage, "/bin/alive") == count, "a failure isn't followed up in haste"
            stage.wind(3)
    assert stage.state("web") == "stopping"
    assert stage.unit("web").machine.detail.startswith("liveness probe failed 3 times")
    stage.dies("web", exit_=Exit(signal=15))
    assert stage.state("web") == "starting"
    assert stage.told("crash")[0]["reason"] == "liveness"


def test_a_probe_that_cannot_run_restarts_nothing_and_is_told(stage: Stage) -> None:
    stage.apply(spec("web", live=LIVE))
    stage.wind(1.1)
    for _ in range(5):
        answer(stage, "/bin/alive", 127)
        stage.wind(5.75)
    assert stage.state("web") == "running"
    assert "cannot run" in stage.told("health", new="unknown")[0]["detail"]


def test_traffic_is_told_at_each_change_and_once(stage: Stage) -> None:
    ready = Probe(kind="exec", command=("/bin/ready",), interval=1.0, fail_after=1, pass_after=1)
    stage.apply(spec("web", ready=ready))
    answer(stage, "/bin/ready", 0)
    stage.wind(1.25)
    answer(stage, "/bin/ready", 2)
    stage.wind(1.25)
    answer(stage, "/bin/ready", 0)
    stage.requests.stop("web", None, actor="test")
    stage.turn()
    stage.dies("web", exit_=Exit(signal=15))
    assert [(e["old"], e["new"]) for e in stage.told("traffic")] == [
        ("out", "in"),
        ("in", "out"),
        ("out", "in"),
        ("in", "draining"),
        ("draining", "out"),
    ]
    assert len(stage.processes) == 1, "a readiness that fails restarts nothing"


def test_a_missed_watchdog_ends_it_but_not_while_it_starts_or_is_paused(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY, watchdog=2.0))
    stage.wind(20)
    assert stage.state("web") == "starting"
    stage.unit("web").machine.ready(stage.clock.monotonic())
    stage.requests.pause("web", actor="test")
    stage.wind(20)
    assert stage.state("web") == "running"
    stage.requests.start("web", None, actor="test")
    stage.wind(4.5)
    assert stage.state("web") == "stopping"
    assert stage.unit("web").machine.wanted is Wanted.UP
    assert stage.process("web").got[0] == 6


@pytest.mark.parametrize(
    "probe", [Probe(kind="log", target="(unclosed"), Probe(kind="http", target="carrier://pigeon")]
)
def test_a_probe_that_cannot_even_be_made_hurts_nobody(stage: Stage, probe: Probe) -> None:
    stage.apply(spec("web", ready=probe, live=Probe(kind="tcp", target="nowhere")))
    stage.wind(5)
    assert stage.state("web") == "running"
    assert len(stage.processes) == 1
    said = [e["detail"] for e in stage.told("health", new="unknown")]
    assert [s.split(" cannot")[0] for s in said] == ["readiness", "liveness"]


# ---------------------------------------------------------------------- what a program says


def test_a_program_says_how_it_is(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY))
    stage.says("web", status="loading")
    assert stage.unit("web").status_text == "loading"
    stage.says("web", errno=2)
    assert stage.unit("web").status_text == "loading (errno 2: No such file or directory)"
    stage.says("web", errno=10**18)
    stage.says("web", ready=True, status="at work")
    assert (stage.state("web"), stage.unit("web").status_text) == ("running", "at work")
    stage.says("web", stopping=True)
    assert (stage.state("web"), stage.unit("web").machine.traffic) == ("running", "out")


def test_a_stranger_changes_nothing(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY), spec("other"))
    stranger = stage.process("other").pid
    stage.processes[stranger].launch.env.clear()  # type: ignore[attr-defined]
    stage.says("web", pid=stranger, ready=True, status="hello", main_pid=stranger)
    assert (stage.state("web"), stage.unit("web").status_text) == ("starting", "")
    assert stage.unit("web").attendants.refused_messages == 1
    assert stage.unit("web").pid != stranger


def test_the_dead_say_nothing_of_whoever_comes_next(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY))
    former = stage.process("web").pid
    stage.dies("web")
    stage.wind(1)
    stage.says("web", pid=former, ready=True)
    assert stage.state("web") == "starting"


def test_another_main_process_of_its_own_is_the_one_that_counts(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY))
    first, child = stage.process("web"), stage.child_of("web")
    stage.says("web", main_pid=child.pid, ready=True)
    assert stage.unit("web").pid == child.pid
    assert stage.supervisor.by_pid.keys() == {child.pid}
    first.alive = False
    stage.ends_alone(child, Exit(signal=11))
    stage.wind(1)
    assert stage.told("crash")[0]["data"]["signal"] == "SEGV"
    assert len(stage.started()) == 3


def test_a_main_process_that_is_not_its_own_is_not_believed(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY), spec("other"))
    mine, other = stage.process("web").pid, stage.process("other").pid
    stage.says("web", main_pid=other)
    stage.says("web", main_pid=1)
    assert stage.unit("web").pid == mine
    assert stage.unit("other").pid == other


def test_a_program_asks_for_more_time_and_for_another_watchdog(stage: Stage) -> None:
    stage.apply(spec("web", ready=NOTIFY, start_timeout=5.0))
    stage.wind(4)
    stage.says("web", extend_timeout_usec=20_000_000)
    stage.wind(18)
    assert stage.state("web") == "starting"
    stage.says("web", ready=True, watchdog_usec=3_000_000)
    for _ in range(3):
        stage.wind(2)
        stage.says("web", watchdog="ping")
    assert stage.state("web") == "running"
    stage.says("web", watchdog="trigger")
    assert stage.state("web") == "stopping"
    assert stage.process("web").got == [6]
