"""The services role dies between intent and outcome: nothing runs twice, all runs in the end."""

import time
from collections import Counter

from tests.integration.services.host import Host, Moments, program, until

SERVICES = 20
TRIALS = 15


def test_killed_while_it_starts_twenty_services(host: Host, moments: Moments) -> None:
    names = [f"web-{n}" for n in range(SERVICES)]
    host.start({name: {"command": program("sleep", f"mark-{name}")} for name in names})
    host.all_running(names)
    for trial in range(TRIALS):
        # Core may still be on its way to the role that has just come up.
        until(lambda: host.ctl("stop", "--all", "--no-wait", check=False).returncode == 0)
        until(lambda: not host.left(), host.left)
        for name in names:
            host.wait_for(name, "stopped")
        until(lambda: host.ctl("start", "--all", "--no-wait", check=False).returncode == 0)
        # Half of the times while it starts them, the other half while it adopts them.
        moments.pause(0.05)
        host.restart_role("services")
        if trial % 2:
            moments.pause(0.2)
            host.restart_role("services")
        pids = host.all_running(names)
        found = Counter(line.split()[-1] for line in host.commands().values())
        assert found == Counter(f"mark-{name}" for name in names), f"trial {trial}"
        for name in names:
            assert host.running(f"mark-{name}") == pids[name]


def test_killed_while_it_restarts_crashing_services(host: Host, moments: Moments) -> None:
    """Each ends by itself again and again; however often the role dies, each runs at most once."""
    names = [f"web-{n}" for n in range(8)]
    host.start(
        {name: {"command": ["sh", "-c", f"sleep 0.3; : mark-{name}; exit 1"]} for name in names},
        backoff={"base": "50ms", "cap": "100ms"},
        min_uptime="0s",
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        moments.pause(0.5)
        host.restart_role("services")
        for name in names:
            shells = [line for line in host.commands().values() if f"mark-{name};" in line]
            assert len(shells) <= 1, shells
    for name in names:
        until(lambda name=name: host.instance(name)["restarts"] > 3)  # type: ignore[misc]


def test_killed_while_a_hook_prepares_the_start(host: Host) -> None:
    """What a hook left behind is no instance, and the start is begun anew."""
    gate, said = host.files / "gate", host.files / "said"
    hook = f"echo begin >> {said}; while [ ! -e {gate} ]; do sleep 0.05; done; echo end >> {said}"
    host.start(
        {
            "web": {
                "command": program("sleep", "mark"),
                "pre_start": [{"command": f"sh -c '{hook}'"}],
            }
        }
    )
    until(lambda: said.exists() and said.read_text() == "begin\n")
    assert host.instance("web")["state"] == "starting"
    host.restart_role("services")
    until(lambda: said.read_text().count("begin") == 2, lambda: host.instance("web"))
    assert host.instance("web")["state"] == "starting"
    hooks = [line for line in host.commands().values() if line.startswith("sh -c")]
    assert len(hooks) == 1, f"the hook runs twice at once: {hooks}"
    gate.touch()
    running = host.wait_for("web")
    assert host.running("mark") == [running["pid"]]
    assert said.read_text() == "begin\nbegin\nend\n"


def test_killed_while_a_hook_prepares_the_stop(host: Host) -> None:
    gate, said = host.files / "gate", host.files / "said"
    hook = f"echo begin >> {said}; while [ ! -e {gate} ]; do sleep 0.05; done; echo end >> {said}"
    host.start(
        {
            "web": {
                "command": program("sleep", "mark"),
                "pre_stop": [{"command": f"sh -c '{hook}'"}],
                "min_uptime": "0s",
            }
        }
    )
    pid = host.wait_for("web")["pid"]
    host.ctl("stop", "web", "--no-wait")
    until(lambda: said.exists() and said.read_text() == "begin\n")
    host.restart_role("services")
    until(lambda: said.read_text() == "begin\nbegin\n", said.read_text)
    found = host.instance("web")
    assert (found["state"], found["pid"]) == ("stopping", pid)
    hooks = [line for line in host.commands().values() if line.startswith("sh -c")]
    assert len(hooks) == 1, f"the hook runs twice at once: {hooks}"
    gate.touch()
    host.wait_for("web", "stopped")
    assert said.read_text() == "begin\nbegin\nend\n"
    assert host.left() == []
