"""How processes ended while the services role was dead is told right, and what follows is right."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.services.host import Host, program, until


def end_at(path: Path, code: int, **more: object) -> dict[str, object]:
    """A service that ends with this code, by this negative signal, once the file is there."""
    return {"command": program("end-when", path, code), "min_uptime": "0s", **more}


def start(host: Host) -> dict[str, int]:
    """One service for each kind of end; their pids."""
    gate = host.files / "gate"
    host.start(
        {
            "seven": end_at(gate, 7),
            "segv": end_at(gate, -signal.SIGSEGV, limits={"core": 0}),
            "zero": end_at(gate, 0),
            "always": end_at(gate, 0, restart="always"),
            "wrong": end_at(gate, 78),
            "forgiven": end_at(gate, 3, restart={"success_codes": [0, 3]}),
            "once": end_at(gate, 0, type="oneshot"),
            "killed": {"command": program("sleep"), "min_uptime": "0s"},
            "asked": {"command": program("stubborn"), "min_uptime": "0s"},
            "lives": end_at(host.files / "second gate", 9),
        }
    )
    until(lambda: all(i["pid"] for s in host.snapshot().values() for i in s["instances"]))
    host.wait_for("asked")
    until(lambda: "stubborn" in host.lines("asked"))
    return {name: host.pid(name) for name in host.snapshot()}


def end_meanwhile(host: Host, pids: dict[str, int]) -> None:
    """Let all but one end while the services role is dead."""
    host.ctl("stop", "asked", "--no-wait")
    host.wait_for("asked", "stopping")
    host.kill("services")
    gate = host.files / "gate"
    gate.touch()
    os.kill(pids["killed"], signal.SIGKILL)
    os.kill(pids["asked"], signal.SIGKILL)
    until(lambda: [p.pid for p in host.left()] == [pids["lives"]], host.left)
    gate.unlink()
    host.start_role("services")


def ends(host: Host) -> dict[str, tuple[Any, Any]]:
    """Code and signal of the one crash of each service that crashed."""
    found = {}
    for name in host.snapshot():
        crashes = host.crashes(name)
        if crashes:
            assert len(crashes) == 1, crashes
            found[name] = (crashes[0]["exit_code"], crashes[0]["signal"])
    return found


def check_what_followed(host: Host, pids: dict[str, int]) -> None:
    expected = {
        "seven": "running",
        "segv": "running",
        "zero": "exited",
        "always": "running",
        "wrong": "failed",
        "forgiven": "exited",
        "once": "exited",
        "killed": "running",
        "asked": "stopped",
        "lives": "running",
    }
    for name, state in expected.items():
        host.wait_for(name, state)
    new = {name: host.instance(name)["pid"] for name in expected}
    assert new["lives"] == pids["lives"]
    assert all(new[n] not in (None, pids[n]) for n in ("seven", "segv", "always", "killed"))
    assert {n for n in expected if host.instance(n)["restarts"]} == {
        "seven",
        "segv",
        "always",
        "killed",
    }
    until(lambda: len(ends(host)) == 4, lambda: ends(host))
    assert ends(host) == {
        "seven": (7, None),
        "segv": (None, "SEGV"),
        "wrong": (78, None),
        "killed": (None, "KILL"),
    }


def check_adopted_exit(host: Host) -> None:
    """The process that lived on ends under the successor, whose child it isn't."""
    (host.files / "second gate").touch()
    until(lambda: host.crashes("lives"))
    assert host.crashes("lives")[0]["exit_code"] == 9


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (6, 15),
    reason="this kernel's pidfds don't tell exit codes (Linux 6.15 does)",
)
def test_core_has_held_the_pidfds(new_host: Callable[..., Host]) -> None:
    host = new_host(reap=True)
    pids = start(host)
    end_meanwhile(host, pids)
    check_what_followed(host, pids)
    check_adopted_exit(host)


def test_nobody_reaps_and_core_is_dead_too(new_host: Callable[..., Host]) -> None:
    host = new_host(reap=False)
    pids = start(host)
    host.ctl("stop", "asked", "--no-wait")
    host.wait_for("asked", "stopping")
    host.kill("core")
    host.kill("services")
    gate = host.files / "gate"
    gate.touch()
    os.kill(pids["killed"], signal.SIGKILL)
    os.kill(pids["asked"], signal.SIGKILL)
    until(lambda: [p.pid for p in host.left()] == [pids["lives"]], host.left)
    gate.unlink()
    host.start_role("services")
    check_what_followed(host, pids)
    check_adopted_exit(host)


def test_nobody_could_know(new_host: Callable[..., Host]) -> None:
    """Reaped by init, and no pidfd anywhere: said to be unknown, and started again."""
    host = new_host(reap=True)
    gate = host.files / "gate"
    host.start({"web": end_at(gate, 0)})
    host.wait_for("web")
    host.kill("core")
    host.kill("services")
    gate.touch()
    until(lambda: not host.left())
    gate.unlink()
    host.start_role("services")
    until(lambda: host.crashes("web"))
    record = host.crashes("web")[0]
    assert (record["exit_code"], record["signal"]) == (None, None)
    assert record["detail"] == "ended while nobody watched; exit code unknown"
    assert host.wait_for("web")["restarts"] == 1


def test_last_words_of_the_dead_are_in_the_log(new_host: Callable[..., Host]) -> None:
    host = new_host(reap=True)
    host.start({"web": {"command": program("count", 0.001), "min_uptime": "0s"}})
    pid = host.wait_for("web")["pid"]
    until(lambda: len(host.lines("web")) > 100)
    host.kill("services")
    os.kill(pid, signal.SIGTERM)
    until(lambda: not host.left())
    host.start_role("services")
    host.wait_for("web", "exited")
    *numbers, last = host.lines("web")
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
    assert last == f"last {len(numbers)}"
