"""What one instance does to its process and what it makes of its end, with played processes."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from atlasd.services.restart import Exit
from atlasd.services.spec import Hook, KnownSecret, Reload, Stop
from atlasd.services.sweep import GRACE
from tests.unit.services.stage import NOTIFY, Stage, spec

TERM, CONT, KILL = signal.SIGTERM, signal.SIGCONT, signal.SIGKILL


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    assert made.reports == []


def stop(stage: Stage, name: str = "web") -> None:
    stage.requests.stop(name, None, actor="test")
    stage.turn()


def test_a_signal_to_everyone_reaches_each_once(stage: Stage) -> None:
    stage.apply(spec("web", stop=Stop(kill_mode="control-group")))
    stage.wind(2)
    main, child = stage.process("web"), stage.child_of("web")
    stop(stage)
    assert main.got == [TERM, CONT]
    assert child.got == [TERM, CONT]


def test_what_the_main_process_leaves_behind_is_ended_before_it_counts_as_stopped(
    stage: Stage,
) -> None:
    stage.apply(spec("web"))
    stage.wind(2)
    child = stage.child_of("web")
    stop(stage)
    assert child.got == []
    stage.dies("web", exit_=Exit(signal=TERM))
    assert stage.state("web") == "stopping"
    assert child.got == [TERM, CONT]
    stage.wind(GRACE + 0.1)
    assert child.got[-1] == KILL
    child.alive = False
    stage.wind(GRACE + 0.1)
    assert stage.state("web") == "stopped"


def test_what_will_not_die_is_named(stage: Stage) -> None:
    stage.apply(spec("web"))
    stage.wind(2)
    child = stage.child_of("web")
    stop(stage)
    stage.dies("web", exit_=Exit(signal=TERM))
    stage.wind(7)
    assert stage.state("web") == "stopping"
    assert stage.unit("web").leftovers == [child.pid]
    assert len(stage.told("leftovers")) == 1
    child.alive = False
    stage.wind(GRACE + 0.1)
    assert stage.unit("web").leftovers == []


def test_kill_mode_process_leaves_the_rest_alone_and_says_so(stage: Stage) -> None:
    stage.apply(spec("web", stop=Stop(kill_mode="process")))
    stage.wind(2)
    child = stage.child_of("web")
    stop(stage)
    stage.dies("web", exit_=Exit(signal=TERM))
    assert stage.state("web") == "stopped"
    assert child.got == []
    assert str(child.pid) in stage.told("leftovers")[0]["detail"]


# ---------------------------------------------------------------------- hooks

HOOKED = spec(
    "web",
    pre_start=(Hook(command=("/bin/prepare",)),),
    pre_stop=(Hook(command=("/bin/leave",)),),
    post_stop=(Hook(command=("/bin/clean",)),),
    stop=Stop(drain=("/bin/drain",), drain_timeout=4.0),
)


def test_a_stop_during_a_pre_start_hook_starts_nothing(stage: Stage) -> None:
    stage.apply(HOOKED)
    assert stage.started() == []
    stop(stage)
    assert stage.state("web") == "stopped"
    hook = stage.commands.all[0]
    assert hook.cancelled
    hook.end()
    stage.turn()
    assert stage.started() == []


def test_a_pre_start_hook_that_fails_is_a_failed_start(stage: Stage) -> None:
    stage.apply(HOOKED)
    stage.commands.named("/bin/prepare").end(3, b"no schema\n")
    stage.turn()
    assert stage.unit("web").machine.detail == "pre_start /bin/prepare: exit code 3: no schema"
    assert stage.started() == []


def started(stage: Stage) -> None:
    stage.apply(HOOKED)
    stage.commands.named("/bin/prepare").end()
    stage.wind(2)
    assert stage.state("web") == "running"


def test_draining_and_leaving_come_before_the_signal(stage: Stage) -> None:
    started(stage)
    process = stage.process("web")
    stop(stage)
    assert stage.unit("web").machine.traffic == "draining"
    drain = stage.commands.named("/bin/drain")
    assert drain.options["timeout"] == 4.0
    drain.end()
    assert process.got == []
    stage.commands.named("/bin/leave").end(1)
    assert process.got == [TERM, CONT], "a hook that fails holds nothing up"
    assert stage.told("hook")[0]["detail"].startswith("pre_stop /bin/leave: exit code 1")


def test_a_drain_that_outlives_its_process_disturbs_no_later_stop(stage: Stage) -> None:
    started(stage)
    stage.requests.restart("web", None, actor="test")
    stage.turn()
    drain = stage.commands.named("/bin/drain")
    stage.dies("web", exit_=Exit(code=0))
    for command in ("/bin/clean", "/bin/prepare"):
        stage.commands.named(command).end()
        stage.turn()
    second = stage.process("web")
    stage.wind(2)
    stop(stage)
    drain.end()
    assert stage.commands.named("/bin/leave").argv, "what it has begun goes on beside it"
    stage.commands.named("/bin/leave").end()
    assert second.got == [], "the new one is drained by a command of its own"
    stage.commands.named("/bin/drain").end()
    stage.commands.named("/bin/leave").end()
    assert second.got == [TERM, CONT]


def test_post_stop_hooks_are_over_before_the_next_start(stage: Stage) -> None:
    started(stage)
    stage.dies("web")
    assert stage.state("web") == "stopping"
    stage.commands.named("/bin/clean").end()
    stage.turn()
    assert stage.state("web") == "starting"
    stage.commands.named("/bin/prepare").end()
    stage.turn()
    assert len(stage.started()) == 2


def test_a_reload_command_of_an_earlier_process_says_nothing_of_this_one(stage: Stage) -> None:
    stage.apply(spec("web", reload=Reload(kind="exec", command=("/bin/again",))))
    stage.wind(2)
    stage.requests.reload("web", None, actor="test")
    old = stage.commands.named("/bin/again")
    stage.dies("web")
    stage.wind(2)
    stage.requests.reload("web", None, actor="test")
    old.end()
    assert stage.state("web") == "reloading"
    stage.commands.named("/bin/again").end()
    assert stage.state("web") == "running"


def test_hooks_know_the_main_process_and_what_they_are(stage: Stage) -> None:
    started(stage)
    pid = stage.process("web").pid
    stop(stage)
    env = stage.commands.named("/bin/drain").options["env"]
    assert isinstance(env, dict)
    assert (env["MAINPID"], env["ATLASD_HOOK"]) == (str(pid), "pre_stop")
    assert "MAINPID" not in replace(stage.process("web").launch).env


def test_secrets_are_kept_out_before_anything_is_handed_out_and_until_the_process_ends(
    stage: Stage,
) -> None:
    old, new = (KnownSecret(name="db", value=value) for value in ("hunter22", "tomorrow's"))
    stage.apply(spec("web", secrets=(old,), instances=2))
    stage.wind(2)
    stage.apply(spec("web", secrets=(new,), instances=2))
    for index in (0, 1):
        assert stage.unit("web", index).clean("hunter22, tomorrow's") == "[secret:db], [secret:db]"
    stage.dies("web")
    stage.wind(5)
    assert stage.unit("web", 0).clean("hunter22, tomorrow's") == "hunter22, [secret:db]"
    assert stage.unit("web", 1).clean("hunter22, tomorrow's") == "[secret:db], [secret:db]"


def test_what_is_told_of_an_instance_holds_no_secret(stage: Stage) -> None:
    secret = KnownSecret(name="db", value="hunter22")
    stage.apply(spec("web", ready=NOTIFY, secrets=(secret,)))
    stage.says("web", status="connecting with hunter22")
    assert stage.unit("web").status_text == "connecting with [secret:db]"
    stage.no_program.add("/bin/hunter22")
    stage.apply(spec("job", command=("/bin/hunter22",), secrets=(secret,)))
    assert stage.unit("job").machine.detail == "no such program: /bin/[secret:db]"
