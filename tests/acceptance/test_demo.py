"""The demo under a real atlasd: start it, break it, and watch it come back."""

import os
import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.daemons import PATIENCE, Atlas, alive, atlas, until

DEMO = Path(__file__).parents[2] / "etc" / "demo"


class Demo:
    """The demo's configuration on a port of its own, with a customer as clumsy as is wanted."""

    def __init__(self, made: Atlas) -> None:
        self.atlas = made
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        shutil.copytree(DEMO, made.paths.etc, dirs_exist_ok=True)

    def configure(self, clumsy: str = "0") -> None:
        text = (DEMO / "atlasd.toml").read_text()
        for old, new in (
            ("127.0.0.1:8080", self.url.removeprefix("http://")),
            ("../../var/demo/", f"{self.atlas.root}/"),
            ('SHOP_CLUMSY = "0.1"', f'SHOP_CLUMSY = "{clumsy}", SHOP_PAUSE = "0.1"'),
        ):
            assert old in text
            text = text.replace(old, new)
        self.atlas.configure(text)

    def up(self) -> None:
        self.atlas.up()
        self.atlas.wait_state("packer", "running")

    def page(self) -> str:
        with urllib.request.urlopen(self.url, timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text


@pytest.fixture
def demo() -> Iterator[Demo]:
    with atlas() as made:
        yield Demo(made)


def test_the_shop_opens_in_order_and_its_orders_are_packed(demo: Demo) -> None:
    demo.configure()
    demo.up()
    assert demo.atlas.wait_state("prepare", "exited")
    assert len(demo.atlas.wait_state("shop", "running")["instances"]) == 2
    until(lambda: "<td>packed</td>" in demo.page(), "an order to be packed")
    status, body = demo.atlas.http_json("/health")
    assert (status, body["status"]) == (200, "pass")


def replaced(demo: Demo, killed: int) -> bool:
    """Whether there are two instances of the shop again, and that process is none of them."""
    pids = demo.atlas.pids("shop")
    return len(pids) == 2 and killed not in pids


def test_no_customer_is_turned_away_while_an_instance_is_killed(demo: Demo) -> None:
    demo.configure()
    demo.up()
    for killed in demo.atlas.pids("shop"):
        os.kill(killed, signal.SIGKILL)
        for _ in range(10):
            assert "The shop that stays open" in demo.page()
        until(partial(replaced, demo, killed), "a new process")
    assert demo.atlas.wait_state("shop", "running")


def test_the_customer_crashes_and_why_tells_the_bug(demo: Demo) -> None:
    demo.configure(clumsy="1")
    demo.up()
    until(
        lambda: sum(i["restarts"] for i in demo.atlas.service("customer")["instances"]) >= 2,
        "the customer to crash twice",
    )
    told = demo.atlas.client.call("service.why", service="customer")
    assert "ZeroDivisionError" in str(told)
    assert demo.atlas.service("shop")["instances"][0]["restarts"] == 0


def test_a_killed_daemon_finds_the_same_processes_again(demo: Demo) -> None:
    demo.configure()
    demo.up()
    before = {name: demo.atlas.pids(name) for name in ("shop", "packer", "customer")}
    (daemon,) = demo.atlas.processes
    daemon.kill()
    daemon.wait()
    assert "The shop that stays open" in demo.page()
    demo.up()
    assert {name: demo.atlas.pids(name) for name in before} == before


def test_ctrl_c_leaves_nothing_behind(demo: Demo) -> None:
    demo.configure()
    demo.up()
    pids = [pid for name in ("shop", "packer", "customer") for pid in demo.atlas.pids(name)]
    pids.append(demo.atlas.services_pid())
    (daemon,) = demo.atlas.processes
    daemon.send_signal(signal.SIGINT)
    assert daemon.wait(PATIENCE) == 0
    until(lambda: not any(alive(pid) for pid in pids), "everything to have ended")
