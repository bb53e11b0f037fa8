"""Who waits for whom, what is started with whom, and what hooks and exit codes decide."""

import os
import signal
from pathlib import Path

from tests.integration.services.host import Host, program, until


def noting(said: Path, name: str, *, then: str = "exec sleep 1000") -> list[str]:
    """A program that notes its start in a file."""
    return ["sh", "-c", f"echo {name} >> {said}; {then}"]


def test_a_completed_oneshot_lets_its_dependents_start(host: Host) -> None:
    gate, said = host.files / "gate", host.files / "said"
    host.start(
        {
            "prepare": {"command": program("end-when", gate, 0), "type": "oneshot"},
            "web": {"command": noting(said, "web"), "requires": ["prepare:completed"]},
        }
    )
    until(lambda: host.instance("prepare")["pid"])
    assert host.instance("web")["state"] == "waiting"
    assert host.snapshot()["web"]["waiting_for"] == ["prepare"]
    # Waiting outlives the role.
    host.restart_role("services")
    assert host.instance("web")["state"] == "waiting"
    gate.touch()
    host.wait_for("web")
    assert host.instance("prepare")["state"] == "exited"
    assert said.read_text() == "web\n"
    # What is completed is so for a successor too: it isn't run again.
    host.restart_role("services")
    host.core_is_up()
    assert host.instance("prepare")["state"] == "exited"
    assert host.instance("prepare")["pid"] is None


def test_a_failed_oneshot_is_tried_again_and_its_dependents_wait(host: Host) -> None:
    gate, count = host.files / "gate", host.files / "count"
    script = f"echo x >> {count}; test -e {gate}"
    host.start(
        {
            "prepare": {
                "command": ["sh", "-c", script],
                "type": "oneshot",
                "backoff": {"base": "50ms", "cap": "50ms"},
            },
            "web": {"command": program("sleep"), "requires": ["prepare:completed"]},
        }
    )
    until(lambda: count.exists() and len(count.read_text().split()) >= 3)
    assert host.instance("web")["state"] == "waiting"
    gate.touch()
    host.wait_for("web")


def test_dependents_of_what_is_given_up_fail_and_come_back_with_it(host: Host) -> None:
    gate = host.files / "gate"
    host.start(
        {
            "db": {
                "command": ["sh", "-c", f"test -e {gate} && exec sleep 1000; exit 78"],
                "min_uptime": "300ms",
            },
            "web": {"command": program("sleep"), "requires": ["db:ready"]},
            "soft": {"command": program("sleep"), "wants": ["db"], "min_uptime": "0s"},
        }
    )
    host.wait_for("db", "failed")
    web = host.wait_for("web", "failed")
    assert (web["reason"], web["detail"]) == ("dependency", "it requires db, which has failed")
    host.wait_for("soft")
    gate.touch()
    host.ctl("start", "db")
    host.all_running(["db", "web"])


def test_a_start_pulls_in_what_it_requires(host: Host) -> None:
    host.start(
        {
            "db": {"command": program("sleep"), "enabled": False, "min_uptime": "0s"},
            "web": {
                "command": program("sleep"),
                "requires": ["db:ready"],
                "enabled": False,
                "min_uptime": "0s",
            },
            "apart": {"command": program("sleep"), "enabled": False},
        }
    )
    assert host.left() == []
    host.ctl("start", "web")
    host.all_running(["db", "web"])
    assert host.instance("apart")["pid"] is None


def test_a_dependency_that_restarts_leaves_its_dependents_alone(host: Host) -> None:
    host.start(
        {
            "db": {"command": program("sleep"), "min_uptime": "0s"},
            "web": {"command": program("sleep"), "requires": ["db"], "min_uptime": "0s"},
            "cache": {"command": program("sleep"), "restart_with": ["db"], "min_uptime": "0s"},
        }
    )
    before = host.all_running(["db", "web", "cache"])
    host.ctl("restart", "db")
    until(lambda: host.all_running(["cache"])["cache"] != before["cache"])
    after = host.all_running(["db", "web", "cache"])
    assert after["db"] != before["db"]
    assert after["web"] == before["web"]
    os.kill(after["db"][0], signal.SIGKILL)
    until(lambda: host.all_running(["cache"])["cache"] != after["cache"])
    assert host.all_running(["web"])["web"] == before["web"]


def test_order_of_a_start(host: Host) -> None:
    said = host.files / "said"
    host.start(
        {
            "web": {"command": noting(said, "web"), "requires": ["cache:ready"]},
            "cache": {"command": noting(said, "cache"), "wants": ["db:ready"]},
            "db": {"command": noting(said, "db")},
            "last": {"command": noting(said, "last"), "after": ["web:ready"]},
        },
        min_uptime="100ms",
    )
    host.all_running(["web", "cache", "db", "last"])
    assert said.read_text().split() == ["db", "cache", "web", "last"]


def test_healthy_waits_for_the_first_verdict_of_the_probe(host: Host) -> None:
    gate = host.files / "gate"
    probe = ["sh", "-c", f"test -e {gate} || exit 2"]
    live = {"exec": probe, "interval": "50ms", "start_period": "1h"}
    host.start(
        {
            "db": {"command": program("sleep"), "live": live, "min_uptime": "0s"},
            "web": {"command": program("sleep"), "requires": ["db:healthy"]},
        }
    )
    host.wait_for("db")
    assert host.instance("web")["state"] == "waiting"
    gate.touch()
    host.wait_for("web")


def test_hooks_run_around_the_program(host: Host) -> None:
    said = host.files / "said"

    def hook(name: str) -> list[str]:
        return [f"sh -c 'echo {name} $ATLASD_HOOK $ATLASD_INSTANCE >> {said}'"]

    host.start(
        {
            "web": {
                "command": noting(said, "program"),
                "pre_start": hook("a") + hook("b"),
                "post_start": hook("c"),
                "pre_stop": hook("d"),
                "post_stop": hook("e"),
                "min_uptime": "0s",
            }
        }
    )
    host.wait_for("web")
    until(lambda: len(said.read_text().splitlines()) == 4)
    host.ctl("stop", "web")
    until(lambda: len(said.read_text().splitlines()) == 6)
    lines = said.read_text().splitlines()
    assert lines[:2] == ["a pre_start 0", "b pre_start 0"]
    assert sorted(lines[2:4]) == ["c post_start 0", "program"]
    assert lines[4:] == ["d pre_stop 0", "e post_stop 0"]


def test_a_failing_pre_start_fails_the_start(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": program("sleep", "mark"),
                "pre_start": ["sh -c 'echo no database; exit 4'"],
                "backoff": {"base": "1h", "cap": "1h"},
            }
        }
    )
    web = host.wait_for("web", "backoff")
    assert web["reason"] == "spawn"
    assert web["detail"] == "pre_start sh: exit code 4: no database"
    assert host.running("mark") == []
    assert "no database" in host.ctl("why", "web").stdout
    until(lambda: "no database" in host.lines("web"))


def test_what_a_hook_says_stands_in_the_log_before_what_the_program_says(host: Host) -> None:
    migration = "sh -c 'for i in $(seq 20000); do echo migrated table number $i; done; printf end'"
    host.start({"web": {"command": "sh -c 'echo serving; sleep 1000'", "pre_start": [migration]}})
    host.wait_for("web")
    until(lambda: "serving" in host.lines("web"))
    lines = host.lines("web")
    assert lines == [*(f"migrated table number {i}" for i in range(1, 20001)), "end", "serving"]


def test_a_hook_that_takes_too_long_is_ended_with_what_it_started(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": program("sleep"),
                "pre_start": [{"command": "sh -c 'sleep 12345; true'", "timeout": "200ms"}],
                "backoff": {"base": "1h", "cap": "1h"},
            }
        }
    )
    detail = host.wait_for("web", "backoff")["detail"]
    assert detail.startswith("pre_start sh: took longer than its time limit")
    until(lambda: host.left() == [], host.left)


def test_a_stop_does_not_wait_for_a_start_that_waits(host: Host) -> None:
    host.start(
        {
            "db": {"command": program("sleep"), "ready": {"notify": True}},
            "web": {"command": program("sleep", "mark"), "requires": ["db:ready"]},
        }
    )
    host.wait_for("web", "waiting")
    host.ctl("stop", "web")
    assert host.instance("web")["state"] == "stopped"
    assert host.running("mark") == []


def test_a_stop_during_a_hook_ends_it(host: Host) -> None:
    host.start(
        {"web": {"command": program("sleep", "mark"), "pre_start": ["sh -c 'sleep 12345; true'"]}}
    )
    until(lambda: any("12345" in line for line in host.commands().values()))
    host.ctl("stop", "web")
    assert host.instance("web")["state"] == "stopped"
    until(lambda: host.left() == [], host.left)


def test_what_exit_codes_decide(host: Host) -> None:
    late = {"backoff": {"base": "1h", "cap": "1h"}, "min_uptime": "0s"}
    host.start(
        {
            "ok": {"command": program("crash", 0), "restart": "on-failure", **late},
            "three": {"command": program("crash", 3), "restart": {"success_codes": [3]}, **late},
            "five": {"command": program("crash", 5), "restart": {"no_restart_codes": [5]}, **late},
            "config": {"command": program("crash", 78), **late},
            "never": {"command": program("crash", 1), "restart": "never", **late},
            "again": {"command": program("crash", 1), **late},
            "limited": {
                "command": program("crash", 1),
                "backoff": {"base": "10ms", "cap": "10ms"},
                "limit": {"count": 4, "window": "10m", "on_limit": "fail"},
            },
            "signal": {
                "command": ["sh", "-c", "kill -USR1 $$"],
                "restart": {"success_signals": ["USR1"]},
                **late,
            },
        }
    )
    expected = {
        "ok": ("exited", "exit code 0"),
        "three": ("exited", "exit code 3"),
        "five": ("failed", "exit code 5"),
        "config": ("failed", "exit code 78: the program says that its configuration is wrong"),
        "never": ("failed", "exit code 1"),
        "again": ("backoff", "exit code 1"),
        "limited": ("failed", "exit code 1; 4 failures in 600 s"),
        "signal": ("exited", "killed by signal USR1"),
    }
    for name, (state, detail) in expected.items():
        assert host.wait_for(name, state)["detail"] == detail, name
    assert host.instance("limited")["reason"] == "limit"
    assert len(host.crashes("limited")) == 4
    # Asked for, it is tried anew, with its counters cleared.
    host.ctl("start", "limited", check=False)
    until(lambda: len(host.crashes("limited")) == 8)
