"""`atlasctl` as a person or a script runs it, against a core in memory."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atlasd import __version__
from atlasd.control import models as m
from atlasd.control.rights import Caller
from atlasd.errors import AtlasError
from tests.control_double import START, FakeCore, detail
from tests.serving import Served, serving

PROGRAM = (sys.executable, "-m", "atlasd.cli.atlasctl")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(root: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    return {**kept, "ATLASD_ROOT": str(root), "LANG": "C.UTF-8", **more}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def core() -> FakeCore:
    return FakeCore(web=2, db=1)


@pytest.fixture
def served(root: Path, core: FakeCore) -> Iterator[Served]:
    with serving(core, str(root / "run" / "control.sock")) as made:
        yield made


@pytest.fixture
def ctl(root: Path) -> Any:
    def run(*arguments: str, **more: str) -> Ran:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
            env=environment(root, **more),
        )
        assert "Traceback" not in done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


# --- showing


def test_status_is_a_table_with_a_row_for_each_instance(served: Served, ctl: Any) -> None:
    ran = ctl("status")
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0][:5] == ["SERVICE", "WANTED", "STATE", "HEALTH", "PID"]
    assert [row[0] for row in rows[1:]] == ["db", "web/0", "web/1"]
    assert rows[2][1:5] == ["up", "running", "pass", "4000"]
    assert "\x1b" not in ran.out


def test_status_in_json_has_exactly_the_promised_keys(served: Served, ctl: Any) -> None:
    body = ctl("status", "--json").json
    assert list(body) == ["services"]
    for service in body["services"]:
        assert set(service) == {"name", "wanted", "health", "instances"}
        for instance in service["instances"]:
            assert set(instance) == {
                "index", "state", "pid", "health", "traffic", "since", "restarts", "reason",
                "memory_bytes", "cpu_seconds",
            }  # fmt: skip


def test_status_of_one_service_tells_more(served: Served, core: FakeCore, ctl: Any) -> None:
    core.instances["db"] = [
        detail(0, "backoff", detail="exit code 3", next_start_in=4.0, crash_loop=True)
    ]
    ran = ctl("status", "db")
    assert "exit code 3" in ran.out
    assert "next try in 4.0s" in ran.out
    assert "atlasctl why db" in ran.out
    assert "web" not in ran.out


@pytest.mark.parametrize("place", ["before", "after"])
def test_options_may_stand_before_or_after_the_command(
    served: Served, root: Path, place: str
) -> None:
    given = ["--json", "--root", str(root)]
    arguments = [*given, "status"] if place == "before" else ["status", *given]
    done = subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
        env=environment(Path("/nowhere")),
    )
    assert len(json.loads(done.stdout)["services"]) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("why", "web"), ["running since", "Next: nothing needs doing"]),
        (("plugins",), ["http", "admitted", "check type http", "broken: no module named"]),
        (("plugins", "list"), ["refused"]),
        (("checks",), ["home-page", "warn", "slow"]),
        (("doctor",), ["cgroup v2", "reduced: limits", "Delegate=yes", "1 thing is missing"]),
        (("version",), [f"core      {__version__}", "pid 11"]),
        (("plan",), ["nothing to do"]),
        (("reload",), ["2 checks changed"]),
        (("upgrade",), [__version__, "pid 11", "no service was touched"]),
    ],
)
def test_what_is_shown(
    served: Served, ctl: Any, arguments: tuple[str, ...], expected: list[str]
) -> None:
    ran = ctl(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert [text for text in expected if text not in ran.out] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "web"),
        ("why", "web"),
        ("plan",),
        ("apply",),
        ("plugins",),
        ("plugins", "list"),
        ("checks",),
        ("health",),
        ("health", "web"),
        ("doctor",),
        ("version",),
        ("start", "web"),
        ("stop", "web"),
        ("restart", "web"),
        ("reload", "web"),
        ("reload",),
        ("pause", "web"),
        ("signal", "HUP", "web"),
        ("scale", "web=3"),
        ("upgrade",),
        ("shutdown", "--no-wait"),
    ],
)
def test_every_command_answers_in_json_and_nothing_else(
    served: Served, ctl: Any, arguments: tuple[str, ...]
) -> None:
    ran = ctl(*arguments, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert isinstance(ran.json, dict)


@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("warn", 0), ("fail", 8)])
def test_health_is_an_exit_code(
    served: Served, core: FakeCore, ctl: Any, status: str, code: int
) -> None:
    check = m.HealthCheck(componentId="web", status="fail", output="connection refused")
    core.health = m.HealthBody.model_validate(
        {"status": status, "checks": {"web:responseTime": (check,)}, "output": "web is down"}
    )
    ran = ctl("health")
    assert ran.code == code
    assert ran.out.startswith(f"{status}: web is down")
    assert "connection refused" in ran.out
    assert ctl("health", "web", "--json").code == code


# --- doing


def test_stop_says_what_it_does_and_waits(served: Served, core: FakeCore, ctl: Any) -> None:
    ran = ctl("stop", "web")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == ("web: stopping 2 instances; it stays down until `atlasctl start web`")
    assert set(lines[1:3]) == {"web/0 stopped", "web/1 stopped"}
    assert re.fullmatch(r"web: stopped in \S+", lines[3])
    assert {str(i.state) for i in core.instances["web"]} == {"stopped"}


def test_restart_waits_for_new_processes(served: Served, core: FakeCore, ctl: Any) -> None:
    ran = ctl("restart", "web", "db", "--json")
    assert ran.code == 0
    results = {row["service"]: row for row in ran.json["services"]}
    assert results["web"]["result"] == "restarted"
    assert [i["result"] for i in results["web"]["instances"]] == ["done", "done"]
    assert {i.invocation for i in core.instances["db"]} == {"again-3"}


def test_one_instance_can_be_named(served: Served, core: FakeCore, ctl: Any) -> None:
    assert ctl("restart", "web/0").code == 0
    request = next(request for name, request, _ in core.calls if name == "service.restart")
    assert request == m.InstanceRequest(service="web", instance=0)
    assert [i.invocation for i in core.instances["web"]] == ["again-1", "run-1"]


def test_a_start_that_fails_says_so(served: Served, core: FakeCore, ctl: Any) -> None:
    core.instances["db"] = [detail(0, "stopped")]
    core.behave = lambda verb, service, now: detail(
        now.index, "failed", detail="exit code 78", invocation="new"
    )
    ran = ctl("start", "db")
    assert ran.code == 1
    wrong, hint = ran.err.splitlines()
    assert "db could not be started" in wrong
    assert "exit code 78" in wrong
    assert "atlasctl why db" in hint


def test_what_takes_too_long_is_told(served: Served, core: FakeCore, ctl: Any) -> None:
    core.instances["web"] = [detail(0, "stopped"), detail(1, "stopped")]
    core.behave = lambda verb, service, now: detail(now.index, "waiting", detail="waiting for db")
    ran = ctl("start", "web", "--timeout", "0.2")
    assert ran.code == 6
    assert "within 0.2 s" in ran.err
    assert "waiting for db" in ran.err


def test_without_waiting_nothing_is_promised(served: Served, core: FakeCore, ctl: Any) -> None:
    core.instances["web"] = [detail(0, "stopped"), detail(1, "stopped")]
    core.behave = lambda verb, service, now: detail(now.index, "waiting")
    ran = ctl("start", "web", "--no-wait", "--json")
    assert ran.code == 0
    assert ran.json == {"services": [{"service": "web", "result": "accepted", "affected": [0, 1]}]}


def test_a_wrong_name_among_several_stops_no_other(
    served: Served, core: FakeCore, ctl: Any
) -> None:
    ran = ctl("stop", "weeb", "db")
    assert ran.code == 3
    assert "did you mean 'web'?" in ran.err
    assert "db: stopped" in ran.out
    assert str(core.instances["db"][0].state) == "stopped"


def test_all_means_all(served: Served, core: FakeCore, ctl: Any) -> None:
    assert ctl("stop", "--all").code == 0
    assert {str(i.state) for s in core.instances.values() for i in s} == {"stopped"}
    assert ctl("stop", "--all", "web").code == 2


def test_scale_takes_several(served: Served, core: FakeCore, ctl: Any) -> None:
    ran = ctl("scale", "web=4", "db=0")
    assert ran.code == 0
    assert "web: scaling to 4 instances" in ran.out
    assert "web/3 running, pid 4003" in ran.out
    assert (len(core.instances["web"]), len(core.instances["db"])) == (4, 0)


@pytest.mark.parametrize("wish", ["web", "web=", "=3", "web=many", "web=-1", "web=1.5"])
def test_a_wish_that_makes_no_sense(ctl: Any, wish: str) -> None:
    ran = ctl("scale", "--", wish)
    assert ran.code == 2
    assert "SERVICE=NUMBER" in ran.err


def test_signals_are_known_in_small_letters_too(served: Served, core: FakeCore, ctl: Any) -> None:
    assert ctl("signal", "hup", "web/1").code == 0
    request = next(request for name, request, _ in core.calls if name == "service.signal")
    assert request == m.SignalRequest(service="web", signal="HUP", instance=1)
    assert ctl("signal", "hurry up", "web").code == 2


def action(service: str, instance: int, what: str, why: str) -> m.Action:
    return m.Action.model_validate(
        {
            "service": service,
            "instance": instance,
            "action": what,
            "reason": "config",
            "detail": why,
        }
    )


def test_a_plan_has_a_line_for_each_step(served: Served, core: FakeCore, ctl: Any) -> None:
    core.plan = m.Plan(
        actions=(
            action("web", 0, "restart", "command changed"),
            action("db", 0, "update", "limits changed"),
        ),
        unchanged=19,
    )
    assert ctl("plan").out.splitlines() == [
        "restart web/0: command changed",
        "update  db/0: limits changed",
        "2 steps, 19 instances unchanged",
    ]
    assert [a["action"] for a in ctl("plan", "--json").json["actions"]] == ["restart", "update"]


def test_apply_waits_for_what_it_began(root: Path, core: FakeCore, ctl: Any) -> None:
    core.plan = m.Plan(actions=(action("db", 0, "restart", "env changed"),), unchanged=2)

    async def apply(request: m.Nothing, caller: Caller) -> m.Plan:
        await core._verb("restart", m.InstanceRequest(service="db"))
        return core.plan

    with serving(core, str(root / "run" / "control.sock"), {"apply": apply}):
        ran = ctl("apply")
    assert (ran.code, ran.err) == (0, "")
    assert "restart db/0: env changed" in ran.out
    assert "db/0 running, pid 9001" in ran.out
    assert "applied in" in ran.out


def test_an_invalid_configuration_is_shown_whole(root: Path, core: FakeCore, ctl: Any) -> None:
    async def refuse(request: m.Nothing, caller: Caller) -> m.Plan:
        raise AtlasError(
            "config.invalid",
            "atlasd.toml:3:1: services.web.comand: unknown key\natlasd.toml:9:1: too much",
            hint="nothing was changed",
        )

    handlers = {"plan": refuse, "apply": refuse}
    with serving(core, str(root / "run" / "control.sock"), handlers):
        ran = ctl("apply", "--json")
    assert ran.code == 78
    assert "atlasd.toml:3:1" in ran.err
    assert "atlasd.toml:9:1" in ran.err
    assert "nothing was changed" in ran.err
    assert ran.json["error"]["code"] == "config.invalid"


@pytest.mark.parametrize("keep", [False, True])
def test_shutdown_says_before_what_will_be_left(
    served: Served, core: FakeCore, ctl: Any, keep: bool
) -> None:
    ran = ctl("shutdown", *(["--keep-services"] if keep else []))
    assert (ran.code, ran.err) == (0, "")
    first, last = ran.out.splitlines()
    assert ("left running" in first) == keep
    assert "db, web" in first
    assert last.startswith("stopped in")
    assert core.calls[-1][1] == m.ShutdownRequest(keep_services=keep)
    assert not Path(served.path).exists()


# --- streams


def record(message: str, stream: Any = "stdout", service: str = "web") -> m.LogRecord:
    return m.LogRecord(time=START, service=service, instance=0, stream=stream, message=message)


def test_logs_show_time_instance_and_message(served: Served, core: FakeCore, ctl: Any) -> None:
    core.log = [record("hello"), record("oh no", "stderr"), record("select 1", service="db")]
    ran = ctl("logs", "web")
    assert ran.out.splitlines() == [
        "2026-11-23T17:44:43.123456Z web/0 hello",
        "2026-11-23T17:44:43.123456Z web/0 oh no",
    ]
    assert len(ctl("logs").out.splitlines()) == 3
    assert len(ctl("logs", "-n", "1").out.splitlines()) == 1
    assert ctl("logs", "-n", "0").out == ""


def test_logs_in_json_have_exactly_the_promised_keys(
    served: Served, core: FakeCore, ctl: Any
) -> None:
    core.log = [record("hello"), record("ünï – ok", "stderr")]
    rows = [json.loads(line) for line in ctl("logs", "--json").out.splitlines()]
    assert rows[1] == {
        "time": "2026-11-23T17:44:43.123456Z",
        "service": "web",
        "instance": 0,
        "stream": "stderr",
        "message": "ünï – ok",
    }


def test_the_wishes_of_logs_reach_the_daemon(served: Served, core: FakeCore, ctl: Any) -> None:
    since = "2026-11-23T17:00:00Z"
    ran = ctl("logs", "web/1", "--since", since, "--grep", "a|b", "--stream", "stderr")
    assert ran.code == 0
    request = core.calls[-1][1]
    assert (request.service, request.instance, request.grep) == ("web", 1, "a|b")
    assert (request.stream, request.lines, request.follow) == ("stderr", None, False)
    assert request.since.isoformat() == "2026-11-23T17:00:00+00:00"
    assert ctl("logs", "--grep", "(").code == 2
    assert ctl("logs", "--since", "whenever").code == 2


def test_a_reader_that_goes_away_is_no_error(served: Served, core: FakeCore, root: Path) -> None:
    core.log = [record("x" * 200) for _ in range(5000)]
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(PROGRAM)} logs -n 5000 | head -1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
        env=environment(root),
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_events_are_followed_until_interrupted(served: Served, core: FakeCore, root: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "events", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(root),
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        connected = threading.Event()

        def publish() -> None:
            if core.readers:
                core.publish(
                    kind="transition",
                    service="web",
                    instance=0,
                    old="running",
                    new="backoff",
                    reason="exit-code",
                    detail="exit code 3",
                )
                connected.set()

        while not connected.wait(0.02):
            served.do(publish)
        line = following.stdout.readline()
        assert "web/0" in line
        assert "running → backoff" in line
        assert "exit-code: exit code 3" in line
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130
        assert following.stderr.read().strip() == ""


def test_a_stream_that_core_ends_is_told(served: Served, core: FakeCore, root: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "events", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(root),
    ) as following:
        assert following.stderr is not None
        waited = threading.Event()
        while not served.do(lambda: core.readers):
            waited.wait(0.02)
        served.do(core.shutdown.set)
        assert following.wait(30) == 5
        assert "core is shutting down" in following.stderr.read()


# --- failing


def test_no_daemon_is_said_with_how_to_start_one(ctl: Any, root: Path) -> None:
    ran = ctl("status")
    assert ran.code == 7
    wrong, hint = ran.err.splitlines()
    assert str(root / "run" / "control.sock") in wrong
    assert "atlasd run" in hint
    assert (
        ctl("status", "--root", str(root))
        .err.splitlines()[1]
        .endswith(f"`atlasd run --root {root}`")
    )
    assert ctl("status", "--json").json["error"]["code"] == "core.unreachable"


def test_a_socket_that_nobody_serves_any_more_is_no_daemon(ctl: Any, root: Path) -> None:
    (root / "run" / "control.sock").touch()
    assert ctl("status").code == 7


def test_version_needs_no_daemon(ctl: Any) -> None:
    ran = ctl("version")
    assert ran.code == 0
    assert "no daemon answers" in ran.out
    assert ctl("version", "--json").json == {"atlasctl": __version__, "daemon": None}


@pytest.mark.parametrize(
    ("arguments", "code", "wrong", "hint"),
    [
        (("status", "weeb"), 3, "'weeb'", "did you mean 'web'?"),
        (("stauts",), 2, "no command 'stauts'", "did you mean 'status'?"),
        (("status", "--jsn"), 2, "--jsn", "atlasctl status --help"),
        (("why",), 2, "SERVICE", "atlasctl why --help"),
        (("restart",), 2, "which service", "atlasctl restart SERVICE"),
        (("stop", "web/x"), 2, "'web/x'", "web/0"),
        (("restart", "web/7"), 3, "no instance 7", ""),
        (("plugins", "new", "chekc", "x"), 3, "'chekc'", "did you mean 'check'?"),
        (("plugins", "new", "check", "Bad-Name"), 2, "'Bad-Name'", "small letters"),
        (("completion", "tcsh"), 2, "tcsh", "--help"),
    ],
)
def test_mistakes_are_two_lines(
    served: Served, ctl: Any, arguments: tuple[str, ...], code: int, wrong: str, hint: str
) -> None:
    ran = ctl(*arguments)
    assert (ran.code, ran.out) == (code, "")
    lines = ran.err.splitlines()
    assert len(lines) == 2 or not hint
    assert all(line.startswith("atlasctl: ") for line in lines)
    assert wrong in lines[0]
    assert hint in lines[-1]


def test_a_surprise_in_core_is_a_reference(root: Path, core: FakeCore, ctl: Any) -> None:
    async def broken(request: m.Nothing, caller: Caller) -> m.Doctor:
        raise RuntimeError("swordfish")

    with serving(core, str(root / "run" / "control.sock"), {"doctor": broken}):
        ran = ctl("doctor")
    assert ran.code == 1
    assert "swordfish" not in ran.err
    reference = re.search(r"reference is ([0-9a-f]{8})", ran.err)
    assert reference
    assert reference[1] in ran.err.splitlines()[1]


# --- terminals and shells


def in_terminal(root: Path, *arguments: str, **more: str) -> str:
    main, other = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=other,
        stderr=other,
        cwd=ROOT,
        env=environment(root, TERM="xterm", **more),
    ) as program:
        os.close(other)
        shown = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:
                break  # EIO: the last one that wrote to it has ended
            if not piece:
                break
            shown += piece
        os.close(main)
        assert program.wait(30) == 0
    return shown.decode()


def test_colours_are_for_terminals_that_want_them(served: Served, root: Path) -> None:
    assert "\x1b[32mrunning" in in_terminal(root, "status")
    assert "\x1b" not in in_terminal(root, "status", NO_COLOR="1")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_for_each_shell(ctl: Any, shell: str) -> None:
    ran = ctl("completion", shell)
    assert ran.code == 0
    assert f"_ATLASCTL_COMPLETE={shell}_complete" in ran.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("atlasctl re", {"restart", "reload"}),
        ("atlasctl restart w", {"web"}),
        ("atlasctl stop ", {"web", "db"}),
        ("atlasctl why d", {"db"}),
        ("atlasctl logs --str", {"--stream"}),
    ],
)
def test_commands_options_and_services_are_completed(
    served: Served, root: Path, words: str, expected: set[str]
) -> None:
    parts = words.split(" ")
    done = subprocess.run(
        PROGRAM,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env=environment(
            root,
            _ATLASCTL_COMPLETE="bash_complete",
            COMP_WORDS=words,
            COMP_CWORD=str(len(parts) - 1),
        ),
    )
    found = {line.split(",", 1)[1] for line in done.stdout.splitlines()}
    assert found == expected


def test_completion_is_silent_without_a_daemon(root: Path) -> None:
    done = subprocess.run(
        PROGRAM,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env=environment(
            root, _ATLASCTL_COMPLETE="bash_complete", COMP_WORDS="atlasctl stop ", COMP_CWORD="2"
        ),
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


# --- plugins


def test_a_new_plugin_is_written_once_and_only_for_its_owner(ctl: Any, root: Path) -> None:
    ran = ctl("plugins", "new", "check", "queue_depth", "--json")
    path = root / "etc" / "plugins.d" / "queue_depth.py"
    assert ran.json == {"kind": "check", "name": "queue_depth", "path": str(path)}
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o022 == 0
    compile(path.read_text(), str(path), "exec")
    again = ctl("plugins", "new", "check", "queue_depth")
    assert again.code == 5
    assert "exists" in again.err


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_commands_and_exit_codes(ctl: Any, option: str) -> None:
    ran = ctl(option)
    assert ran.code == 0
    assert "Stop and start services" in ran.out
    assert "78 invalid configuration" in ran.out
