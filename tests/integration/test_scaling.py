"""A real daemon whose worker service grows with its backlog, and shrinks when there is none."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.errors import AtlasError
from atlasd.worker import Client
from tests.integration.daemons import Atlas, atlas, until

JOBS = Path(__file__).parent / "jobs"

CONFIG = f"""
[jobs]
lease = "3s"

[services.shop]
worker = {{ module = "shop_jobs", queues = ["slow"], concurrency = 1 }}
scale = {{ min = 1, max = 3, target_wait = "1s", quiet = "3s" }}
cwd = "{JOBS}"
"""


@pytest.fixture
def daemon() -> Iterator[Atlas]:
    with atlas() as made:
        made.configure(CONFIG)
        made.up()
        yield made


def running(daemon: Atlas) -> int:
    states = [one["state"] for one in daemon.service("shop")["instances"]]
    return states.count("running")


def story(daemon: Atlas) -> list[str]:
    told: list[str] = daemon.client.call("service.why", service="shop")["story"]
    return told


def test_it_grows_with_the_backlog_and_shrinks_again(daemon: Atlas) -> None:
    until(lambda: running(daemon) == 1, "one instance")
    client = Client(str(Path(daemon.paths.run, "jobs.sock")))
    client.enqueue_many("shop.sleep", ({"seconds": 0.3} for _ in range(40)), queue="slow")
    until(lambda: running(daemon) == 3, "three instances")
    (told, *_) = [line for line in story(daemon) if ": scale " in line]
    assert "oldest job of slow waits" in told
    assert "target 1 s" in told
    # By hand only within the bounds.
    with pytest.raises(AtlasError, match="has 1 to 3 instances, by its backlog: 9 is out of these"):
        daemon.client.call("service.scale", service="shop", instances=9)
    # Core's successor goes on where it was.
    os.kill(daemon.processes[0].pid, signal.SIGKILL)
    daemon.processes[0].wait()
    daemon.up()
    assert len(daemon.service("shop")["instances"]) == 3
    until(lambda: queue(daemon)["available"] == 0, "an empty queue")
    until(lambda: running(daemon) == 1, "one instance again")
    assert any("would have done for the last 3 s" in line for line in story(daemon))
    assert queue(daemon)["dead"] == 0
    client.close()
    # Without `scale` there are as many as are configured.
    daemon.client.call("service.scale", service="shop", instances=2)
    until(lambda: running(daemon) == 2, "two instances")
    scale = next(line for line in CONFIG.splitlines() if line.startswith("scale"))
    daemon.configure(CONFIG.replace(scale, ""))
    daemon.client.call("config.reload")
    until(lambda: running(daemon) == 1, "one instance, as configured")


def queue(daemon: Atlas) -> dict[str, Any]:
    (found,) = daemon.client.call("queue.list")["queues"]
    assert isinstance(found, dict)
    return found
