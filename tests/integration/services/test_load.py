"""Fifty crash loops, and programs that flood: they cost neither the host nor their neighbours."""

import os
import signal
import time
from pathlib import Path

from tests.integration.services.clients import Clients
from tests.integration.services.host import Host, free_port, program, until

RATE = 5.0
BURST = 20


def test_fifty_crash_loops_are_held_within_the_budget(host: Host) -> None:
    services: dict[str, dict[str, object]] = {
        f"loop-{n}": {
            "command": ["false"],
            "backoff": {"base": "1ms", "cap": "1ms", "jitter": 0.0},
            "min_uptime": "0s",
        }
        for n in range(50)
    }
    asked = {"command": ["sleep", "1000"], "min_uptime": "0s", "enabled": False}
    host.start(
        services | {"asked": asked},
        host={"restart_budget": {"rate": RATE, "burst": BURST}},
    )
    began = time.monotonic()
    # The burst is spent, and the bucket is empty: a restart after a failure has to wait.
    until(lambda: host.ask_services("snapshot")["spawns_total"] >= 50 + BURST)
    until(lambda: host.ask_services("snapshot")["budget_tokens"] < 1)
    # A start that is asked for doesn't wait, nor does a restart by hand.
    host.ctl("start", "asked")
    before = host.pid("asked")
    host.ctl("restart", "asked")
    assert host.pid("asked") != before
    until(lambda: time.monotonic() > began + 5)
    counted = host.ask_services("snapshot")["spawns_total"]
    # A little longer than measured: core has started them before we looked at the clock.
    elapsed = time.monotonic() - began + 5
    most = 50 + 2 + BURST + RATE * elapsed
    assert counted <= most
    assert counted >= 50 + BURST + 5, "the budget is also used"
    # Nobody is forgotten: each has had a restart in the end.
    until(
        lambda: all(
            s["instances"][0]["restarts"] for n, s in host.snapshot().items() if "loop" in n
        ),
        seconds=120,
    )


def test_a_flood_costs_neither_the_neighbours_nor_the_disk(host: Host) -> None:
    port = free_port()
    budget = 8 << 20
    host.start(
        {
            "flood": {
                "command": program("flood"),
                "instances": 2,
                "log": {"max_size": "1MiB", "max_files": 3, "compress": True},
                "min_uptime": "0s",
            },
            "web": {
                "command": program("serve"),
                "sockets": {"http": f"tcp://127.0.0.1:{port}"},
                "ready": {"notify": True},
            },
            "count": {
                "command": program("count", 0.01),
                "backoff": {"base": "10ms", "cap": "10ms"},
                "min_uptime": "0s",
            },
        },
        host={"log_budget": "8MiB"},
    )
    host.all_running(["flood", "web", "count"])
    largest = 0
    with Clients(("127.0.0.1", port), number=1) as clients:
        until(lambda: host.ask_services("snapshot")["output_bytes_total"] > 200 << 20)
        for _ in range(5):
            # Everybody else is served as ever: kills are seen, restarts come, core answers.
            restarts = host.instance("count")["restarts"]
            os.kill(host.pid("count"), signal.SIGKILL)
            until(lambda n=restarts: host.instance("count")["restarts"] > n, seconds=20)  # type: ignore[misc]
            host.wait_for("count")
            assert "flood" in host.ctl("status", timeout=20).stdout
            largest = max(largest, on_disk(host.root / "log"))
        host.ctl("restart", "web")
        before = clients.total
        until(lambda: clients.total > before + 20)
    assert clients.failures == []
    # What is being written and being compressed comes on top of the budget for a moment.
    assert largest < budget + (8 << 20), f"{largest >> 20} MiB"
    host.ctl("stop", "flood")
    until(lambda: on_disk(host.root / "log") <= budget, lambda: on_disk(host.root / "log"))


def on_disk(folder: Path) -> int:
    """Bytes of all files in it."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # removed meanwhile
    return total
