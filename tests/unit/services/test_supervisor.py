"""What the supervisor makes of targets, requests and deaths, with played processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.errors import AtlasError
from atlasd.services.restart import Exit
from atlasd.services.spec import Probe, Reload
from atlasd.states import Wanted
from tests.unit.services.stage import NOTIFY, Stage, needs, spec


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    assert made.reports == []


def test_a_target_is_started_and_asking_twice_does_nothing_twice(stage: Stage) -> None:
    assert stage.apply(spec("web", instances=2)) == [("web", 0, "start"), ("web", 1, "start")]
    assert stage.state("web") == "starting"
    stage.wind(1.1)
    assert stage.state("web", 1) == "running"
    assert stage.apply(spec("web", instances=2)) == []
    assert len(stage.processes) == 2


def test_one_changed_service_of_twenty_is_one_action(stage: Stage) -> None:
    specs = [spec(f"s{i:02}") for i in range(20)]
    stage.apply(*specs)
    stage.wind(2)
    changed = [*specs[:7], spec("s07", env={"A": "1"}), *specs[8:]]
    assert stage.apply(*changed, dry_run=True) == [("s07", 0, "restart")]
    assert stage.apply(*changed) == [("s07", 0, "restart")]
    stage.dies("s07", exit_=Exit(signal=15))
    stage.wind(2)
    assert stage.apply(*changed) == []
    assert len(stage.processes) == 21


@pytest.mark.parametrize("kind", ["requires", "wants", "after"])
def test_nobody_starts_before_what_stands_later_in_the_alphabet(stage: Stage, kind: str) -> None:
    stage.apply(spec("api", edges=needs(f"{kind} db:ready")), spec("db"))
    assert stage.started() == ["db"]
    assert stage.state("api") == "waiting"
    stage.wind(1.5)
    assert stage.started() == ["db", "api"]


@pytest.mark.parametrize("kind", ["wants", "after"])
def test_what_is_not_coming_is_not_waited_for(stage: Stage, kind: str) -> None:
    stage.apply(
        spec("api", edges=needs(f"{kind} db:ready")), spec("db"), wanted={"db": Wanted.DOWN}
    )
    assert stage.started() == ["api"]


def test_a_stopped_service_that_is_removed_is_gone(stage: Stage) -> None:
    stage.apply(spec("old"), spec("web"))
    stage.requests.stop("old", None, actor="test")
    stage.dies("old", exit_=Exit(signal=15))
    assert stage.state("old") == "stopped"
    stage.apply(spec("web"))
    assert list(stage.supervisor.services) == ["web"]


def test_a_running_service_that_is_removed_is_stopped_and_then_gone(stage: Stage) -> None:
    stage.apply(spec("old"), spec("web"))
    assert stage.apply(spec("web")) == [("old", 0, "stop")]
    assert stage.state("old") == "stopping"
    stage.dies("old", exit_=Exit(signal=15))
    assert list(stage.supervisor.services) == ["web"]


def test_what_comes_back_while_it_is_being_removed_runs_again(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(2)
    stage.apply()
    assert stage.state("web") == "stopping"
    assert stage.apply(spec("web")) == [("web", 0, "start")]
    assert stage.apply(spec("web")) == []
    stage.dies("web", exit_=Exit(signal=15))
    assert stage.state("web") == "starting"
    assert len(stage.processes) == 2


def test_scaling_down_takes_instances_in_backoff_away(stage: Stage) -> None:
    stage.apply(spec("web", instances=3))
    stage.wind(2)
    for _ in range(2):
        stage.dies("web", 2)
    assert stage.state("web", 2) == "backoff"
    stage.apply(spec("web", instances=1))
    stage.dies("web", 1, Exit(signal=15))
    assert sorted(stage.supervisor.services["web"].units) == [0]
    stage.wind(30)
    assert len(stage.processes) == 4


def test_scaling_up_while_the_surplus_stops_starts_it_anew(stage: Stage) -> None:
    stage.apply(spec("web", instances=2))
    stage.wind(2)
    stage.requests.scale("web", 1, actor="test")
    stage.requests.scale("web", 2, actor="test")
    stage.dies("web", 1, Exit(signal=15))
    assert stage.state("web", 1) == "starting"


def test_a_dependent_of_what_has_failed_before_fails_too_and_comes_back_with_it(
    stage: Stage,
) -> None:
    db = spec("db")
    stage.apply(db)
    stage.dies("db", exit_=Exit(code=78))
    assert stage.state("db") == "failed"
    stage.apply(
        db,
        spec("api", edges=needs("requires db:ready")),
        spec("web", edges=needs("requires api:ready")),
    )
    assert (stage.state("api"), stage.state("web")) == ("failed", "failed")
    assert stage.unit("api").machine.detail == "it requires db, which has failed"
    stage.requests.start("db", None, actor="test")
    stage.turn()
    stage.wind(5)
    assert [stage.state(n) for n in ("db", "api", "web")] == ["running"] * 3


def test_starting_starts_what_it_requires(stage: Stage) -> None:
    down = {"api": Wanted.DOWN, "db": Wanted.DOWN}
    stage.apply(spec("api", edges=needs("requires db:ready")), spec("db"), wanted=down)
    assert stage.started() == []
    stage.requests.start("api", None, actor="test")
    stage.turn()
    assert stage.started() == ["db"]
    stage.wind(1.5)
    assert stage.started() == ["db", "api"]


def test_a_circle_is_refused_and_changes_nothing(stage: Stage) -> None:
    stage.apply(spec("web"))
    with pytest.raises(AtlasError, match="a → b → a"):
        stage.apply(spec("a", edges=needs("after b")), spec("b", edges=needs("after a")))
    assert list(stage.supervisor.services) == ["web"]


# ---------------------------------------------------------------------- rolling


def test_a_roll_waits_until_each_is_ready_again(stage: Stage) -> None:
    stage.apply(spec("web", instances=3))
    stage.wind(2)
    stage.requests.restart("web", None, actor="test")
    for index in range(3):
        assert [stage.state("web", i) for i in range(3)].count("stopping") == 1
        assert stage.state("web", index) == "stopping"
        stage.dies("web", index, Exit(signal=15))
        stage.wind(1.5)
        assert stage.state("web", index) == "running"
    assert len(stage.processes) == 6


def test_a_roll_does_not_revive_instances_that_are_scaled_away(stage: Stage) -> None:
    stage.apply(spec("web", instances=4))
    stage.wind(2)
    stage.requests.restart("web", None, actor="test")
    stage.requests.scale("web", 2, actor="test")
    stage.dies("web", 2, Exit(signal=15))
    stage.dies("web", 3, Exit(signal=15))
    for index in (0, 1):
        stage.dies("web", index, Exit(signal=15))
        stage.wind(2)
    assert sorted(stage.supervisor.services["web"].units) == [0, 1]
    assert stage.supervisor.by_pid.keys() == {stage.process("web", i).pid for i in (0, 1)}
    assert len(stage.processes) == 6


def test_a_roll_goes_on_past_an_instance_that_is_stopped_meanwhile(stage: Stage) -> None:
    stage.apply(spec("web", instances=3))
    stage.wind(2)
    stage.requests.restart("web", None, actor="test")
    stage.unit("web", 0).want(Wanted.DOWN)
    stage.dies("web", 0, Exit(signal=15))
    assert stage.state("web", 0) == "stopped"
    assert stage.state("web", 1) == "stopping"


def test_a_roll_halts_at_an_instance_that_does_not_come_up(stage: Stage) -> None:
    stage.apply(spec("web", instances=2, ready=NOTIFY))
    for index in (0, 1):
        stage.unit("web", index).machine.ready(stage.clock.monotonic())
    stage.requests.restart("web", None, actor="test")
    stage.dies("web", 0, Exit(signal=15))
    stage.dies("web", 0)
    stage.dies("web", 0)
    assert stage.state("web", 0) == "backoff"
    assert stage.state("web", 1) == "running"
    assert len(stage.told("roll-halted")) == 1


# ---------------------------------------------------------------------- restart_with


def companions(stage: Stage) -> None:
    stage.apply(
        spec("broker"), spec("worker", restart_with=("broker",), edges=needs("requires broker"))
    )
    stage.wind(3)
    assert stage.started() == ["broker", "worker"]


def test_restart_with_follows_a_restart(stage: Stage) -> None:
    companions(stage)
    stage.requests.restart("broker", None, actor="test")
    stage.turn()
    assert stage.state("worker") == "stopping"
    assert stage.unit("worker").machine.detail == "broker is restarted"


def test_restart_with_follows_a_crash(stage: Stage) -> None:
    companions(stage)
    stage.dies("broker")
    assert stage.state("broker") == "starting"
    assert stage.state("worker") == "stopping"
    stage.dies("worker", exit_=Exit(signal=15))
    stage.wind(2)
    assert (stage.state("broker"), stage.state("worker")) == ("running", "running")
    assert len(stage.processes) == 4


def test_restart_with_does_not_follow_a_stop_nor_a_removal(stage: Stage) -> None:
    companions(stage)
    stage.requests.stop("broker", None, actor="test")
    stage.turn()
    assert stage.state("worker") == "running"


def test_a_companion_is_not_restarted_when_atlasd_stops_meanwhile(stage: Stage) -> None:
    companions(stage)
    done: list[bool] = []
    stage.requests.restart("broker", None, actor="test")
    stage.supervisor.stop_all(lambda: done.append(True), actor="test")
    stage.turn()
    stage.dies("worker", exit_=Exit(signal=15))
    stage.dies("broker", exit_=Exit(signal=15))
    assert done == [True]
    assert len(stage.processes) == 2


# ---------------------------------------------------------------------- the end


def test_everything_is_stopped_in_reverse_order(stage: Stage) -> None:
    stage.apply(spec("db"), spec("api", edges=needs("requires db:started")), spec("other"))
    stage.wind(3)
    done: list[bool] = []
    stage.supervisor.stop_all(lambda: done.append(True), actor="test")
    stage.turn()
    assert [stage.state(n) for n in ("db", "api", "other")] == ["running", "stopping", "stopping"]
    stage.dies("api", exit_=Exit(signal=15))
    assert stage.state("db") == "stopping"
    stage.dies("other", exit_=Exit(signal=15))
    assert not done
    stage.dies("db", exit_=Exit(signal=15))
    assert done == [True]
    assert stage.supervisor.services["db"].wanted is Wanted.UP


def test_who_asks_for_the_end_twice_is_answered_twice(stage: Stage) -> None:
    stage.apply(spec("web"))
    done: list[str] = []
    stage.supervisor.stop_all(lambda: done.append("first"), actor="test")
    stage.supervisor.stop_all(lambda: done.append("second"), actor="test")
    stage.turn()
    stage.dies("web", exit_=Exit(signal=15))
    assert done == ["first", "second"]


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("embedded null byte"), "cannot start: embedded null byte"),
        (OSError(24, "Too many open files"), "cannot start: Too many open files (system)"),
    ],
)
def test_whatever_goes_wrong_at_a_start_is_a_failed_start(
    stage: Stage, error: Exception, said: str
) -> None:
    stage.spawn_error = error
    stage.apply(spec("web"))
    assert stage.unit("web").machine.detail == said
    stage.spawn_error = None
    stage.wind(3)
    assert stage.state("web") == "running"


def test_a_bug_at_a_start_is_a_failed_start_and_is_reported(stage: Stage) -> None:
    stage.spawn_error = KeyError("PASSWORD")
    stage.apply(spec("web"))
    assert stage.unit("web").machine.detail == "cannot start: unexpected KeyError, see the log"
    assert "KeyError" in stage.reports.pop()
    stage.spawn_error = None
    stage.wind(3)
    assert stage.state("web") == "running"
    stage.reports.clear()


def test_a_process_that_cannot_be_watched_is_not_left_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_pid: int) -> int:
        raise OSError(24, "Too many open files")

    killed: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append((pid, number)))
    with monkeypatch.context() as patch:
        patch.setattr("os.pidfd_open", full)
        stage.apply(spec("web"))
    first = next(iter(stage.processes))
    assert (first, 9) in killed
    assert stage.unit("web").pid is None
    stage.wind(3)
    assert stage.state("web") == "running"


def test_a_full_run_directory_stops_nothing_and_is_said_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        stage.apply(spec("web"), spec("db"))
        stage.wind(2)
        stage.dies("web")
        assert stage.state("web") == "starting"
    assert len(stage.reports) == 1
    assert "No space left on device" in stage.reports.pop()


def test_starts_after_failures_are_counted_and_first_starts_are_not(stage: Stage) -> None:
    stage.apply(spec("api", edges=needs("requires db:ready")), spec("db"))
    stage.wind(3)
    assert stage.supervisor.services["api"].restarts_total == {}
    stage.dies("api", exit_=Exit(signal=11))
    stage.wind(2)
    stage.dies("api", exit_=Exit(code=3))
    stage.wind(2)
    stage.requests.restart("api", None, actor="test")
    stage.dies("api", exit_=Exit(signal=15))
    stage.wind(2)
    assert stage.supervisor.services["api"].restarts_total == {"signal": 1, "exit-code": 1}
    assert len(stage.told("crash")) == 2


def test_a_command_that_only_warns_does_not_make_a_start_ready(stage: Stage) -> None:
    """`pg_isready`, `redis-cli ping` and `test -e` end with 1 while there is nothing to be had."""
    stage.apply(
        spec("db", ready=Probe(kind="exec", command=("pg_isready",))),
        spec("web", edges=needs("requires db:ready")),
    )
    stage.commands.named("pg_isready").end(code=1)
    assert (stage.state("db"), stage.state("web")) == ("starting", "waiting")
    stage.wind(1)
    stage.commands.named("pg_isready").end(code=0)
    stage.wind(1)
    assert stage.state("db") == "running"
    assert stage.state("web") in ("starting", "running")


def test_what_is_removed_together_is_stopped_in_reverse_order(stage: Stage) -> None:
    stage.apply(spec("db"), spec("api", edges=needs("requires db:started")), spec("web"))
    stage.wind(3)
    assert stage.apply(spec("web")) == [("api", 0, "stop"), ("db", 0, "stop")]
    assert (stage.state("db"), stage.state("api")) == ("running", "stopping")
    stage.dies("api", exit_=Exit(signal=15))
    assert stage.state("db") == "stopping"
    stage.dies("db", exit_=Exit(signal=15))
    assert list(stage.supervisor.services) == ["web"]


def test_what_waits_to_be_stopped_and_is_wanted_again_goes_on(stage: Stage) -> None:
    both = (spec("db"), spec("api", edges=needs("requires db:started")))
    stage.apply(*both)
    stage.wind(3)
    stage.apply()
    stage.apply(both[0])
    stage.dies("api", exit_=Exit(signal=15))
    stage.wind(3)
    assert stage.state("db") == "running"
    assert list(stage.supervisor.services) == ["db"]


def test_a_request_to_a_service_without_instances_is_refused_in_words(stage: Stage) -> None:
    stage.apply(spec("web", instances=0, reload=Reload(kind="signal")))
    with pytest.raises(AtlasError, match="so it cannot be reloaded"):
        stage.requests.reload("web", None, actor="test")
    with pytest.raises(AtlasError, match="no process of service 'web' is running"):
        stage.requests.signal("web", None, "HUP", actor="test")
    assert stage.requests.stop("web", None, actor="test") == []
    assert stage.requests.start("web", None, actor="test") == []
    with pytest.raises(AtlasError, match="has no instance 3"):
        stage.requests.stop("web", 3, actor="test")
    assert stage.requests.restart("web", None, actor="test") == []


def test_a_start_takes_back_a_stop_that_still_waits_for_its_turn(stage: Stage) -> None:
    both = (spec("db"), spec("api", edges=needs("requires db:started")))
    stage.apply(*both)
    stage.wind(3)
    stage.apply(*both, wanted={"db": Wanted.DOWN, "api": Wanted.DOWN})
    assert (stage.state("db"), stage.state("api")) == ("running", "stopping")
    stage.requests.start("db", None, actor="test")
    stage.dies("api", exit_=Exit(signal=15))
    stage.wind(3)
    assert stage.state("db") == "running"


def test_what_is_being_removed_cannot_be_started(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.apply()
    with pytest.raises(AtlasError, match="is no longer configured"):
        stage.requests.start("web", None, actor="test")
    stage.dies("web", exit_=Exit(signal=15))
    assert stage.supervisor.services == {}
