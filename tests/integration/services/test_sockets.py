"""Listening sockets are the services role's: passed by name, and open whoever restarts or dies."""

import os
import socket

import pytest

from tests.integration.services.clients import Clients, ask
from tests.integration.services.host import Host, Moments, free_port, program, until


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def web(host: Host, port: int) -> Host:
    """Two instances that answer on one socket."""
    host.start(
        {
            "web": {
                "command": program("serve"),
                "instances": 2,
                "sockets": {"http": f"tcp://127.0.0.1:{port}"},
                "ready": {"notify": True},
            }
        }
    )
    host.all_running(["web"])
    return host


def test_sockets_are_passed_as_systemd_does(host: Host, port: int) -> None:
    path = host.root / "second.sock"
    udp = free_port()
    host.start(
        {
            "web": {
                "command": program("environment"),
                "sockets": {
                    "http": f"tcp://127.0.0.1:{port}",
                    "admin": {"address": f"unix://{path}", "mode": "0600"},
                    "metrics": f"udp://127.0.0.1:{udp}",
                },
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    said = host.lines("web")
    values = dict(line.split("=", 1) for line in said if "=" in line)
    assert values["LISTEN_PID"] == str(pid)
    assert values["LISTEN_FDS"] == "3"
    names = values["LISTEN_FDNAMES"].split(":")
    descriptors = {line.split()[1]: line.split(maxsplit=2)[2] for line in said if line[:3] == "fd "}
    found = {name: descriptors[str(3 + n)] for n, name in enumerate(names)}
    assert found == {
        "http": f"('127.0.0.1', {port})",
        "admin": str(path),
        "metrics": f"('127.0.0.1', {udp})",
    }
    assert path.stat().st_mode & 0o777 == 0o600
    # Nothing else of the role's comes along.
    assert set(descriptors) - {"6"} == {"0", "1", "2", "3", "4", "5"}, descriptors


def test_no_connection_fails_over_restarts(web: Host, port: int) -> None:
    with Clients(("127.0.0.1", port)) as clients:
        until(lambda: clients.total > 50)
        for _ in range(3):
            web.ctl("restart", "web")
        until(lambda seen=clients.total: clients.total > seen + 50)  # type: ignore[misc]
    assert clients.failures == []
    assert len(clients.answers) >= 6, "each instance has been three more processes"


def test_no_connection_fails_while_nobody_accepts(web: Host, port: int) -> None:
    """Stopped altogether, with the socket kept: clients wait, and are answered later."""
    with Clients(("127.0.0.1", port)) as clients:
        until(lambda: clients.total > 20)
        web.ctl("stop", "web")
        before = clients.total
        web.ctl("start", "web")
        until(lambda: clients.total > before + 20)
    assert clients.failures == []


@pytest.mark.parametrize("with_core", [True, False], ids=["core-lives", "core-is-dead"])
def test_no_connection_fails_while_the_services_role_dies(
    web: Host, port: int, moments: Moments, with_core: bool
) -> None:
    """The instances have the socket too, so even with nobody else to hold it, it stays open."""
    if not with_core:
        web.kill("core")
    pids = web.all_running(["web"])
    with Clients(("127.0.0.1", port)) as clients:
        for _ in range(5):
            moments.pause(0.3)
            web.restart_role("services")
            web.all_running(["web"])
        before = clients.total
        until(lambda: clients.total > before + 50)
    assert clients.failures == []
    assert web.all_running(["web"]) == pids


def test_core_holds_the_socket_while_instances_and_role_are_dead(web: Host, port: int) -> None:
    address = ("127.0.0.1", port)
    pids = web.all_running(["web"])["web"]
    with Clients(address) as clients:
        until(lambda: clients.total > 20)
        # Stopped in order first: one that is killed takes the connection with it that it has.
        web.ctl("stop", "web")
        web.kill("services")
        before = clients.total
        with socket.create_connection(address) as waiting:
            web.start_role("services")
            web.core_is_up()
            web.ctl("start", "web")
            assert waiting.recv(100)
        until(lambda: clients.total > before + 20)
    assert clients.failures == []
    assert not set(pids) & set(web.all_running(["web"])["web"])


def test_an_address_in_use_is_told_and_tried_again(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        host.start(
            {
                "web": {
                    "command": program("serve"),
                    "sockets": {"http": f"tcp://127.0.0.1:{port}"},
                    "backoff": {"base": "100ms", "cap": "100ms"},
                }
            }
        )
        until(lambda: host.crashes("web"))
        detail = host.crashes("web")[0]["detail"]
        assert detail == (
            f"socket http: cannot listen on tcp://127.0.0.1:{port}: Address already in use"
        )
    host.wait_for("web")
    assert ask(("127.0.0.1", port)).startswith("0 ")


def test_descriptors_that_a_program_stores_come_back(host: Host) -> None:
    host.start({"web": {"command": program("store"), "ready": {"notify": True}}})
    pid = host.wait_for("web")["pid"]
    host.ctl("restart", "web")
    assert host.wait_for("web")["pid"] != pid
    assert host.lines("web") == ["again word"]


def test_a_stale_unix_socket_is_replaced(host: Host) -> None:
    path = host.root / "web.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    host.start({"web": {"command": program("serve"), "sockets": {"http": f"unix://{path}"}}})
    host.wait_for("web")
    assert ask(str(path)).startswith("0 ")
    assert os.stat(path).st_mode & 0o777 == 0o660
