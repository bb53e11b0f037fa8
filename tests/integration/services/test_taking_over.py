"""What happens while the services role is dead is neither lost nor forgotten."""

import os

from tests.integration.services.host import Host, program, until


def test_who_said_that_it_is_ready_while_nobody_was_there_is_ready(host: Host) -> None:
    gate, done = host.files / "gate", host.files / "done"
    script = f"""
import os, socket, time
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1\\nSTATUS=said in between", os.environ["NOTIFY_SOCKET"])
open({str(done)!r}, "w").close()
time.sleep(1000)
"""
    command = ["/usr/bin/env", "python3", "-I", "-c", script]
    host.start(
        {"web": {"command": command, "ready": {"notify": True, "timeout": "600s"}}, "other": SLEEP}
    )
    pid = host.wait_for("web", "starting")["pid"]
    host.kill("services")
    gate.touch()
    until(done.exists)
    host.start_role("services")
    assert host.wait_for("web")["pid"] == pid
    assert host.instance("web")["restarts"] == 0


SLEEP = {"command": program("sleep")}


def test_a_service_that_is_being_removed_is_not_left_behind(host: Host) -> None:
    """Killed between the new target and the end of what it doesn't name any more."""
    host.start({"old": {"command": program("stubborn"), "stop": {"timeout": "300s"}}, "web": SLEEP})
    pid = host.wait_for("old")["pid"]
    until(lambda: host.lines("old"), "it ignores TERM by now")
    host.configure({"web": SLEEP})
    host.ctl("apply", "--no-wait", check=False)
    until(lambda: host.snapshot()["old"]["instances"][0]["state"] == "stopping")
    host.kill("services")
    host.kill("core")
    host.start_role("services")
    old = until(lambda: host.snapshot().get("old"))
    assert old["instances"][0]["state"] == "stopping"
    assert old["instances"][0]["pid"] == pid
    os.kill(pid, 9)
    until(lambda: "old" not in host.snapshot())
