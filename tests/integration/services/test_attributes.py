"""What a program is started with, asserted of the real process; and limits that really bite."""

import os
import pwd
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.services.host import Host, environment, program, until

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status as a table."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}


def signals(mask: str) -> set[int]:
    """The signals in a mask of /proc, without the two that glibc keeps to itself (32 and 33).

    Nobody can change those through it, so they are as whoever started the tests has left them.
    """
    return {n for n in signal.valid_signals() if int(mask, 16) >> (n - 1) & 1}


def limit(pid: int, name: str) -> tuple[str, str]:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith(name):
            soft, hard = line[len(name) :].split()[:2]
            return soft, hard
    raise AssertionError(name)


@needs_root
@pytest.mark.parametrize("cgroup", ["auto", "off"])
def test_everything_at_once(new_host: Callable[..., Host], cgroup: str) -> None:
    host = new_host(cgroup=cgroup)
    env_file = host.root / "web.env"
    env_file.write_text("# a comment\nFROM_FILE=from the file\nBOTH=from the file\n")
    cwd = host.files / "0"
    cwd.mkdir()
    host.start(
        {
            "web": {
                "command": ["sleep", "100{instance}"],
                "user": "daemon",
                "group": "adm",
                "umask": "0027",
                "nice": 7,
                "no_new_privs": True,
                "cwd": str(host.files / "{instance}"),
                "env": {"SHOP": "index {instance}", "BOTH": "from the table"},
                "env_file": [str(env_file), "-/no/such/file"],
                "limits": {
                    "nofile": 1234,
                    "nproc": 777,
                    "core": "0B",
                    "fsize": "1GiB",
                    "stack": "4MiB",
                    "address_space": "4GiB",
                    "memlock": "64KiB",
                },
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    found = status(pid)
    account = pwd.getpwnam("daemon")
    adm = str(psutil.Process(pid).gids().real)
    assert found["Uid"].split() == [str(account.pw_uid)] * 4
    assert found["Gid"].split() == [adm] * 4
    assert adm != str(account.pw_gid)
    assert set(found["Groups"].split()) == set(map(str, os.getgrouplist("daemon", int(adm))))
    assert found["Umask"] == "0027"
    assert found["NoNewPrivs"] == "1"
    assert signals(found["SigBlk"]) == signals(found["SigIgn"]) == set()
    process = psutil.Process(pid)
    assert process.nice() == 7
    assert process.cwd() == str(cwd)
    assert process.cmdline() == ["sleep", "1000"]
    assert os.getsid(pid) == pid
    env = environment(pid)
    assert env["SHOP"] == "index 0"
    assert env["FROM_FILE"] == "from the file"
    assert env["BOTH"] == "from the table"
    assert (env["USER"], env["LOGNAME"], env["HOME"]) == ("daemon", "daemon", account.pw_dir)
    assert (env["ATLASD_SERVICE"], env["ATLASD_INSTANCE"]) == ("web", "0")
    assert env["INVOCATION_ID"] == host.instance("web")["invocation"]
    assert not {n for n in env if n.startswith(("PYTHON", "NOTIFY", "LISTEN", "WATCHDOG"))}
    assert limit(pid, "Max open files") == ("1234", "1234")
    assert limit(pid, "Max processes") == ("777", "777")
    assert limit(pid, "Max core file size") == ("0", "0")
    assert limit(pid, "Max file size") == (str(1 << 30),) * 2
    assert limit(pid, "Max stack size") == (str(4 << 20),) * 2
    assert limit(pid, "Max address space") == (str(4 << 30),) * 2
    assert limit(pid, "Max locked memory") == ("65536",) * 2


def test_nothing_of_the_role_comes_along(host: Host) -> None:
    """With nothing declared: three descriptors, our own limits, no signal blocked or ignored."""
    host.start(
        {"web": {"command": program("environment")}, "plain": {"command": ["sleep", "1000"]}}
    )
    host.wait_for("web")
    descriptors = {line.split()[1] for line in host.lines("web") if line.startswith("fd ")}
    assert descriptors - {"3"} == {"0", "1", "2"}  # 3 is the listing itself
    pid = host.wait_for("plain")["pid"]
    assert signals(status(pid)["SigBlk"]) == signals(status(pid)["SigIgn"]) == set()
    assert limit(pid, "Max open files") == limit(os.getpid(), "Max open files")
    # The role itself may have more of them, but what uses select() must not.
    assert limit(host.pids["services"], "Max open files")[0] == limit(pid, "Max open files")[1]


def test_what_stands_in_the_way_of_a_start_is_told(host: Host) -> None:
    plain = host.files / "plain"
    plain.write_text("echo\n")
    script = host.files / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    late: dict[str, Any] = {"backoff": {"base": "1h", "cap": "1h"}}
    services: dict[str, tuple[dict[str, object], str]] = {
        "missing": ({"command": ["/no/such/program"]}, "no such program: /no/such/program"),
        "unknown": ({"command": ["no-such-program"]}, "no such program: no-such-program"),
        "plain": ({"command": [str(plain)]}, f"not an executable file: {plain}"),
        "script": ({"command": [str(script)]}, "the interpreter in its #! line is missing"),
        "nowhere": ({"command": ["true"], "cwd": "/no/such/folder"}, "/no/such/folder"),
    }
    host.start({name: {**table, **late} for name, (table, _) in services.items()})
    for name, (_, text) in services.items():
        web = host.wait_for(name, "backoff")
        assert web["reason"] == "spawn", name
        assert text in web["detail"], name
        assert text in host.ctl("why", name).stdout, name


# ---------------------------------------------------------------------- limits of the cgroup


@pytest.fixture
def limited(host: Host) -> Host:
    """A host, if it has cgroups with a memory and a pids controller."""
    host.start({"probe": {"command": program("sleep"), "limits": {"memory": "1GiB", "tasks": 50}}})
    host.wait_for("probe")
    reduced = [e["detail"] for e in host.events("probe") if "not applied" in e.get("detail", "")]
    if reduced:
        pytest.skip(f"no such controllers here: {reduced[0]}")
    return host


def apply(host: Host, services: dict[str, dict[str, object]]) -> None:
    host.configure(services)
    host.ctl("apply", check=False)


def test_who_eats_more_memory_than_allowed_is_known_to_have_run_out_of_it(limited: Host) -> None:
    host = limited
    web = {"command": program("eat", 300), "limits": {"memory": "64MiB"}, "min_uptime": "0s"}
    apply(host, {"web": {**web, "backoff": {"base": "1h", "cap": "1h"}}})
    until(lambda: len(host.crashes("web")) == 2)
    found = host.wait_for("web", "backoff")
    assert found["reason"] == "oom-kill"
    record = host.crashes("web")[0]
    assert (record["cause"], record["signal"], record["oom"]) == ("oom-kill", "KILL", True)
    assert record["detail"] == "killed by the kernel: out of memory"
    assert host.snapshot()["web"]["oom_kills_total"] == 2
    assert "limits.memory" in host.ctl("why", "web").stdout


def test_a_child_that_runs_out_of_memory_is_no_oom_of_a_later_end(limited: Host) -> None:
    """Only the main process's own end by the kernel counts."""
    host = limited
    script = " ".join(program("eat", 300)) + "; echo survived; exec sleep 1000"
    apply(
        host,
        {"web": {"command": ["sh", "-c", script], "limits": {"memory": "64MiB"}}},
    )
    until(lambda: host.lines("web") == ["survived"])
    os.kill(host.pid("web"), signal.SIGTERM)
    until(lambda: host.crashes("web"))
    assert host.crashes("web")[0]["cause"] == "signal"


def test_no_more_tasks_than_allowed(limited: Host) -> None:
    host = limited
    apply(host, {"web": {"command": program("crowd", 100), "limits": {"tasks": 20}}})
    host.wait_for("web")
    until(lambda: host.lines("web"))
    assert host.lines("web") == ["started 19"]
    assert host.instance("web")["tasks"] == 20
    # Live: a higher limit holds for the process that runs.
    pid = host.pid("web")
    apply(host, {"web": {"command": program("crowd", 100), "limits": {"tasks": 200}}})
    assert host.pid("web") == pid


def test_limits_hold_after_an_adoption_too(limited: Host) -> None:
    host = limited
    gate = host.files / "gate"
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done; exec " + " ".join(program("eat", 300))
    apply(
        host,
        {
            "web": {
                "command": ["sh", "-c", script],
                "limits": {"memory": "64MiB"},
                "backoff": {"base": "1h", "cap": "1h"},
            }
        },
    )
    pid = host.wait_for("web")["pid"]
    host.restart_role("services")
    assert host.wait_for("web")["pid"] == pid
    gate.touch()
    until(lambda: host.crashes("web"))
    assert host.crashes("web")[0]["cause"] == "oom-kill"


def test_what_an_instance_uses_is_counted(limited: Host) -> None:
    host = limited
    apply(host, {"web": {"command": program("eat", 50), "limits": {"memory": "256MiB"}}})
    until(lambda: (host.instance("web").get("memory_bytes") or 0) > 50 << 20)
    found = host.instance("web")
    assert found["memory_bytes"] < 256 << 20
    assert found["cpu_seconds"] > 0
    assert found["tasks"] == 1
