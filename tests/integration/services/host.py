"""One atlasd with a root of its own, its roles as processes that a test starts and kills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from atlasd.control.client import Client
from atlasd.errors import AtlasError
from atlasd.services import logfiles

HERE = Path(__file__).parent
PROGRAM = HERE / "program.py"
REPOSITORY = HERE.parents[2]
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "LANG": "C.UTF-8",
    # What is tested is what lies beside the tests.
    "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}",
}
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable
"""For what other users must be able to run: an environment may lie below somebody's home."""
T = TypeVar("T")
Table = Mapping[str, object]

PATIENCE = float(os.environ.get("ATLASD_TEST_PATIENCE") or 60)
"""Seconds after which a condition is given up; nothing is measured by it."""


def until(
    condition: Callable[[], T | None],
    what: object = "the condition",
    *,
    seconds: float = PATIENCE,
    step: float = 0.02,
) -> T:
    """What the condition gives, as soon as that is true; `what` may be called to say more."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {seconds:g} s: {said}")
        time.sleep(step)


def program(verb: str, *arguments: object) -> list[str]:
    """The command of one of the programs in program.py."""
    return [SYSTEM_PYTHON, "-I", "-S", str(PROGRAM), verb, *map(str, arguments)]


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def toml(value: object) -> str:
    """A value as TOML has it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def alive(pid: int) -> bool:
    """Whether a process exists that has not ended: a zombie has."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was executed with."""
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(word.decode().split("=", 1) for word in words if word)


class Host:
    """Start it, break it, ask it; `close` ends everything that it has ever started."""

    def __init__(self, *, reap: bool = True, cgroup: str = "auto", uid: int | None = None) -> None:
        """`uid`: whom the services role is, if not ourselves; core stays what we are."""
        # Not pytest's folder: the path of a unix socket may have 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="atlasd-", dir="/tmp"))
        self.root.chmod(0o755)
        self.config = self.root / "atlasd.toml"
        self.run = self.root / "run"
        self.files = self.root / "files"
        self.files.mkdir()
        self.files.chmod(0o777)
        self.uid = uid
        if uid is not None:
            os.chown(self.root, uid, uid)
        self.cgroup = cgroup
        self.pids: dict[str, int] = {}
        self.ever: set[int] = set()
        """Every pid that was a role of this host."""
        self.control = Client(str(self.run / "control.sock"))
        self._parent = subprocess.Popen(
            [sys.executable, "-I", "-S", str(HERE / "parent.py"), "reap" if reap else "careless"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    # ------------------------------------------------------------------ configuration

    def configure(
        self, services: Mapping[str, Table], *, host: Table | None = None, **every: object
    ) -> None:
        """Write the configuration; `every` holds for each service that doesn't say otherwise."""
        tables = {"host": {"environment": "production", "cgroup": self.cgroup, **(host or {})}}
        lines = ["[api]", 'listen = "127.0.0.1:0"']
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {toml(v)}" for key, v in table.items())]
        for name, service in services.items():
            lines.append(f"[services.{name}]")
            lines += [f"{key} = {toml(v)}" for key, v in {**every, **service}.items()]
        new = self.config.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.config)

    # ------------------------------------------------------------------ roles

    def start(self, services: Mapping[str, Table] | None = None, **more: Any) -> None:
        """Configure, and start the two roles; returns once core answers."""
        if services is not None:
            self.configure(services, **more)
        self.start_role("services")
        self.start_role("core")
        self.core_is_up()

    def core_is_up(self) -> None:
        """Wait until core answers; an end of it is told at once."""
        pid = self.pids["core"]
        until(lambda: self.core_answers() or not alive(pid), self.logs_of_roles)
        assert self.core_answers(), self.logs_of_roles()

    def core_answers(self) -> bool:
        with contextlib.suppress(AtlasError):
            self.control.call("status")
            return True
        return False

    def start_role(self, role: str, **env: str) -> int:
        """Start `atlasd ROLE`; its pid."""
        argv = [sys.executable, "-m", "atlasd", role, "--root", str(self.root)]
        uid = self.uid if role == "services" else None
        if uid is not None:
            argv[0] = SYSTEM_PYTHON
        if role != "services":
            argv += ["--config", str(self.config)]
        order = {
            "run": argv,
            "log": str(self.root / f"{role}.out"),
            "env": ENVIRONMENT | env,
            "uid": uid,
        }
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(order) + "\n")
        self._parent.stdin.flush()
        pid = int(json.loads(self._parent.stdout.readline())["pid"])
        self.pids[role] = pid
        self.ever.add(pid)
        return pid

    def kill(self, role: str, number: int = signal.SIGKILL) -> None:
        """Send a role a signal, and wait until it has ended."""
        pid = self.pids[role]
        os.kill(pid, number)
        until(lambda: not alive(pid), f"{role} has ended", step=0.001)

    def restart_role(self, role: str) -> int:
        """`kill -9`, and start it again, as systemd would."""
        self.kill(role)
        return self.start_role(role)

    def logs_of_roles(self) -> str:
        """What the roles have said, for a failure's message."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}"
            for path in sorted(self.root.glob("*.out"))
        )

    # ------------------------------------------------------------------ asking

    def ctl(
        self, *arguments: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run atlasctl."""
        done = subprocess.run(
            [sys.executable, "-m", "atlasd.cli.atlasctl", "--root", str(self.root), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=ENVIRONMENT,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"atlasctl {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}\n"
                + self.logs_of_roles()
            )
        return done

    def status(self) -> dict[str, dict[str, Any]]:
        """Every service of core's status, by name."""
        return {s["name"]: s for s in self.control.call("status")["services"]}

    def ask_services(self, op: str, *, seconds: float = PATIENCE, **fields: object) -> Any:
        """The answer of the services role itself, core or no core."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._ask_services(op, fields, deadline)
            except (ConnectionError, FileNotFoundError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{error!r}\n{self.logs_of_roles()}") from error
                time.sleep(0.01)

    def _ask_services(self, op: str, fields: Mapping[str, object], deadline: float) -> Any:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(max(1.0, deadline - time.monotonic()))
            link.connect(str(self.run / "services.sock"))
            link.sendall(json.dumps({"id": 1, "op": op, **fields}).encode() + b"\n")
            buffer = b""
            while not buffer.endswith(b"\n"):
                data = link.recv(1 << 20)
                if not data:
                    raise ConnectionResetError
                buffer += data
        answer = json.loads(buffer)
        assert "ok" in answer, answer
        return answer["ok"]

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Every service as the services role itself has it, by name."""
        return {s["name"]: s for s in self.ask_services("snapshot")["services"]}

    def instance(self, name: str, index: int = 0) -> dict[str, Any]:
        """One instance as the services role has it; an empty one while there is none."""
        found = self.snapshot().get(name, {"instances": []})["instances"]
        return next((i for i in found if i["index"] == index), {"state": "none", "pid": None})

    def pid(self, name: str, index: int = 0) -> int:
        """The pid of a running instance."""
        found = self.instance(name, index)["pid"]
        assert isinstance(found, int), self.instance(name, index)
        return found

    def wait_for(self, name: str, state: str = "running", index: int = 0) -> dict[str, Any]:
        """The instance, once it is in that state."""
        return until(
            lambda: found if (found := self.instance(name, index))["state"] == state else None,
            lambda: f"{name}.{index} {state}: {self.instance(name, index)}\n{self.logs_of_roles()}",
        )

    def all_running(self, names: Sequence[str] | None = None) -> dict[str, list[int]]:
        """The pids of all instances, once everything runs and is ready."""

        def look() -> dict[str, list[int]] | None:
            found = self.snapshot()
            chosen = [found[n] for n in (names if names is not None else found) if n in found]
            if not chosen or len(chosen) < len(names or ()):
                return None
            instances = [i for s in chosen for i in s["instances"]]
            if any(i["state"] != "running" or i["traffic"] != "in" for i in instances):
                return None
            return {s["name"]: [i["pid"] for i in s["instances"]] for s in chosen}

        return until(look, lambda: f"all run: {self.snapshot()}\n{self.logs_of_roles()}", step=0.05)

    def lines(self, name: str, index: int = 0, stream: str | None = "stdout") -> list[str]:
        """What an instance wrote, from its log files."""
        return [
            line.message
            for line in logfiles.query(
                str(self.root / "log"), name, instances=[index], stream=stream
            )
        ]

    def crashes(self, name: str) -> list[dict[str, Any]]:
        """The crash records of a service."""
        path = self.root / "state" / "crashes" / f"{name}.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What core's journal has of a service."""
        done = self.ctl("events", "--json")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return [e for e in found if e.get("service") == name]

    # ------------------------------------------------------------------ processes

    def left(self) -> list[psutil.Process]:
        """Everybody alive below this host but the roles themselves."""
        found = []
        for process in psutil.Process(self._parent.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid not in self.ever and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def commands(self) -> dict[int, str]:
        """The command lines of all that `left` finds, by pid."""
        found = {}
        for process in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[process.pid] = " ".join(process.cmdline())
        return found

    def running(self, mark: str) -> list[int]:
        """The pids of those whose command line holds the word `mark`."""
        return [pid for pid, line in self.commands().items() if mark in line.split()]

    def cgroup_folders(self) -> Iterator[Path]:
        """The folders that hold the cgroups of this host's services."""
        with contextlib.suppress(OSError, ValueError):
            known = json.loads((self.run / "services" / "cgroup.json").read_text())
            yield from (Path(p) for p in (known["v2"], *known["v1"].values()))

    def close(self) -> None:
        """End everything; nothing of it is left on the machine."""
        folders = list(self.cgroup_folders())
        with contextlib.suppress(BrokenPipeError):
            self._parent.communicate(timeout=60)
        for top in folders:
            for folder in sorted(top.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        shutil.rmtree(self.root, ignore_errors=True)


class Moments:
    """Random moments that can be had again: the seed is printed, and may be given."""

    def __init__(self) -> None:
        self.seed = int(os.environ.get("ATLASD_TEST_SEED") or random.SystemRandom().getrandbits(32))
        self.random = random.Random(self.seed)
        print(f"ATLASD_TEST_SEED={self.seed}")

    def pause(self, longest: float) -> None:
        """Let a random time pass."""
        select.select([], [], [], self.random.uniform(0, longest))
