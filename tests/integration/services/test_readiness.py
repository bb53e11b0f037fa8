"""How a service shows that it is ready and that it works, each kind with a real program."""

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.services.host import Host, free_port, program, until


def kinds(port: int, files: Path) -> dict[str, tuple[list[str], dict[str, object]]]:
    """For each kind: a program that is ready once the gate is there, and the declaration."""
    gate = files / "gate"
    return {
        "notify": (program("tell", f"file:{gate}", "READY=1;STATUS=at work"), {"notify": True}),
        "fd": (program("newline", 5, gate), {"fd": 5}),
        "tcp": (program("listen", port, gate), {"tcp": f"127.0.0.1:{port}"}),
        "http": (program("http", port, gate), {"http": f"http://127.0.0.1:{port}/healthz"}),
        "exec": (program("sleep"), {"exec": ["sh", "-c", f"test -e {gate} || exit 2"]}),
        "log": (
            program("tell", "say:not yet", f"file:{gate}", "say:listening on port 8"),
            {"log": r"listening on port \d+"},
        ),
        "file": (program("sleep"), {"file": str(gate)}),
    }


KINDS = tuple(kinds(0, Path("/")))


@pytest.mark.parametrize("dies", [False, True], ids=["", "role-dies-before"])
@pytest.mark.parametrize("kind", KINDS)
def test_ready_when_it_says_so_and_not_before(host: Host, kind: str, dies: bool) -> None:
    command, ready = kinds(free_port(), host.files)[kind]
    host.start(
        {
            "web": {"command": command, "ready": ready},
            "user": {"command": program("sleep"), "requires": ["web:ready"], "min_uptime": "0s"},
        }
    )
    pid = until(lambda: host.instance("web")["pid"])
    if dies:
        host.restart_role("services")
    found = host.snapshot()
    assert found["web"]["instances"][0]["state"] == "starting"
    assert found["web"]["instances"][0]["traffic"] == "out"
    assert found["user"]["instances"][0]["state"] == "waiting"
    assert found["user"]["waiting_for"] == ["web"]
    (host.files / "gate").write_text("200")
    web = host.wait_for("web")
    assert (web["pid"], web["traffic"], web["restarts"]) == (pid, "in", 0)
    host.wait_for("user")
    if kind == "notify":
        assert web["status_text"] == "at work"
    # Once ready, it is so for a successor too, which doesn't ask for another newline.
    host.restart_role("services")
    assert host.all_running(["web"])["web"] == [pid]


@pytest.mark.parametrize("kind", KINDS)
def test_ready_while_the_role_is_dead(host: Host, kind: str) -> None:
    """What a program says into the void is heard by the successor: nobody says it twice."""
    command, ready = kinds(free_port(), host.files)[kind]
    said = host.files / "said"
    if kind in ("notify", "log"):
        command = [*command, f"touch:{said}"]
    host.start({"web": {"command": command, "ready": {**ready, "timeout": "30s"}}})
    pid = until(lambda: host.instance("web")["pid"])
    host.kill("services")
    (host.files / "gate").write_text("200")
    if kind in ("notify", "log"):
        until(said.exists)
    host.start_role("services")
    web = host.wait_for("web")
    assert (web["pid"], web["restarts"]) == (pid, 0)


def test_ready_by_its_uptime(host: Host) -> None:
    host.start({"web": {"command": program("sleep"), "ready": {"uptime": "700ms"}}})
    assert until(lambda: host.instance("web")["pid"])
    assert host.instance("web")["state"] == "starting"
    assert host.wait_for("web")["traffic"] == "in"


@pytest.mark.parametrize("kind", ["tcp", "http", "exec", "file"])
def test_out_of_traffic_when_no_longer_ready_and_never_restarted(host: Host, kind: str) -> None:
    port, gate = free_port(), host.files / "gate"
    command, ready = kinds(port, host.files)[kind]
    gate.write_text("200")
    ready |= {"interval": "100ms", "fail_after": 2, "pass_after": 1}
    host.start({"web": {"command": command, "ready": ready}})
    pid = host.wait_for("web")["pid"]
    if kind == "tcp":
        os.kill(pid, signal.SIGSTOP)  # its queue is of 128: those fill it up
        links: list[Any] = []
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                link = stack.enter_context(socket.socket())
                link.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    link.connect(("127.0.0.1", port))
                links.append(link)
            until(lambda: host.instance("web")["traffic"] == "out")
            assert host.instance("web")["state"] == "running"
        os.kill(pid, signal.SIGCONT)
    else:
        gate.unlink()
        until(lambda: host.instance("web")["traffic"] == "out")
        assert host.instance("web")["state"] == "running"
        gate.write_text("200")
    until(lambda: host.instance("web")["traffic"] == "in")
    assert (host.pid("web"), host.instance("web")["restarts"]) == (pid, 0)


def test_a_probe_that_cannot_run_is_a_warning_and_no_failure(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": program("sleep"),
                "live": {"exec": ["/no/such/probe"], "interval": "50ms", "fail_after": 2},
                "min_uptime": "0s",
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    until(lambda: any("/no/such/probe" in e.get("detail", "") for e in host.events("web")))
    assert (host.pid("web"), host.instance("web")["restarts"]) == (pid, 0)


@pytest.mark.parametrize("kind", ["http", "exec", "file"])
def test_restarted_when_it_no_longer_works(host: Host, kind: str) -> None:
    port, gate = free_port(), host.files / "gate"
    gate.write_text("200")
    command, live = kinds(port, host.files)[kind]
    live |= {"interval": "100ms", "fail_after": 3}
    host.start({"web": {"command": command, "live": live, "min_uptime": "0s"}})
    pid = host.wait_for("web")["pid"]
    until(lambda: host.instance("web")["health"] == "pass")
    gate.unlink()
    until(lambda: host.crashes("web"))
    gate.write_text("200")
    record = host.crashes("web")[0]
    assert record["cause"] == "liveness"
    assert record["detail"].startswith("liveness probe failed 3 times: ")
    until(lambda: host.instance("web")["health"] == "pass")
    web = host.wait_for("web")
    assert web["pid"] != pid
    assert host.snapshot()["web"]["restarts_total"] == {"liveness": web["restarts"]}


@pytest.mark.parametrize("dies", [False, True], ids=["", "role-dies-before"])
def test_a_child_that_misses_its_watchdog_is_restarted(host: Host, dies: bool) -> None:
    gate = host.files / "gate"
    host.start(
        {
            "web": {
                "command": program("watched", gate),
                "ready": {"notify": True},
                "watchdog": "1s",
                "limits": {"core": 0},
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    if dies:
        host.restart_role("services")
        assert host.wait_for("web")["pid"] == pid
    gate.touch()
    until(lambda: host.crashes("web"))
    gate.unlink()
    record = host.crashes("web")[0]
    assert (record["cause"], record["signal"]) == ("watchdog", "ABRT")
    assert record["detail"] == "no WATCHDOG=1 for 1 s"
    until(lambda: host.instance("web")["pid"] not in (None, pid))
    host.wait_for("web")


def test_a_program_may_ask_for_its_own_end(host: Host) -> None:
    gate = host.files / "gate"
    host.start(
        {
            "web": {
                "command": program("tell", "READY=1", f"file:{gate}", "WATCHDOG=trigger"),
                "ready": {"notify": True},
                "limits": {"core": 0},
            }
        }
    )
    host.wait_for("web")
    gate.touch()
    until(lambda: host.crashes("web"))
    assert host.crashes("web")[0]["detail"] == "the program asked for it"


def test_not_ready_in_time(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": program("sleep", "mark"),
                "ready": {"notify": True, "timeout": "300ms"},
                "backoff": {"base": "1h", "cap": "1h"},
            }
        }
    )
    web = host.wait_for("web", "backoff")
    assert (web["failures"], web["restarts"]) == (2, 1), "the first failure is tried again at once"
    first, second = host.crashes("web")
    assert first["cause"] == second["cause"] == "start-timeout"
    assert first["detail"].startswith("not ready within 0.3")
    assert host.running("mark") == []


def test_a_program_may_ask_for_more_time(host: Host) -> None:
    gate = host.files / "gate"
    moves = ("EXTEND_TIMEOUT_USEC=60000000", f"file:{gate}", "READY=1")
    host.start(
        {
            "web": {
                "command": program("tell", *moves),
                "ready": {"notify": True, "timeout": "800ms"},
            },
            "clock": {"command": program("sleep"), "ready": {"uptime": "1500ms"}},
        }
    )
    host.wait_for("clock")
    gate.touch()
    web = host.wait_for("web")
    assert web["restarts"] == 0
    assert host.crashes("web") == []


def test_another_main_process_of_its_own(host: Host) -> None:
    """Who forks and says MAINPID is followed; its end is the end of the service."""
    script = "sleep 1000 & echo $! > {files}/pid; exec {tell} MAINPID=$!';'READY=1"
    script = script.format(files=host.files, tell=" ".join(program("tell")))
    host.start({"web": {"command": ["sh", "-c", script], "ready": {"notify": True}}})
    web = host.wait_for("web")
    assert web["pid"] == int((host.files / "pid").read_text())
    os.kill(web["pid"], signal.SIGKILL)
    until(lambda: host.crashes("web"))
    assert host.crashes("web")[0]["signal"] == "KILL"
    host.ctl("stop", "web")
    assert host.left() == []


def test_strangers_are_not_believed(host: Host) -> None:
    """A process outside of the service that writes to its notify socket changes nothing."""
    host.start({"web": {"command": program("sleep"), "ready": {"notify": True}}})
    until(lambda: host.instance("web")["pid"])
    (path,) = (host.run / "services" / "notify").glob("web.0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(b"READY=1\nSTATUS=it is me", str(path))
        link.sendto(f"MAINPID={os.getpid()}".encode(), str(path))
    host.restart_role("services")  # whatever was sent has been read by one or the other
    web = host.instance("web")
    assert (web["state"], web["status_text"]) == ("starting", "")
    assert web["pid"] != os.getpid()
