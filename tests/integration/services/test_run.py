"""`atlasd run`: all roles at once, the services role its child; and what becomes of them."""

import os
import signal

import psutil
import pytest

from tests.integration.services.host import Host, Moments, alive, program, until

NAMES = [f"count-{n}" for n in range(5)]


@pytest.fixture
def running(host: Host) -> dict[str, list[int]]:
    """Counting services below an `atlasd run`."""
    host.configure(
        {
            name: {
                "command": program("count", 0.005, f"mark-{name}"),
                "ready": {"log": "^1$"},
                "requires": [f"{NAMES[n - 1]}:ready"] if n else [],
            }
            for n, name in enumerate(NAMES)
        }
    )
    host.start_role("run")
    until(host.core_answers, host.logs_of_roles)
    return host.all_running(NAMES)


def services_role(host: Host) -> int:
    """The pid of the services role that answers at the moment."""
    pid = int(host.ask_services("snapshot")["pid"])
    host.ever.add(pid)
    return pid


def check_unharmed(host: Host, before: dict[str, list[int]]) -> None:
    until(host.core_answers, host.logs_of_roles)
    assert host.all_running(NAMES) == before
    services_role(host)
    for name in NAMES:
        assert host.instance(name)["restarts"] == 0
        assert host.running(f"mark-{name}") == before[name]


def check_end(host: Host) -> None:
    """Everything has ended, and every line is there."""
    assert host.left() == []
    for name in NAMES:
        *numbers, last = host.lines(name)
        assert numbers == [str(n) for n in range(1, len(numbers) + 1)], name
        assert last == f"last {len(numbers)}", name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_an_end_in_order_ends_everything(
    host: Host, running: dict[str, list[int]], number: signal.Signals
) -> None:
    role = services_role(host)
    os.kill(host.pids["run"], number)
    until(lambda: not alive(host.pids["run"]) and not alive(role), host.logs_of_roles)
    check_end(host)
    # What was wanted is still wanted.
    host.start_role("run")
    until(host.core_answers, host.logs_of_roles)
    assert host.all_running(NAMES) != running


def test_the_services_role_comes_back_by_itself(
    host: Host, running: dict[str, list[int]], moments: Moments
) -> None:
    for _ in range(8):
        role = services_role(host)
        moments.pause(0.3)
        os.kill(role, signal.SIGKILL)
        until(lambda role=role: not alive(role))  # type: ignore[misc]
        until(lambda role=role: services_role(host) != role)  # type: ignore[misc]
    check_unharmed(host, running)
    role = services_role(host)
    os.kill(host.pids["run"], signal.SIGTERM)
    until(lambda: not alive(host.pids["run"]) and not alive(role), host.logs_of_roles)
    check_end(host)


def test_the_next_one_takes_over_from_one_that_was_killed(
    host: Host, running: dict[str, list[int]], moments: Moments
) -> None:
    role = services_role(host)
    for _ in range(6):
        moments.pause(0.5)
        host.restart_role("run")
    check_unharmed(host, running)
    assert services_role(host) == role
    # Both at once, as when the kernel runs out of memory.
    host.kill("run")
    os.kill(role, signal.SIGKILL)
    until(lambda: not alive(role))
    host.start_role("run")
    check_unharmed(host, running)
    role = services_role(host)
    host.ctl("shutdown")
    until(lambda: not alive(host.pids["run"]) and not alive(role), host.logs_of_roles)
    check_end(host)


def test_a_hung_core_costs_no_restart(host: Host, running: dict[str, list[int]]) -> None:
    """Core stands still: what dies is started again, and output is kept, all the same."""
    services_role(host)
    psutil.Process(host.pids["run"]).suspend()
    os.kill(running["count-0"][0], signal.SIGKILL)
    until(lambda: host.instance("count-0")["restarts"] == 1)
    assert host.wait_for("count-0")["pid"] != running["count-0"][0]
    seen = len(host.lines("count-1"))
    until(lambda: len(host.lines("count-1")) > seen)
    psutil.Process(host.pids["run"]).resume()
    until(host.core_answers)
    until(lambda: "killed by signal KILL" in host.ctl("why", "count-0").stdout)
    host.ctl("shutdown")
    until(lambda: not alive(host.pids["run"]), host.logs_of_roles)
    assert host.left() == []


def test_a_second_daemon_on_the_same_root_is_refused(
    host: Host, running: dict[str, list[int]]
) -> None:
    services_role(host)
    first = host.pids["run"]
    second = host.start_role("run")
    until(lambda: not alive(second))
    host.pids["run"] = first
    assert alive(first)
    assert "already" in (host.root / "run.out").read_text()
    third = host.start_role("services")
    until(lambda: not alive(third))
    assert "already uses" in (host.root / "services.out").read_text()
    check_unharmed(host, running)
