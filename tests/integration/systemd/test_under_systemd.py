from __future__ import annotations

import pytest

from tests.integration.systemd.installed import ROLES, SERVICES, Installed, unit

pytestmark = [pytest.mark.xdist_group("systemd"), pytest.mark.timeout(600)]


def test_all_units_get_ready_and_say_how_they_are(atlasd: Installed) -> None:
    assert set(atlasd.pids()) == set(SERVICES)
    for role in ROLES:
        assert atlasd.active(role)
        # STATUS= of the role, beside `systemctl status`'s "Active:"
        assert atlasd.machine.show(unit(role), "StatusText") != ""
    assert str(len(SERVICES)) in atlasd.machine.show(unit("services"), "StatusText")


def test_the_roles_run_as_whom_their_units_say(atlasd: Installed) -> None:
    users = {
        role: atlasd.machine.run("ps", "-o", "user:20=", "-p", str(atlasd.main_pid(role)))
        for role in ROLES
    }
    assert {role: done.stdout.strip() for role, done in users.items()} == {
        "services": "root",
        "core": "atlasd",
        "monitoring": "atlasd",
        "api": "atlasd-api",
    }


def test_services_inherit_nothing_meant_for_the_role(atlasd: Installed) -> None:
    [pid] = atlasd.pids()["echo"]
    proc = atlasd.machine.root / "proc"

    assert (proc / f"{pid}/oom_score_adj").read_text().strip() == "0"
    limits = (proc / f"{pid}/limits").read_text()
    soft = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()
    assert soft[3] == "1024"
    environment = (proc / f"{pid}/environ").read_text().split("\0")
    names = {entry.partition("=")[0] for entry in environment}
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"}


@pytest.mark.parametrize("role", ["core", "monitoring", "api"])
def test_restart_of_a_unit_leaves_every_service_alone(atlasd: Installed, role: str) -> None:
    before, old = atlasd.pids(), atlasd.main_pid(role)

    atlasd.machine.run("systemctl", "restart", unit(role), timeout=120)

    assert atlasd.main_pid(role) not in (0, old)
    assert atlasd.pids() == before


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_role_comes_back_and_no_service_notices(atlasd: Installed, role: str) -> None:
    before = atlasd.pids()

    old = atlasd.kill(role, "KILL")
    atlasd.wait_for_successor(role, old)

    assert atlasd.pids() == before
    assert all(i["restarts"] == 0 for s in atlasd.instances().values() for i in s)


def test_a_stopped_core_trips_the_watchdog(atlasd: Installed) -> None:
    before = atlasd.pids()
    atlasd.drop_in("core", "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=2s\n")
    atlasd.machine.run("systemctl", "restart", unit("core"), timeout=120)

    old = atlasd.kill("core", "STOP")
    atlasd.wait_for_successor("core", old)

    assert "watchdog" in atlasd.machine.journal(unit("core")).lower()
    assert atlasd.pids() == before


def test_fd_store_alone_gives_sockets_and_pipes_back(atlasd: Installed) -> None:
    before = atlasd.pids()
    # With core gone nobody but systemd holds duplicates.
    atlasd.machine.run("systemctl", "stop", unit("core"), timeout=120)
    assert int(atlasd.machine.show(unit("services"), "NFileDescriptorStore")) > 0
    seen = len(atlasd.counted())

    old = atlasd.kill("services", "KILL")
    atlasd.wait_for_successor("services", old)

    assert atlasd.ask_echo() == before["echo"][0]
    atlasd.wait_for(lambda: len(atlasd.counted()) > seen + 50, "the counter is read again")
    atlasd.machine.run("systemctl", "start", unit("core"), timeout=120)
    assert atlasd.pids() == before
    counted = atlasd.counted()
    assert counted == list(range(1, len(counted) + 1))


def test_connections_wait_while_services_is_down(atlasd: Installed) -> None:
    before = atlasd.pids()
    atlasd.drop_in("services", "[Service]\nRestartSec=2s\n")

    old = atlasd.kill("services", "KILL")
    assert atlasd.ask_echo() == before["echo"][0]
    atlasd.wait_for_successor("services", old)

    assert atlasd.ask_echo() == before["echo"][0]
    assert atlasd.pids() == before


def test_reload_of_services_is_an_upgrade_in_place(atlasd: Installed) -> None:
    before, main = atlasd.pids(), atlasd.main_pid("services")

    atlasd.machine.run("systemctl", "reload", unit("services"), timeout=120)
    atlasd.wait_for(lambda: atlasd.active("services"), "services active after its reload")

    assert atlasd.main_pid("services") == main
    assert atlasd.pids() == before


def test_root_changes_what_core_may_only_read(atlasd: Installed) -> None:
    """Core runs as another user, in a mount namespace where /etc is read-only."""
    before = atlasd.pids()
    ctl = "/opt/atlasd/bin/atlasctl"

    def show(*words: str) -> str:
        return atlasd.machine.run(ctl, "config", *words, timeout=120).stdout

    show("set", "services.sleeper.start_timeout", "7s", "--reload")
    assert 'start_timeout = "7s"' in atlasd.machine.run("cat", "/etc/atlasd/atlasd.toml").stdout
    assert show("get", "services.sleeper.start_timeout") == "7s\n"
    owner = atlasd.machine.run("stat", "-c", "%U %a", "/etc/atlasd/atlasd.toml").stdout
    assert owner.split()[0] == "root"

    atlasd.machine.run("systemctl", "reload", unit("core"), timeout=120)
    assert "live" in show("history", "--changes")
    assert "is back" in show("rollback")
    assert show("get", "services.sleeper.start_timeout") == "1m\n"
    assert atlasd.pids() == before


def test_stop_of_the_target_leaves_nothing_behind(atlasd: Installed) -> None:
    pids = [pid for instances in atlasd.pids().values() for pid in instances]

    atlasd.machine.run("systemctl", "stop", "atlas.target", timeout=400)

    for role in ROLES:
        atlasd.wait_for(lambda role=role: not atlasd.active(role), f"{unit(role)} stopped")  # type: ignore[misc]
    left = [pid for pid in pids if (atlasd.machine.root / f"proc/{pid}").exists()]
    assert left == []
