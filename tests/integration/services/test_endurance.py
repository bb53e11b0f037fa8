"""A thousand restarts leave nothing behind, and while nothing happens nobody wakes up."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.services.host import Host, until

LOOPING = {
    "command": ["/bin/false"],
    "restart": "always",
    "backoff": {"base": "1ms", "cap": "1ms", "jitter": 0},
}


def spawns(host: Host) -> int:
    return int(host.ask_services("snapshot")["spawns_total"])


def holdings(pid: int) -> dict[str, Any]:
    """What the role has of things that must not become more."""
    targets = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(os.readlink(entry).split(":")[0])
        except FileNotFoundError:
            continue
    return {kind: targets.count(kind) for kind in set(targets)}


@pytest.mark.parametrize("cgroup", ["auto", "off"])
def test_a_thousand_restarts_leave_nothing_behind(new_host: Any, cgroup: str) -> None:
    host = new_host(cgroup=cgroup)
    host.configure(
        {
            "loop": LOOPING,
            "talker": {
                **LOOPING,
                "command": ["/bin/sh", "-c", "echo one; echo two >&2; sleep 0.01; exit 1"],
            },
            "calm": {"command": ["/bin/sleep", "1000"]},
        },
        host={"restart_budget": {"rate": 1000, "burst": 1000}},
    )
    host.start_role("services")
    host.start_role("core")
    host.core_is_up()
    role = psutil.Process(host.pids["services"])
    until(lambda: spawns(host) > 300)
    host.ctl("stop", "loop", "talker")
    before, memory = holdings(role.pid), role.memory_info().rss
    host.ctl("start", "loop", "talker", check=False)  # they never come up
    until(lambda: spawns(host) > 1400, seconds=120)
    host.ctl("stop", "loop", "talker")
    until(lambda: len(role.children()) == 1)
    after = holdings(role.pid)
    assert sum(after.values()) <= sum(before.values()) + 2, (before, after)
    assert role.memory_info().rss - memory < 3 * 1024 * 1024
    assert host.ctl("status").returncode == 0


def test_nothing_wakes_up_while_nothing_happens(host: Host) -> None:
    """Switches of a process that sleeps all the time: the kernel counts them."""
    host.start({f"s{i}": {"command": ["/bin/sleep", "1000"]} for i in range(10)})
    for name in range(10):
        host.wait_for(f"s{name}")
    host.kill("core")
    role = psutil.Process(host.pids["services"])
    time.sleep(6.0)  # whatever the start has put off is over
    before = role.num_ctx_switches()
    time.sleep(5.0)
    after = role.num_ctx_switches()
    woken = after.voluntary - before.voluntary
    assert woken <= 1, f"{woken} wake-ups"
