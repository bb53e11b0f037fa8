"""What an operator does to running services, from atlasctl to the processes."""

import json
import os
import signal

from tests.integration.services.clients import Clients
from tests.integration.services.host import Host, alive, free_port, program, until


def test_scaling_live(host: Host) -> None:
    host.start({"web": {"command": program("sleep", "mark"), "instances": 2, "min_uptime": "0s"}})
    first = host.all_running(["web"])["web"]
    host.ctl("scale", "web=4")
    assert host.all_running(["web"])["web"][:2] == first
    assert len(host.running("mark")) == 4
    host.ctl("scale", "web=1")
    assert host.all_running(["web"])["web"] == first[:1]
    assert host.running("mark") == first[:1]
    host.ctl("scale", "web=0")
    assert host.left() == []
    host.ctl("scale", "web=2")
    assert len(host.all_running(["web"])["web"]) == 2
    # A scaling outlives both roles.
    host.ctl("scale", "web=3")
    host.restart_role("core")
    host.restart_role("services")
    host.core_is_up()
    assert len(host.all_running(["web"])["web"]) == 3
    assert len(host.running("mark")) == 3


def test_a_rolling_restart_never_has_both_down(host: Host) -> None:
    """Asked while it happens, the service always answers, and never has nobody in traffic."""
    port = free_port()
    host.start(
        {
            "web": {
                "command": program("serve", 0.3),
                "instances": 2,
                "sockets": {"http": f"tcp://127.0.0.1:{port}"},
                "ready": {"notify": True},
            }
        }
    )
    before = host.all_running(["web"])["web"]
    with Clients(("127.0.0.1", port)) as clients:
        until(lambda: clients.total > 20)
        host.ctl("restart", "web", "--no-wait")
        seen = []

        def over() -> bool:
            instances = host.snapshot()["web"]["instances"]
            seen.append([i["traffic"] for i in instances])
            return all(
                i["traffic"] == "in" and i["pid"] != old
                for i, old in zip(instances, before, strict=True)
            )

        until(over, step=0.002)
    assert clients.failures == []
    assert all("in" in traffic for traffic in seen), "nobody was in traffic for a moment"
    assert ["out", "in"] in seen
    assert ["in", "out"] in seen


def test_a_rolling_restart_ends_at_one_that_does_not_come_up(host: Host) -> None:
    gate = host.files / "broken"
    script = f"test ! -e {gate} || exit 1; exec sleep 1000"
    host.start(
        {"web": {"command": ["sh", "-c", script], "instances": 3, "min_uptime": "200ms"}},
        backoff={"base": "1h", "cap": "1h"},
    )
    before = host.all_running(["web"])["web"]
    gate.touch()
    done = host.ctl("restart", "web", check=False)
    assert done.returncode == 1, done
    assert "web/0: backoff (exit code 1)" in done.stderr
    assert "web/1: left as it was" in done.stderr
    assert host.wait_for("web", "backoff")
    assert [host.pid("web", 1), host.pid("web", 2)] == before[1:]
    assert "instances 1, 2 were left as they are" in host.ctl("why", "web").stdout


def test_reloading_by_signal_keeps_the_process(host: Host) -> None:
    script = "trap 'echo again' HUP; echo up; while :; do sleep 0.05; done"
    host.start(
        {
            "web": {
                "command": ["sh", "-c", script],
                "ready": {"log": "up"},
                "reload": {"signal": "HUP"},
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    host.ctl("reload", "web")
    until(lambda: host.lines("web") == ["up", "again"])
    assert host.pid("web") == pid


def test_reloading_by_notify_waits_for_ready(host: Host) -> None:
    said = host.files / "said"
    host.start(
        {
            "web": {
                "command": program("reloads", said),
                "ready": {"notify": True},
                "reload": {"notify": True, "timeout": "30s"},
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    host.ctl("reload", "web")
    assert said.read_text() == "reloaded\n"
    assert host.wait_for("web")["pid"] == pid


def test_a_reload_that_is_never_done_leaves_it_running(host: Host) -> None:
    host.start(
        {
            "web": {
                "command": program("tell", "READY=1"),
                "ready": {"notify": True},
                "reload": {"notify": True, "timeout": "300ms"},
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    done = host.ctl("reload", "web", check=False)
    assert done.returncode == 1
    assert "reload not done within 0.3 s" in done.stderr
    instance = host.wait_for("web")
    assert (instance["pid"], instance["restarts"]) == (pid, 0)
    assert instance["detail"] == "reload not done within 0.3 s"


def test_reloading_by_command(host: Host) -> None:
    gate = host.files / "good"
    host.start(
        {
            "web": {
                "command": program("sleep"),
                "reload": {"exec": ["sh", "-c", f"test -e {gate} || {{ echo no file; exit 3; }}"]},
                "min_uptime": "0s",
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    done = host.ctl("reload", "web", check=False)
    assert done.returncode == 1
    assert "exit code 3: no file" in done.stderr
    assert host.wait_for("web")["detail"] == "reload sh: exit code 3: no file"
    gate.touch()
    host.ctl("reload", "web")
    assert host.pid("web") == pid


def test_a_service_that_declares_no_reload_says_so(host: Host) -> None:
    host.start({"web": {"command": program("sleep"), "min_uptime": "0s"}})
    pid = host.wait_for("web")["pid"]
    done = host.ctl("reload", "web", check=False)
    assert done.returncode != 0
    assert "declares no way to reload" in done.stderr
    assert host.pid("web") == pid


def test_signals_reach_the_main_process(host: Host) -> None:
    script = "trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done"
    host.start({"web": {"command": ["sh", "-c", script], "ready": {"log": "up"}, "instances": 2}})
    pids = host.all_running(["web"])["web"]
    host.ctl("signal", "USR1", "web")
    until(lambda: all(host.lines("web", i) == ["up", "usr1"] for i in (0, 1)))
    assert host.all_running(["web"])["web"] == pids


def test_a_paused_service_goes_on_and_is_not_restarted(host: Host) -> None:
    host.start({"web": {"command": program("sleep"), "min_uptime": "0s"}})
    pid = host.wait_for("web")["pid"]
    host.ctl("pause", "web")
    assert host.status()["web"]["wanted"] == "paused"
    assert host.pid("web") == pid
    host.restart_role("services")
    assert host.wait_for("web")["pid"] == pid
    os.kill(pid, signal.SIGKILL)
    found = host.wait_for("web", "stopped")
    assert found["detail"] == "killed by signal KILL; paused, so not restarted"
    host.restart_role("services")
    host.core_is_up()
    assert host.wait_for("web", "stopped")["pid"] is None
    host.ctl("start", "web")
    assert host.pid("web") != pid


def test_stopped_stays_stopped_over_restarts_of_the_roles(host: Host) -> None:
    host.start({n: {"command": program("sleep", n), "min_uptime": "0s"} for n in ("web", "worker")})
    worker = host.all_running()["worker"]
    host.ctl("stop", "web")
    host.kill("core")
    host.restart_role("services")
    host.start_role("core")
    host.core_is_up()
    assert host.all_running(["worker"])["worker"] == worker
    assert host.wait_for("web", "stopped")["pid"] is None
    assert host.running("web") == []


def test_one_changed_service_of_twenty_is_one_action(host: Host) -> None:
    services = {f"web-{n}": {"command": program("sleep", f"mark-{n}")} for n in range(20)}
    host.start(services, min_uptime="0s")
    before = host.all_running(list(services))
    host.configure(services | {"web-7": {"command": program("sleep", "changed")}}, min_uptime="0s")
    planned = json.loads(host.ctl("plan", "--json").stdout)["actions"]
    assert [(a["service"], a["action"]) for a in planned] == [("web-7", "restart")]
    host.ctl("apply")
    until(lambda: host.running("changed"))
    after = host.all_running(list(services))
    assert {n for n in after if after[n] != before[n]} == {"web-7"}
    assert json.loads(host.ctl("plan", "--json").stdout)["actions"] == []


def test_live_fields_are_changed_without_a_restart(host: Host) -> None:
    web = {"command": program("sleep"), "min_uptime": "0s"}
    host.start({"web": web})
    pid = host.wait_for("web")["pid"]
    host.configure({"web": {**web, "stop": {"signal": "INT", "timeout": "1s"}, "critical": True}})
    host.ctl("apply")
    assert host.wait_for("web")["pid"] == pid
    assert host.snapshot()["web"]["critical"] is True


def test_a_removed_service_is_stopped_and_forgotten(host: Host) -> None:
    web = {"command": program("sleep", "web"), "min_uptime": "0s"}
    old = {"command": program("escape", "mark"), "ready": {"log": "ready"}}
    host.start({"web": web, "old": old})
    before = host.all_running()
    host.configure({"web": web})
    host.ctl("apply")
    until(lambda: "old" not in host.snapshot())
    assert host.running("mark") == []
    assert host.all_running() == {"web": before["web"]}
    assert list((host.run / "services" / "instances").glob("old*")) == []


def test_keeping_the_services_at_a_shutdown(host: Host) -> None:
    host.start({"web": {"command": program("count", 0.01), "min_uptime": "0s"}})
    pid = host.wait_for("web")["pid"]
    host.ctl("shutdown", "--keep-services")
    until(lambda: not alive(host.pids["services"]) and not alive(host.pids["core"]))
    assert alive(pid)
    host.start_role("services")
    host.start_role("core")
    host.core_is_up()
    assert host.wait_for("web")["pid"] == pid
    host.ctl("stop", "web")
    *numbers, last = host.lines("web")
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
    assert last == f"last {len(numbers)}"
