"""After a stop nothing is left, whatever the program did to escape; in a cgroup and without one."""

import os
import signal
import subprocess
from collections.abc import Callable

import psutil
import pytest

from tests.integration.services.host import (
    REPOSITORY,
    SYSTEM_PYTHON,
    Host,
    alive,
    program,
    until,
)

ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture(
    params=[
        pytest.param({"cgroup": "auto"}, id="cgroup"),
        pytest.param({"cgroup": "off"}, id="no-cgroup"),
        pytest.param(
            {"cgroup": "auto", "uid": NOBODY},
            id="no-root",
            marks=pytest.mark.skipif(not ROOT, reason="needs root to become somebody else"),
        ),
    ]
)
def any_host(request: pytest.FixtureRequest, new_host: Callable[..., Host]) -> Host:
    if request.param["cgroup"] == "auto" and not ROOT:
        pytest.skip("cgroups need root, or a delegated folder")
    if "uid" in request.param:
        may = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        trial = [*may, SYSTEM_PYTHON, "-c", "import sys, atlasd; assert sys.version_info > (3, 11)"]
        if subprocess.run(trial, cwd=REPOSITORY, capture_output=True, check=False).returncode != 0:
            pytest.skip("the user nobody cannot run atlasd from here")
    return new_host(**request.param)


HELPERS = {
    "daemon": (program("daemonize", "mark"), 1),
    "session": (program("escape", "mark"), 1),
    "stopped": (program("stopped", "mark"), 1),
    "family": (program("family", "mark", 10, 10), 110),
}


def left_behind(host: Host, main: int, number: int) -> list[int]:
    """What the main process has started, once all of it is there."""
    return until(
        lambda: (
            found
            if len(found := [pid for pid in host.running("mark") if pid != main]) == number
            else None
        ),
        host.commands,
    )


@pytest.mark.parametrize("kind", HELPERS)
def test_nothing_is_left_after_a_stop(any_host: Host, kind: str) -> None:
    host = any_host
    command, number = HELPERS[kind]
    host.start({"web": {"command": command, "ready": {"log": "ready"}}})
    main = host.wait_for("web")["pid"]
    others = left_behind(host, main, number)
    host.ctl("stop", "web")
    assert host.instance("web")["state"] == "stopped"
    assert host.left() == []
    assert not any(map(alive, [main, *others]))


@pytest.mark.parametrize("kind", HELPERS)
def test_nothing_is_left_of_a_crash_before_the_next_start(any_host: Host, kind: str) -> None:
    host = any_host
    command, number = HELPERS[kind]
    host.start({"web": {"command": command, "ready": {"log": "ready"}}})
    main = host.wait_for("web")["pid"]
    others = left_behind(host, main, number)
    os.kill(main, signal.SIGKILL)
    until(lambda: host.instance("web")["pid"] not in (main, None))
    assert not any(map(alive, others))
    again = left_behind(host, host.wait_for("web")["pid"], number)
    assert not set(again) & set(others)


@pytest.mark.parametrize("kind", HELPERS)
def test_nothing_is_left_when_the_role_that_started_it_is_dead(any_host: Host, kind: str) -> None:
    """Adopted by a successor, whose children all these aren't, and then stopped."""
    host = any_host
    command, number = HELPERS[kind]
    host.start({"web": {"command": command, "ready": {"log": "ready"}}})
    main = host.wait_for("web")["pid"]
    left_behind(host, main, number)
    host.restart_role("services")
    assert host.wait_for("web")["pid"] == main
    host.core_is_up()
    host.ctl("stop", "web")
    assert host.instance("web")["state"] == "stopped"
    assert host.left() == []


def test_who_ignores_term_is_killed(any_host: Host) -> None:
    host = any_host
    host.start(
        {"web": {"command": program("stubborn"), "stop": {"timeout": "300ms"}, "min_uptime": "0s"}}
    )
    until(lambda: host.lines("web") == ["stubborn"])
    pid = host.pid("web")
    host.ctl("stop", "web")
    assert host.instance("web")["state"] == "stopped"
    assert not alive(pid)
    assert host.crashes("web") == []


def test_each_step_of_an_escalation_is_taken(any_host: Host) -> None:
    host = any_host
    # Ends by USR2 alone, which has no default that a shell would survive.
    script = "trap 'echo term' TERM; trap 'echo int' INT; trap 'echo usr2; exit 0' USR2; "
    script += "echo up; while :; do sleep 0.05; done"
    host.start(
        {
            "web": {
                "command": ["sh", "-c", script],
                "ready": {"log": "up"},
                "stop": {
                    "signal": "TERM",
                    "timeout": "300ms",
                    "escalation": [
                        {"signal": "INT", "timeout": "300ms"},
                        {"signal": "USR2", "timeout": "60s"},
                    ],
                },
            }
        }
    )
    host.wait_for("web")
    host.ctl("stop", "web")
    assert host.lines("web") == ["up", "term", "int", "usr2"]


def test_a_stopped_main_process_is_woken_to_end_in_order(any_host: Host) -> None:
    host = any_host
    host.start({"web": {"command": program("count", 0.01), "min_uptime": "0s"}})
    until(lambda: len(host.lines("web")) > 5)
    pid = host.pid("web")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    host.ctl("stop", "web")
    assert host.instance("web")["state"] == "stopped"
    assert host.lines("web")[-1].startswith("last "), "KILL was sent instead of TERM and CONT"


def test_kill_mode_process_leaves_the_rest_and_says_so(any_host: Host) -> None:
    host = any_host
    host.start(
        {
            "web": {
                "command": program("escape", "mark"),
                "ready": {"log": "ready"},
                "stop": {"kill_mode": "process"},
            }
        }
    )
    main = host.wait_for("web")["pid"]
    (child,) = [p for p in until(lambda: host.running("mark")) if p != main]
    host.ctl("stop", "web")
    assert host.instance("web")["state"] == "stopped"
    assert not alive(main)
    assert alive(child), "kill_mode process is to leave it"
    assert host.instance("web")["leftovers"] == [], "what is left on purpose is no trouble"
    assert f"kill_mode process lets these live on: {child}" in host.ctl("why", "web").stdout


def test_kill_mode_none_never_kills(any_host: Host) -> None:
    host = any_host
    host.start(
        {
            "web": {
                "command": program("stubborn"),
                "min_uptime": "0s",
                "stop": {"kill_mode": "none", "timeout": "200ms"},
            }
        }
    )
    until(lambda: host.lines("web") == ["stubborn"])
    pid = host.pid("web")
    assert host.ctl("stop", "web", "--timeout", "2", check=False).returncode == 6
    assert host.instance("web")["state"] == "stopping"
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    host.wait_for("web", "stopped")


def test_a_second_stop_may_only_shorten(any_host: Host) -> None:
    host = any_host
    host.start(
        {"web": {"command": program("stubborn"), "stop": {"timeout": "1h"}, "min_uptime": "0s"}}
    )
    until(lambda: host.lines("web") == ["stubborn"])
    host.ctl("stop", "web", "--no-wait")
    host.wait_for("web", "stopping")
    host.ask_services("stop", service="web", timeout=0.2)
    host.wait_for("web", "stopped")
    assert host.left() == []


def test_services_stop_in_reverse_order(any_host: Host) -> None:
    """Each leaves a line in one file when it ends, some time after it was told."""
    host = any_host
    said = host.files / "said"
    said.touch(0o666)
    said.chmod(0o666)

    def slow(name: str) -> list[str]:
        script = f"trap 'sleep 0.3; echo {name} >> {said}; exit 0' TERM; echo up; "
        return ["sh", "-c", script + "while :; do sleep 0.05; done"]

    ready = {"ready": {"log": "up"}}
    host.start(
        {
            "web": {"command": slow("web"), "requires": ["cache:ready"], **ready},
            "cache": {"command": slow("cache"), "wants": ["db"], **ready},
            "db": {"command": slow("db"), **ready},
            "apart": {"command": slow("apart"), "after": ["db"], **ready},
        }
    )
    host.all_running(["web", "cache", "db", "apart"])
    host.ctl("shutdown")
    until(lambda: not alive(host.pids["services"]))
    order = said.read_text().split()
    assert sorted(order) == ["apart", "cache", "db", "web"]
    assert order.index("web") < order.index("cache") < order.index("db")
    assert order.index("apart") < order.index("db")
    assert host.left() == []


def test_after_a_shutdown_no_cgroup_is_left(new_host: Callable[..., Host]) -> None:
    host = new_host()
    host.start({"web": {"command": program("escape", "mark"), "ready": {"log": "ready"}}})
    host.wait_for("web")
    folders = [f for f in host.cgroup_folders() if f.exists()]
    if not folders:
        pytest.skip("no cgroup of our own on this host")
    host.ctl("shutdown")
    until(lambda: not alive(host.pids["services"]))
    assert host.left() == []
    assert [folder for folder in folders if folder.exists()] == []
