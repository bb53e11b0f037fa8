"""A real systemd as PID 1 of fresh namespaces, on a throw-away overlay of the host's root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_SYSTEMD = (Path("/usr/lib/systemd/systemd"), Path("/lib/systemd/systemd"))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_LIFE = "1800"
"""Seconds after which the whole machine is killed, whatever became of those who started it."""


def why_unsupported() -> str | None:
    """Say what this host lacks to boot a machine, or None when nothing is missing."""
    if os.geteuid() != 0:
        return "needs root (for namespaces, mounts and cgroups)"
    if not any(path.exists() for path in _SYSTEMD):
        return "needs systemd (package systemd)"
    for tool in ("unshare", "nsenter", "setpriv", "timeout", "systemctl"):
        if shutil.which(tool) is None:
            return f"needs {tool} (package util-linux, coreutils or systemd)"
    trial = subprocess.run(
        ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "true"],
        capture_output=True,
        check=False,
    )
    if trial.returncode != 0:
        return f"this host grants no namespaces: {trial.stderr.decode().strip()}"
    return None


def _hierarchies() -> Iterator[tuple[Path, str]]:
    """Yield (this process's own cgroup, name to mount it by) for each hierarchy of the host.

    The name is `pure` where cgroup v2 stands alone, `unified` where it stands beside version 1.
    """
    mounts: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        place = Path(left.split(" ")[4])
        if kind == "cgroup2":
            mounts.setdefault("", place)
        elif kind == "cgroup":
            for option in options.split(","):
                mounts.setdefault(option, place)
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    for line in lines:
        number, controllers, path = line.split(":", 2)
        v2 = number == "0"
        root = mounts.get("" if v2 else controllers.split(",")[0])
        if root is None:
            continue
        name = ("pure" if len(lines) == 1 else "unified") if v2 else controllers
        yield root / path.lstrip("/"), name


class Machine:
    """One booted systemd; `root` is its file system, writable from outside."""

    def __init__(self, leader: int, boot: subprocess.Popen[bytes], cgroups: Sequence[Path]) -> None:
        self.leader = leader
        self.root = Path(f"/proc/{leader}/root")
        self._boot = boot
        self._cgroups = cgroups

    def run(
        self, *command: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root, in a cgroup beside systemd's own; output is captured.

        Raises AssertionError with the command's output when `check` is set and it fails.
        """
        done = subprocess.run(
            [*self._enter(), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def start(self, *command: str, **pipes: int) -> subprocess.Popen[bytes]:
        """Start a command inside as root and leave it running; the caller ends it."""
        return subprocess.Popen([*self._enter(), *command], **pipes)  # type: ignore[call-overload,no-any-return]

    def _enter(self) -> list[str]:
        # A process of the host's in the machine's root cgroup would show there as PID 0, over which
        # systemctl stumbles; so each command goes to a cgroup of its own first.
        into_cgroup = (
            "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do d=${d%/}; "
            '[ -f "$d/cgroup.procs" ] || continue; '
            'mkdir -p "$d/outside"; '
            # cpuset starts empty in version 1, and takes nobody until it is filled
            '[ ! -f "$d/outside/cpuset.cpus" ] || [ -f "$d/cgroup.controllers" ] || '
            '{ cat "$d/cpuset.cpus" > "$d/outside/cpuset.cpus"; '
            'cat "$d/cpuset.mems" > "$d/outside/cpuset.mems"; }; '
            'echo 0 > "$d/outside/cgroup.procs"; done; cd / && exec "$@"'
        )
        environment = [f"PATH={_PATH}", "LANG=C.UTF-8", "HOME=/root", "SYSTEMD_PAGER=", "TERM=dumb"]
        return [
            *("nsenter", "-t", str(self.leader), "-m", "-p", "-u", "-i", "-n", "-C"),
            *("env", "-i", *environment, "sh", "-c", into_cgroup, "sh"),
        ]

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Write a file inside, with its folders, and return its path as seen from outside."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target

    def show(self, unit: str, key: str) -> str:
        """Read one property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", key, unit).stdout.strip()

    def journal(self, unit: str) -> str:
        """Read what a unit has logged, for messages of failed assertions."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, check=False).stdout

    def power_off(self) -> None:
        """Shut down in order, by force after twenty seconds, and remove the cgroups."""
        if self._boot.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                # what systemd takes for "power off now" (systemd(1), SIGRTMIN+4)
                os.kill(self.leader, signal.SIGRTMIN + 4)
            try:
                self._boot.wait(20)
            except subprocess.TimeoutExpired:
                self._boot.kill()
                self._boot.wait(20)
        _remove(self._cgroups)


def _remove(cgroups: Sequence[Path]) -> None:
    for cgroup in cgroups:
        for _ in range(100):
            for folder, _, _ in os.walk(cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if not cgroup.exists():
                break
            time.sleep(0.02)


def boot(
    scratch: Path,
    *,
    binds: Mapping[Path, str] | None = None,
    writable: Mapping[Path, str] | None = None,
    timeout: float = 60,
) -> Machine:
    """Boot a machine and wait until it is up.

    `binds` are folders of the host's mounted read-only inside, `writable` such that both write to.

    Raises RuntimeError with the end of the console's output when it does not come up in time.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    cgroups: list[tuple[Path, str]] = []
    for own, name in _hierarchies():
        ours = own / f"machine.{os.getpid()}.{time.monotonic_ns()}"
        ours.mkdir()
        if name == "cpuset":
            for part in ("cpuset.cpus", "cpuset.mems"):
                (ours / part).write_text((own / part).read_text())
            (ours / "cgroup.clone_children").write_text("1")
        cgroups.append((ours, name))
    console = scratch.with_suffix(".console")
    with console.open("wb") as output:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *("timeout", "--foreground", "-s", "KILL", _LONGEST_LIFE),
                *("unshare", "--mount", "--uts", "--ipc", "--net", "--pid"),
                *("--fork", "--kill-child=KILL", "sh", str(_HERE / "pid1.sh")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={
                "PATH": _PATH,
                "LANG": "C.UTF-8",
                "M_SCRATCH": str(scratch),
                "M_CGROUPS": _pairs(dict(cgroups)),
                "M_BINDS": _pairs(binds),
                "M_WRITABLE": _pairs(writable),
            },
        )
    places = [path for path, _ in cgroups]
    deadline = time.monotonic() + timeout
    state = "no process"
    while time.monotonic() < deadline and process.poll() is None:
        leader = _leader(process.pid)
        if leader is not None:
            machine = Machine(leader, process, places)
            state = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in ("running", "degraded"):
                return machine
        time.sleep(0.05)
    process.kill()
    process.wait()
    _remove(places)
    raise RuntimeError(f"no boot (state: {state}):\n{console.read_text()[-2000:]}")


def _pairs(pairs: Mapping[Path, str] | None) -> str:
    return " ".join(f"{source}={to}" for source, to in (pairs or {}).items())


def _leader(process: int) -> int | None:
    """Find the machine's PID 1 below timeout and unshare, once it has become systemd."""
    for _ in range(2):
        try:
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        except FileNotFoundError:
            return None
        if not children:
            return None
        process = int(children[0])
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
    except FileNotFoundError:
        return None
    return process if name == "systemd" else None
