"""Real daemons for tests: one folder each, ended at the end whatever has become of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from atlasd.control.client import Client
from atlasd.errors import AtlasError
from atlasd.paths import Paths, find

PATIENCE = 60.0
"""Seconds that anything may take on a busy machine before a test gives it up."""


def until(condition: Callable[[], Any], what: str, *, patience: float = PATIENCE) -> Any:
    """What `condition` gives once it is true; fails the test when that takes too long."""
    deadline = time.monotonic() + patience
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
        except (AtlasError, OSError, KeyError, IndexError, TypeError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.02)
    raise AssertionError(f"waited {patience:g} s for {what}; at last: {last!r}")


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Atlas:
    """One root folder and the roles that were started on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: Paths = find(root=str(root))
        Path(self.paths.etc).mkdir(parents=True)
        self.client = Client(self.paths.control_socket, timeout=30.0)
        self.processes: list[subprocess.Popen[bytes]] = []

    def configure(self, text: str) -> None:
        """Write the configuration; the api takes any free port."""
        head = "" if "[api]" in text else '[api]\nlisten = "127.0.0.1:0"\n'
        Path(self.paths.etc, "atlasd.toml").write_text(head + text)

    def start(self, role: str = "run", **env: str) -> "subprocess.Popen[bytes]":
        """Start a role; its output goes to a file beside the others.

        It does not follow its files unless `env` says so: most tests say themselves when.
        """
        with (self.root / f"{role}.out").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "atlasd", role, "--root", str(self.root)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={
                    **os.environ,
                    "ATLAS_TEST_ROOT": str(self.root),
                    "ATLASD__HOST__WATCH_CONFIG": "false",
                    **env,
                },
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def up(self, role: str = "run", **env: str) -> "subprocess.Popen[bytes]":
        """Start a role that serves the control socket, and wait until all that is wanted runs."""
        process = self.start(role, **env)
        self.wait_settled(process)
        return process

    def wait_settled(self, process: "subprocess.Popen[bytes] | None" = None) -> None:
        """Wait until core answers and what is wanted has been handed over."""

        def settled() -> bool:
            if process is not None and process.poll() is not None:
                raise AssertionError(f"it has ended: {self.output()}")
            checks = self.client.call("health")["checks"]
            return bool(
                checks["atlasd:adopted"][0]["status"] == "pass"
                and checks["atlasd:services-link"][0]["status"] == "pass"
            )

        until(settled, f"a settled daemon\n{self.output()}")

    def output(self) -> str:
        """What the roles have written themselves."""
        files = [*self.root.glob("*.out"), Path(self.paths.log, "services-role.log")]
        return "\n".join(f"--- {f.name}\n{f.read_text()}" for f in files if f.exists())

    def service(self, name: str) -> dict[str, Any]:
        """One service of the status."""
        services = self.client.call("status")["services"]
        return next(service for service in services if service["name"] == name)

    def pids(self, name: str) -> list[int]:
        """The processes of a service's running instances."""
        return [i["pid"] for i in self.service(name)["instances"] if i["pid"] is not None]

    def wait_state(self, name: str, *states: str) -> dict[str, Any]:
        """The service, once each of its instances is in one of the states."""

        def there() -> dict[str, Any] | None:
            service = self.service(name)
            found = [instance["state"] for instance in service["instances"]]
            return service if found and all(state in states for state in found) else None

        found: dict[str, Any] = until(there, f"{name} to be {' or '.join(states)}")
        return found

    def services_pid(self) -> int:
        """The process of the services role."""
        pid: int = self.client.call("version")["services"]["pid"]
        return pid

    def http(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Status, media type and body of an answer of the api role."""
        address = until(
            lambda: Path(self.paths.run, "api.address").read_text().strip(), "the api's address"
        )
        request = urllib.request.Request(f"http://{address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.headers["Content-Type"], fault.read().decode()

    def http_json(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and decoded body of an answer of the api role."""
        status, _, body = self.http(path, **headers)
        return status, json.loads(body)

    def close(self) -> None:
        """End everything that was started here: the roles, the services role, what it runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        pid = _holder(Path(self.paths.run, "services", "lock"))
        if pid is not None and alive(pid):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while alive(pid) and time.monotonic() < deadline:
                time.sleep(0.02)
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        # A services role that was just being started, and whatever programs are left.
        while left := self.marked():
            for one in left:
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            time.sleep(0.02)

    def marked(self) -> list[int]:
        """Processes whose environment says that they belong to this root."""
        mark = f"ATLAS_TEST_ROOT={self.root}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def _holder(lock: Path) -> int | None:
    try:
        return int(lock.read_text().strip())
    except (OSError, ValueError):
        return None


@contextmanager
def atlas() -> Iterator[Atlas]:
    """A root of its own; a short one, as a socket's path must be."""
    root = Path(tempfile.mkdtemp(prefix="atl-"))
    made = Atlas(root)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)
