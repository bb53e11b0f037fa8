"""Core and the services role are killed again and again; no service notices, no line is lost."""

from collections.abc import Callable

import pytest

from tests.integration.services.host import Host, Moments, program
from tests.integration.services.program import long_line

SERVICES = 20
PAUSES = (0.001, 0.02, 0.05)
"""Seconds between two lines; of the services in turn."""


@pytest.fixture
def host(request: pytest.FixtureRequest, new_host: Callable[..., Host]) -> Host:
    """Give a host whose services are in cgroups, or one without."""
    return new_host(cgroup=getattr(request, "param", "auto"))


@pytest.fixture
def counting(host: Host) -> dict[str, list[int]]:
    """Twenty services that write numbered lines, on a host that is up; their pids."""
    host.start(
        {
            f"count-{n}": {
                "command": program("count", PAUSES[n % 3], f"mark-{n}"),
                "stop": {"timeout": "60s"},
                "min_uptime": "0s",
                # The busy ones fill a file every other second.
                "log": {"max_size": "64KiB", "max_files": 10000},
            }
            for n in range(SERVICES)
        }
    )
    return host.all_running([f"count-{n}" for n in range(SERVICES)])


def check_numbers(lines: list[str], who: str) -> int:
    """Every number once, in order, the last as the program says."""
    assert lines, f"{who} has written nothing"
    told = lines[-1]
    numbers = lines[:-1]
    expected = [str(n) for n in range(1, len(numbers) + 1)]
    wrong = [(i, a, b) for i, (a, b) in enumerate(zip(numbers, expected, strict=True)) if a != b]
    assert not wrong, f"{who}: {wrong[:5]} of {len(wrong)} (index, found, expected); {told}"
    assert told == f"last {len(numbers)}", f"{who}: {len(numbers)} lines, but it says {told}"
    return len(numbers)


def check_unharmed(host: Host, before: dict[str, list[int]]) -> None:
    """The same processes, none beside them, no restart counted; then every line, to the last."""
    host.core_is_up()
    assert host.all_running(list(before)) == before
    for name, service in host.snapshot().items():
        assert service["instances"][0]["restarts"] == 0, service
        assert service["restarts_total"] == {}, service
        assert host.crashes(name) == []
    for n in range(SERVICES):
        assert host.running(f"mark-{n}") == before[f"count-{n}"]
    host.ctl("stop", "--all", timeout=120)
    for name in before:
        host.wait_for(name, "stopped")
    assert host.left() == []
    total = sum(check_numbers(host.lines(name), name) for name in before)
    assert len(list((host.root / "log" / "count-0").glob("0.log.*"))) > 1, "nothing was rotated"
    print(f"{total} lines")
    assert total > SERVICES * 50


def storm(host: Host, moments: Moments, kills: dict[str, int], longest: float) -> None:
    """Kill roles in random order at random moments, each started again as systemd does.

    Some moments are in the middle of a start, others come when all has settled.
    """
    order = [role for role, times in kills.items() for _ in range(times)]
    moments.random.shuffle(order)
    for role in order:
        if moments.random.random() < 0.2:
            host.core_is_up()
        moments.pause(longest)
        host.restart_role(role)


def test_core_killed_fifty_times(
    host: Host, counting: dict[str, list[int]], moments: Moments
) -> None:
    storm(host, moments, {"core": 50}, 0.4)
    check_unharmed(host, counting)


@pytest.mark.parametrize("host", ["auto", "off"], ids=["cgroup", "no-cgroup"], indirect=True)
def test_services_killed_twenty_times(
    host: Host, counting: dict[str, list[int]], moments: Moments
) -> None:
    storm(host, moments, {"services": 20}, 0.8)
    check_unharmed(host, counting)


def test_both_killed_in_any_order(
    host: Host, counting: dict[str, list[int]], moments: Moments
) -> None:
    storm(host, moments, {"core": 50, "services": 20}, 0.3)
    check_unharmed(host, counting)


def test_long_lines_come_whole_whoever_dies(
    new_host: Callable[..., Host], moments: Moments
) -> None:
    """Lines of up to 20 kB as fast as they come: each whole, once, in order, of either stream."""
    host = new_host()
    seed = moments.seed
    host.start(
        {
            "burst": {
                "command": program("burst", seed),
                "stop": {"timeout": "60s"},
                "log": {"max_size": "4MiB", "max_files": 1000},
            }
        }
    )
    pid = host.wait_for("burst")["pid"]
    storm(host, moments, {"services": 12, "core": 4}, 0.5)
    assert host.wait_for("burst")["pid"] == pid
    host.core_is_up()
    host.ctl("stop", "burst", timeout=120)
    even, odd = host.lines("burst", stream="stdout"), host.lines("burst", stream="stderr")
    last = int(even.pop().removeprefix("last "))
    for found, first in ((odd, 1), (even, 2)):
        expected = (long_line(seed, number) for number in range(first, last + 1, 2))
        wrong = [(a[:60], b[:60]) for a, b in zip(found, expected, strict=True) if a != b]
        assert wrong == []
    assert last > 1000
