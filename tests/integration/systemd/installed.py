"""atlasd in a machine: its units, its configuration, and what can be asked of it from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.integration.systemd.machine import Machine

ROLES = ("services", "core", "monitoring", "api")
SERVICES = ("counter", "echo", "sleeper")

_CONFIGURATION = """
[host]
environment = "production"

[services.counter]
command = ["/usr/local/bin/counter"]

[services.echo]
command = ["/opt/atlasd/bin/python", "/usr/local/bin/echo-server"]
sockets.echo = "tcp://127.0.0.1:7007"

[services.sleeper]
command = ["/bin/sleep", "infinity"]
instances = 2
"""

# Numbers its lines, so that a lost or doubled one shows.
_COUNTER = """#!/bin/sh
n=0
while :; do n=$((n+1)); echo "line $n"; sleep 0.02; done
"""

# Answers on the socket that it was started with.
_ECHO = """
import os, socket
listener = socket.socket(fileno=3)
assert os.environ["LISTEN_FDNAMES"] == "echo"
while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(str(os.getpid()).encode())
"""

_ASK = """
import socket
with socket.create_connection(("127.0.0.1", 7007), 10) as s:
    print(s.recv(100).decode())
"""


class Installed:
    """atlasd under systemd in a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @classmethod
    def install(cls, machine: Machine, units: Path) -> Installed:
        """Put the units where an operator would, and start `atlas.target`."""
        for path in [*units.glob("*.service"), *units.glob("*.target")]:
            machine.write(f"/etc/systemd/system/{path.name}", path.read_text())
        machine.write("/etc/sysusers.d/atlas.conf", (units / "atlas.sysusers").read_text())
        machine.write("/etc/tmpfiles.d/atlas.conf", (units / "atlas.tmpfiles").read_text())
        machine.run("systemd-sysusers", "/etc/sysusers.d/atlas.conf")
        machine.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/atlas.conf")
        machine.write("/usr/local/bin/counter", _COUNTER, 0o755)
        machine.write("/usr/local/bin/echo-server", _ECHO)
        machine.write("/usr/local/bin/ask", _ASK)
        machine.write("/etc/atlasd/atlasd.toml", _CONFIGURATION)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "atlas.target", *(unit(role) for role in ROLES))
        machine.run("systemctl", "start", "atlas.target", timeout=120)
        return cls(machine)

    def settle(self) -> None:
        """Wait until all is up; starts what has been stopped."""
        # A start that fails is shown below, with what the units have said.
        units = [unit(role) for role in ROLES]
        self.machine.run("systemctl", "start", *units, check=False, timeout=120)
        self.wait_for(self._all_up, "every unit active and every service running")

    def _all_up(self) -> bool:
        return all(self.active(role) for role in ROLES) and all(
            instance["state"] == "running"
            for instances in self.instances().values()
            for instance in instances
        )

    def active(self, role: str) -> bool:
        """Say whether a role's unit is active, which for Type=notify means that it said READY."""
        return self.machine.show(unit(role), "ActiveState") == "active"

    def main_pid(self, role: str) -> int:
        """Give the PID of a role as the machine sees it, 0 while it is down."""
        return int(self.machine.show(unit(role), "MainPID"))

    def kill(self, role: str, signal: str) -> int:
        """Send a signal to a role's main process and return the PID it had."""
        pid = self.main_pid(role)
        assert pid != 0
        self.machine.run("kill", f"-{signal}", str(pid))
        return pid

    def wait_for_successor(self, role: str, old: int) -> None:
        """Wait until a role is active again under another PID."""
        self.wait_for(
            lambda: self.active(role) and self.main_pid(role) not in (0, old),
            f"{unit(role)} is active again, and no longer PID {old}",
        )

    def status(self) -> Mapping[str, Any] | None:
        """Give what `atlasctl status --json` prints, None while core can't be asked."""
        done = self.machine.run("/opt/atlasd/bin/atlasctl", "status", "--json", check=False)
        if done.returncode != 0:
            return None
        answer: Mapping[str, Any] = json.loads(done.stdout)
        return answer

    def instances(self) -> dict[str, list[dict[str, Any]]]:
        """Give the instances of each service, waiting until core answers and knows all services."""
        found: dict[str, list[dict[str, Any]]] = {}

        def answered() -> bool:
            status = self.status()
            if status is None:
                return False
            found.update({s["name"]: s["instances"] for s in status["services"]})
            return set(found) == set(SERVICES)

        self.wait_for(answered, "atlasctl status names every service")
        return found

    def pids(self) -> dict[str, list[int]]:
        """Give the PIDs of each service's instances, waiting until all are running."""
        self.wait_for(self._all_up, "every service running")
        return {
            name: [instance["pid"] for instance in instances]
            for name, instances in self.instances().items()
        }

    def ask_echo(self) -> int:
        """Connect to the echo service's socket and return the PID that answered."""
        answer = self.machine.run("/opt/atlasd/bin/python", "/usr/local/bin/ask")
        return int(answer.stdout)

    def counted(self) -> list[int]:
        """Give the numbers that the counter service's log holds, in the order of the log."""
        folder = self.machine.root / "var/log/atlasd/counter"
        text = "".join(path.read_text() for path in sorted(folder.glob("0.log*")))
        # A counter that was itself restarted begins anew at 1: only the last run counts.
        numbers = [int(line.rsplit(" ", 1)[1]) for line in text.splitlines() if " line " in line]
        last_start = len(numbers) - 1 - numbers[::-1].index(1)
        return numbers[last_start:]

    def drop_in(self, role: str, text: str) -> None:
        """Lay a drop-in over a role's unit until the test is over."""
        self.machine.write(f"/etc/systemd/system/{unit(role)}.d/test.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def forget_drop_ins(self) -> None:
        """Take away what `drop_in` has laid, and give the units their own settings back."""
        changed = []
        for role in ROLES:
            path = self.machine.root / f"etc/systemd/system/{unit(role)}.d/test.conf"
            if path.exists():
                path.unlink()
                changed.append(unit(role))
        if changed:
            self.machine.run("systemctl", "daemon-reload")
            self.machine.run("systemctl", "restart", *changed, check=False, timeout=120)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait for a condition; what the units have logged goes with the failure."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {unit(role)}\n{self.machine.journal(unit(role))[-1500:]}"
                    for role in ROLES
                )
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{logs}")
            time.sleep(0.05)


def unit(role: str) -> str:
    """Name the unit of a role."""
    return f"atlas-{role}.service"
