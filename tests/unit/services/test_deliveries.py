"""What becomes of a change of what services are handed, with played processes."""

import base64
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.services import adoption
from atlasd.services.deliveries import KEPT
from atlasd.services.restart import Exit
from atlasd.services.spec import Delivery, OnChange, Probe, Reload, ServiceSpec
from atlasd.states import Wanted
from tests.unit.services.stage import NOTIFY, Stage, spec

TERMED = Exit(signal=signal.SIGTERM)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    assert [r for r in made.reports if "put the run directory on a tmpfs" not in r] == []


def handed(name: str, value: str, kind: str = "file") -> Delivery:
    return Delivery(name=name, kind=kind, content=base64.b64encode(value.encode()).decode())


def web(value: str, way: str = "restart", **changes: Any) -> ServiceSpec:
    """Two instances that are handed a file, a descriptor and a variable of this value."""
    changes.setdefault("instances", 2)
    changes.setdefault("reload", Reload(kind="signal"))
    deliveries = (handed("DB", value), handed("KEY", value, "fd"), handed("URL", value, "env"))
    return spec("web", deliveries=deliveries, on_change=OnChange(kind=way), **changes)


def only_file(value: str, way: str, **changes: Any) -> ServiceSpec:
    changes.setdefault("reload", Reload(kind="signal"))
    return spec("web", deliveries=(handed("DB", value),), on_change=OnChange(kind=way), **changes)


def file_of(stage: Stage) -> str:
    """What a program finds by its path."""
    return (stage.folder / "run/secrets/web/current/DB").read_text()


def outdated(stage: Stage, index: int = 0) -> tuple[str, ...]:
    return stage.unit("web", index).handed.outdated()


# ---------------------------------------------------------------------- a start


def test_a_program_is_told_of_everything_at_its_start(stage: Stage) -> None:
    stage.apply(web("{instance}", ready=Probe(kind="fd", fd=4)))
    launch = stage.process("web").launch
    folder = f"{stage.folder}/run/secrets/web/current"
    assert launch.env["DB_FILE"] == f"{folder}/DB"
    assert launch.env["SECRETS_DIR"] == folder
    assert launch.env["KEY_FD"] == "3"
    assert launch.env["URL"] == "{instance}"
    assert not {"DB", "KEY"} & launch.env.keys()
    assert {3, 4} <= launch.fds.keys()
    assert launch.no_core
    assert file_of(stage) == "{instance}"


def test_descriptors_come_after_the_sockets_and_beside_the_ready_one() -> None:
    from atlasd.services.launcher import numbers

    one = web("x", ready=Probe(kind="fd", fd=6))
    two = spec("web", deliveries=(*one.deliveries, handed("TOKEN", "t", "fd")), ready=one.ready)
    assert numbers(two, 0) == {"KEY": 3, "TOKEN": 4}
    assert numbers(two, 2) == {"KEY": 5, "TOKEN": 7}


def test_commands_beside_it_are_told_of_files_and_variables_only(stage: Stage) -> None:
    from atlasd.services.spec import Hook

    stage.apply(web("1", pre_start=(Hook(command=("prepare",)),), instances=1))
    env = stage.commands.named("prepare").options["env"]
    assert isinstance(env, dict)
    assert Path(env["DB_FILE"]).read_text() == "1"
    assert env["URL"] == "1"
    assert "KEY_FD" not in env


def test_what_cannot_be_written_fails_the_start_in_words(stage: Stage) -> None:
    (stage.folder / "run/secrets").write_text("in the way")
    stage.apply(web("1", instances=1))
    assert stage.unit("web").machine.detail.startswith("cannot write what it is handed to ")
    (stage.folder / "run/secrets").unlink()
    stage.wind(1.5)
    assert file_of(stage) == "1"


# ---------------------------------------------------------------------- restart


def test_restart_rolls_and_each_has_the_new_before_the_next_is_touched(stage: Stage) -> None:
    stage.apply(web("1"))
    stage.wind(2)
    assert stage.apply(web("2")) == [("web", 0, "deliver"), ("web", 1, "deliver")]
    assert (stage.state("web", 0), stage.state("web", 1)) == ("stopping", "running")
    assert file_of(stage) == "1"  # what still runs may need it until its end
    stage.dies("web", 0, TERMED)
    assert stage.process("web", 0).launch.env["URL"] == "2"
    assert file_of(stage) == "2"
    assert stage.state("web", 1) == "running"
    stage.wind(1.5)
    assert stage.state("web", 1) == "stopping"
    stage.dies("web", 1, TERMED)
    stage.wind(1.5)
    assert stage.apply(web("2")) == []
    moved = stage.told("transition", new="starting", reason="delivery")
    assert [e["detail"] for e in moved] == ["changed: DB, KEY, URL"] * 2


def test_an_instance_that_does_not_come_up_spares_the_others(stage: Stage) -> None:
    stage.apply(web("1", ready=NOTIFY))
    for index in (0, 1):
        stage.unit("web", index).machine.ready(stage.clock.monotonic())
    stage.apply(web("2", ready=NOTIFY))
    stage.dies("web", 0, TERMED)
    stage.dies("web", 0)
    stage.dies("web", 0)
    assert (stage.state("web", 0), stage.state("web", 1)) == ("backoff", "running")
    (halted,) = stage.told("roll-halted")
    assert "instances 1 were left as they are" in halted["detail"]
    # Core asks again for whatever reason: the others still have nothing to do with it.
    assert stage.apply(web("2", ready=NOTIFY)) == [("web", 1, "deliver")]
    assert stage.state("web", 1) == "running"
    assert len(stage.told("roll-halted")) == 2
    assert stage.unit("web", 1).handed.standing == "halted"
    # Other contents are a new chance, and the broken one has it first.
    assert stage.apply(web("3", ready=NOTIFY)) == [("web", 0, "deliver"), ("web", 1, "deliver")]
    assert (stage.state("web", 0), stage.state("web", 1)) == ("starting", "running")
    stage.unit("web", 0).machine.ready(stage.clock.monotonic())
    stage.turn()
    assert stage.state("web", 1) == "stopping"


def test_who_crashes_in_the_middle_of_a_roll_has_the_new_and_no_second_turn(stage: Stage) -> None:
    stage.apply(web("1", instances=3))
    stage.wind(2)
    stage.apply(web("2", instances=3))
    stage.dies("web", 2)  # by itself
    assert stage.process("web", 2).launch.env["URL"] == "2"
    pid = stage.process("web", 2).pid
    for index in (0, 1):
        stage.dies("web", index, TERMED)
        stage.wind(1.5)
    assert stage.apply(web("2", instances=3)) == []
    assert stage.state("web", 2) in ("running", "stopping")
    assert pid is not None


def test_an_unchanged_target_in_the_middle_of_a_roll_does_not_hurry_it(stage: Stage) -> None:
    stage.apply(web("1", instances=3))
    stage.wind(2)
    stage.apply(web("2", instances=3))
    stage.dies("web", 0, TERMED)  # it is starting, and not up yet
    assert [stage.unit("web", i).handed.standing for i in range(3)] == ["", "due", "due"]
    assert stage.apply(web("2", instances=3)) == [("web", 1, "deliver"), ("web", 2, "deliver")]
    assert stage.state("web", 1) == "running"
    stage.wind(1.5)
    assert stage.state("web", 1) == "stopping"


def test_a_oneshot_that_was_handed_nothing_new_is_left_alone(stage: Stage) -> None:
    stage.apply(web("1", way="none", type="oneshot", instances=1, reload=Reload()))
    stage.apply(web("2", way="none", type="oneshot", instances=1, reload=Reload()))
    assert stage.state("web") == "starting"
    assert len(stage.processes) == 1
    stage.dies("web", exit_=Exit(code=0))
    assert stage.apply(web("3", type="oneshot", instances=1, reload=Reload())) == []
    assert stage.state("web") == "exited"


# ---------------------------------------------------------------------- reload and signal


def test_reload_rolls_and_the_running_process_keeps_what_it_cannot_exchange(stage: Stage) -> None:
    stage.apply(web("1", "reload"))
    stage.wind(2)
    assert stage.apply(web("2", "reload")) == [("web", 0, "deliver"), ("web", 1, "deliver")]
    assert file_of(stage) == "2"
    assert stage.process("web", 0).got[:1] == [signal.SIGHUP]
    assert stage.process("web", 1).got == []
    stage.wind(1.2)
    assert stage.process("web", 1).got[:1] == [signal.SIGHUP]
    assert stage.apply(web("2", "reload")) == []
    assert outdated(stage) == ("KEY", "URL")
    (first, _second) = stage.told("delivery")
    assert first["detail"] == "DB: reloaded; KEY, URL: the next start has it"
    stage.requests.restart("web", 0, actor="test")
    stage.dies("web", 0, TERMED)
    assert outdated(stage) == ()
    assert outdated(stage, 1) == ("KEY", "URL")


def test_what_has_its_old_value_back_is_not_outdated(stage: Stage) -> None:
    for value in "121":
        stage.apply(web(value, "reload", instances=1))
        stage.wind(2)
    assert outdated(stage) == ()


def test_signal_sends_what_is_said(stage: Stage) -> None:
    stage.apply(only_file("1", "signal"))
    stage.wind(2)
    usr1 = OnChange(kind="signal", signal="USR1")
    stage.apply(spec("web", deliveries=(handed("DB", "2"),), on_change=usr1))
    assert stage.process("web").got[:1] == [signal.SIGUSR1]
    assert stage.told("delivery")[0]["detail"] == "DB: USR1 was sent"


def test_a_reload_that_fails_halts_and_is_still_to_be_done(stage: Stage) -> None:
    how = Reload(kind="exec", command=("nginx", "-s", "reload"))
    old, new = (only_file(v, "reload", instances=2, reload=how) for v in "12")
    stage.apply(old)
    stage.wind(2)
    stage.apply(new)
    assert stage.state("web", 0) == "reloading"
    stage.commands.named("nginx").end(1, b"bad certificate\n")
    stage.wind(3)
    (halted,) = stage.told("roll-halted")
    assert "bad certificate; instances 1 were left as they are" in halted["detail"]
    assert outdated(stage, 1) == ("DB",)
    assert stage.apply(new) == [("web", 0, "deliver"), ("web", 1, "deliver")]
    stage.commands.named("nginx").end(0)
    stage.wind(1.5)
    stage.commands.named("nginx").end(0)
    stage.turn()
    assert stage.apply(new) == []


def test_who_is_starting_is_told_once_it_runs(stage: Stage) -> None:
    stage.apply(only_file("1", "reload"))
    stage.apply(only_file("2", "reload"))
    assert stage.process("web").got == []
    stage.wind(1.2)
    assert stage.process("web").got[:1] == [signal.SIGHUP]
    assert stage.apply(only_file("2", "reload")) == []


def test_newer_contents_during_a_reload_have_a_reload_of_their_own(stage: Stage) -> None:
    how = Reload(kind="exec", command=("tell",))
    stage.apply(only_file("1", "reload", reload=how))
    stage.wind(2)
    stage.apply(only_file("2", "reload", reload=how))
    stage.apply(only_file("3", "reload", reload=how))
    stage.commands.named("tell").end(0)
    stage.turn()
    stage.supervisor.rolls.step("web")
    assert stage.state("web") == "reloading"
    assert file_of(stage) == "3"
    stage.commands.named("tell").end(0)
    stage.turn()
    assert stage.apply(only_file("3", "reload", reload=how)) == []


def test_who_dies_of_the_signal_halts_the_roll(stage: Stage) -> None:
    old, new = (only_file(v, "signal", instances=2) for v in "12")
    stage.apply(old)
    stage.wind(2)
    stage.apply(new)
    stage.dies("web", 0, Exit(signal=signal.SIGHUP))
    stage.dies("web", 0, Exit(code=1))
    assert stage.state("web", 0) == "backoff"
    assert stage.process("web", 1).got == []
    assert len(stage.told("roll-halted")) == 1


def test_the_next_has_its_turn_when_the_probe_has_passed_anew(stage: Stage) -> None:
    live = Probe(kind="exec", command=("ask",), interval=60.0, fail_after=2)
    old, new = (only_file(v, "signal", instances=2, live=live) for v in "12")
    stage.apply(old)
    stage.wind(2)
    for command in [c for c in stage.commands.all if not c.over]:
        command.end(0)
    stage.turn()
    stage.apply(new)
    stage.wind(1.2)
    assert stage.process("web", 1).got == []  # nobody has asked it since
    asked = [c for c in stage.commands.all if not c.over]
    assert len(asked) == 1
    asked[0].end(2)
    stage.wind(0.5)
    assert stage.process("web", 1).got == []
    stage.wind(70)
    for command in [c for c in stage.commands.all if not c.over]:
        command.end(0)
    stage.wind(0.5)
    assert stage.process("web", 1).got[:1] == [signal.SIGHUP]


# ---------------------------------------------------------------------- swap and none


def test_swap_exchanges_and_tells_nobody(stage: Stage) -> None:
    stage.apply(only_file("1", "swap", instances=2))
    stage.wind(2)
    assert stage.apply(only_file("2", "swap", instances=2)) == [
        ("web", 0, "deliver"),
        ("web", 1, "deliver"),
    ]
    assert file_of(stage) == "2"
    assert stage.process("web").got == []
    assert outdated(stage) == outdated(stage, 1) == ()
    assert stage.apply(only_file("2", "swap", instances=2)) == []


def test_none_leaves_everything_until_the_next_start(stage: Stage) -> None:
    stage.apply(only_file("1", "none"))
    stage.wind(2)
    assert stage.apply(only_file("2", "none")) == [("web", 0, "deliver")]
    assert stage.apply(only_file("2", "none")) == []
    assert file_of(stage) == "1"
    assert outdated(stage) == ("DB",)
    stage.dies("web")
    assert file_of(stage) == "2"
    assert outdated(stage) == ()


def test_an_exchange_that_fails_is_told_and_still_to_be_done(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.apply(only_file("1", "swap"))
    stage.wind(2)
    folder = stage.folder / "run/secrets/web"
    folder.rename(folder.with_name("aside"))
    folder.write_text("in the way")
    stage.supervisor.services["web"].deliveries.files.generation = 0
    stage.apply(only_file("2", "swap"))
    assert "cannot write what it is handed" in stage.told("roll-halted")[0]["detail"]
    folder.unlink()
    folder.with_name("aside").rename(folder)
    assert stage.apply(only_file("2", "swap")) == [("web", 0, "deliver")]
    assert file_of(stage) == "2"


# ---------------------------------------------------------------------- old files


def generations(stage: Stage) -> list[str]:
    return sorted(p.name for p in (stage.folder / "run/secrets/web").iterdir() if p.is_dir())


def test_old_files_go_when_nobody_was_told_of_them(stage: Stage) -> None:
    stage.apply(web("1"))
    stage.wind(2)
    stage.apply(web("2"))
    stage.dies("web", 0, TERMED)
    stage.wind(0.5)
    assert generations(stage) == ["1", "2", "current"]
    stage.wind(1.5)
    stage.dies("web", 1, TERMED)
    stage.wind(KEPT + 5)
    assert generations(stage) == ["2", "current"]


def test_old_files_stay_for_those_whom_a_halted_roll_has_spared(stage: Stage) -> None:
    stage.apply(web("1", ready=NOTIFY))
    for index in (0, 1):
        stage.unit("web", index).machine.ready(stage.clock.monotonic())
    stage.apply(web("2", ready=NOTIFY))
    stage.dies("web", 0, TERMED)
    stage.dies("web", 0)
    stage.dies("web", 0)
    stage.wind(KEPT + 5)
    assert generations(stage) == ["1", "2", "current"]


def test_nothing_stays_of_a_service_that_is_no_more(stage: Stage) -> None:
    stage.apply(web("1", instances=1), spec("other"))
    stage.wind(2)
    stage.apply(spec("other"))
    stage.dies("web", exit_=TERMED)
    assert not (stage.folder / "run/secrets/web").exists()


def test_nothing_stays_once_no_file_is_handed_over_any_more(stage: Stage) -> None:
    stage.apply(only_file("1", "restart"))
    stage.wind(2)
    stage.apply(spec("web"))
    stage.dies("web", exit_=TERMED)
    stage.wind(KEPT + 5)
    assert not (stage.folder / "run/secrets/web").exists()


# ---------------------------------------------------------------------- a successor


def test_a_successor_delivers_nothing_twice_and_forgets_nothing(stage: Stage) -> None:
    stage.apply(web("1", instances=3))
    stage.wind(2)
    stage.apply(web("2", instances=3))
    stage.dies("web", 0, TERMED)
    stage.wind(0.5)  # instance 0 has the new, 1 and 2 have not: the role is killed here
    adoption.adopt(stage.successor())
    stage.turn()
    assert [stage.state("web", i) for i in range(3)] == ["starting", "running", "running"]
    assert outdated(stage, 1) == ("DB", "KEY", "URL")
    assert stage.apply(web("2", instances=3), dry_run=True) == [
        ("web", 1, "deliver"),
        ("web", 2, "deliver"),
    ]
    stage.apply(web("2", instances=3))
    assert {e["detail"] for e in stage.told("plan", action="deliver")} == {"changed: DB, KEY, URL"}


def test_a_successor_knows_what_a_reload_could_not_exchange(stage: Stage) -> None:
    stage.apply(web("1", "reload", instances=1))
    stage.wind(2)
    stage.apply(web("2", "reload", instances=1))
    stage.wind(2)
    adoption.adopt(stage.successor())
    stage.turn()
    assert stage.apply(web("2", "reload", instances=1)) == []
    assert outdated(stage) == ("KEY", "URL")
    assert stage.unit("web").handed.generation == 2


def test_a_successor_sweeps_what_a_predecessor_has_left(stage: Stage) -> None:
    stage.apply(only_file("1", "swap"))
    stage.wind(2)
    stage.apply(only_file("2", "swap"))
    stray = stage.folder / "run/secrets/stranger/1"
    stray.mkdir(parents=True)
    adoption.adopt(stage.successor())
    stage.turn()
    assert generations(stage) == ["2", "current"]
    assert not stray.exists()
    assert stage.apply(only_file("2", "swap")) == []
    assert file_of(stage) == "2"


def test_a_target_without_a_predecessor_sweeps_too(stage: Stage) -> None:
    stray = stage.folder / "run/secrets/stranger/1"
    stray.mkdir(parents=True)
    adoption.adopt(stage.supervisor)
    stage.apply(spec("web"))
    assert not stray.exists()


def test_many_names_do_not_cost_the_record_what_counts(stage: Stage) -> None:
    def many(value: str) -> ServiceSpec:
        deliveries = tuple(handed(f"A_RATHER_LONG_NAME_{i}", value, "env") for i in range(100))
        return spec("web", deliveries=deliveries, on_change=OnChange(kind="none"))

    stage.apply(many("1"))
    stage.wind(2)
    stage.apply(many("2"))
    adoption.adopt(stage.successor())
    stage.turn()
    assert stage.state("web") == "running"
    assert stage.apply(many("2")) == []
    assert stage.apply(many("3")) == [("web", 0, "deliver")]


def test_who_is_wanted_down_is_handed_nothing(stage: Stage) -> None:
    stage.apply(web("1"), wanted={"web": Wanted.DOWN})
    assert stage.apply(web("2"), wanted={"web": Wanted.DOWN}) == []
    assert not (stage.folder / "run/secrets").exists()
