"""A cgroup for each instance: to find, limit, account and end everything that it has started."""

import json
import os
import select
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from atlasd.services.cgroup_files import (
    cgroup_of,
    folders,
    inodes,
    keyed,
    move_all,
    processes_in,
    read,
    remove_tree,
    resident,
    threads,
    write,
)
from atlasd.services.cgroup_place import SUPERVISOR, Place, this_place
from atlasd.services.loop import Loop
from atlasd.services.spec import Limits

CPU_PERIOD = 100_000
"""Microseconds over which a limit on processor time is counted."""
LEAST_CPU = 1_000
"""Microseconds: the kernel's own least quota."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What an instance uses; null where this host cannot tell."""

    memory_bytes: int | None = None
    """By the memory controller, page cache included; without it, the processes' resident memory."""
    memory_peak_bytes: int | None = None
    cpu_seconds: float | None = None
    tasks: int | None = None
    """Threads."""


class Cgroup:
    """The cgroup of one instance; made by `Cgroups.create`.

    It lives in the version 2 hierarchy. A limit whose controller belongs to a version 1 hierarchy
    is set by a second folder there, which the program joins before it becomes itself.
    """

    def __init__(self, owner: "Cgroups", name: str) -> None:
        self.path = f"{owner.place.v2}/{name}"
        self._owner = owner
        self._name = name
        self._loop: Loop | None = None
        self._events = -1
        self._cpu_before = 0.0
        self._absent: set[tuple[str, int]] = set()
        self._v1 = {
            controller: folder
            for controller in owner.place.v1
            if os.path.isdir(folder := f"{owner.place.v1[controller]}/{name}")
        }
        self.killed = False
        """Whether `kill` was used on it. Linux (6.18 at least) numbers the kills of a cgroup and
        compares a new process with the number of the cgroup that its parent is in: what is cloned
        into one that was ever killed dies at once. So it is not used again, but made anew."""
        try:
            os.mkdir(self.path)
        except FileExistsError:
            # A predecessor may have killed it; anew, unless what it has started is still in it.
            if not self.populated() and remove_tree(self.path):
                os.mkdir(self.path)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        """For CLONE_INTO_CGROUP."""

    @property
    def join_paths(self) -> tuple[str, ...]:
        """Files to which the program writes `0` before exec, to be in version 1 hierarchies too."""
        return tuple(f"{folder}/cgroup.procs" for folder in self._v1.values())

    @property
    def v1_paths(self) -> Mapping[str, str]:
        """Controller → folder, of the version 1 hierarchies that this cgroup makes use of."""
        return self._v1

    # ------------------------------------------------------------------ limits

    def apply_limits(self, limits: Limits) -> tuple[str, ...]:
        """Set memory, cpu and tasks; names of those that were asked for and could not be set.

        A limit of None is lifted. It holds for running processes too.
        """
        quota = None
        if limits.cpu is not None:
            quota = max(LEAST_CPU, round(limits.cpu * CPU_PERIOD))
        wanted: tuple[tuple[str, str, int | None], ...] = (
            ("memory", "memory", limits.memory),
            ("cpu", "cpu", quota),
            ("tasks", "pids", limits.tasks),
        )
        return tuple(
            name
            for name, controller, value in wanted
            if not self._limit(controller, value) and value is not None
        )

    def _limit(self, controller: str, value: int | None) -> bool:
        name, text = {
            "memory": ("memory.max", "max" if value is None else str(value)),
            "cpu": ("cpu.max", f"{'max' if value is None else value} {CPU_PERIOD}"),
            "pids": ("pids.max", "max" if value is None else str(value)),
        }[controller]
        if value is not None:
            self._owner.enable(controller)
        if write(f"{self.path}/{name}", text):
            return True
        folder = self._v1.get(controller)
        if folder is None:
            folder = self._join_v1(controller) if value is not None else None
        if folder is None:
            return False
        name, text = {
            "memory": ("memory.limit_in_bytes", "-1" if value is None else str(value)),
            "cpu": ("cpu.cfs_quota_us", "-1" if value is None else str(value)),
            "pids": ("pids.max", "max" if value is None else str(value)),
        }[controller]
        if controller == "cpu":
            write(f"{folder}/cpu.cfs_period_us", str(CPU_PERIOD))
        return write(f"{folder}/{name}", text)

    def _join_v1(self, controller: str) -> str | None:
        parent = self._owner.place.v1.get(controller)
        if parent is None:
            return None
        folder = f"{parent}/{self._name}"
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError:
            return None
        self._v1[controller] = folder
        # Those that run already; twice, for what they may start meanwhile.
        for _ in range(2):
            for pid in self.processes():
                write(f"{folder}/cgroup.procs", str(pid))
        return folder

    # ------------------------------------------------------------------ who is in it

    def processes(self) -> tuple[int, ...]:
        """The pids of every process in it and in the cgroups that they have made below it."""
        return processes_in(self.path)

    def populated(self) -> bool:
        """Whether any process is in it or below it; zombies don't count."""
        text = read(f"{self.path}/cgroup.events")
        if text is not None:
            return keyed(text, "populated") != 0
        return bool(self.processes())

    def holds(self, pid: int, pidfd: int | None = None) -> bool:
        """Whether a process is in it or below it.

        With a pidfd also whether one was that has ended since (Linux 6.15), as the sender of a
        notification may have.
        """
        if pidfd is not None:
            known = cgroup_of(pidfd)
            if known is not None:
                return known in inodes(self.path)
        return pid in self.processes()

    def watch_empty(self, loop: Loop, callback: Callable[[], object]) -> None:
        """Call back in the loop whenever its last process has gone, until `unwatch`.

        The state at the time of the call is not told: ask `populated` after it.
        """
        self.unwatch()
        try:
            fd = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return  # removed already: nobody is in it, and nobody will ever leave

        def changed(_mask: int) -> None:
            # Reading it is also what arms the next event.
            text = os.pread(fd, 4096, 0).decode()
            if keyed(text, "populated") == 0:
                callback()

        os.pread(fd, 4096, 0)
        loop.watch(fd, changed, select.EPOLLPRI)
        self._loop, self._events = loop, fd

    def unwatch(self) -> None:
        """Call back no more; harmless when nothing is watched."""
        if self._loop is not None:
            self._loop.unwatch(self._events)
            os.close(self._events)
            self._loop, self._events = None, -1

    def kill(self) -> None:
        """SIGKILL to every process in it and below it, those that are just being born included."""
        if write(f"{self.path}/cgroup.kill", "1"):
            self.killed = True
            return
        # Before Linux 5.14: frozen, they cannot start others while they are killed one by one.
        # Freezing takes its time, so one may still be born in the first pass.
        write(f"{self.path}/cgroup.freeze", "1")
        for _ in range(3):
            for pid in self.processes():
                self._kill_one(pid)
        write(f"{self.path}/cgroup.freeze", "0")

    def _kill_one(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            # Asked again now that the pid is pinned: it may have become another's before.
            if pid in self.processes():
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except OSError:
            pass
        finally:
            os.close(pidfd)

    # ------------------------------------------------------------------ what it uses

    def usage(self, *, peak: bool = True) -> Usage:
        """What its processes use now; processor time since `begin`.

        Without `peak` the most memory they ever used is not looked up: it takes a file more, and
        `status` asks for two hundred of them at once.
        """
        memory = self._number("memory", "memory.current", "memory.usage_in_bytes")
        tasks = self._number("pids", "pids.current", "pids.current")
        if memory is None or tasks is None:
            pids = self.processes()
            memory = memory if memory is not None else sum(resident(pid) for pid in pids)
            tasks = tasks if tasks is not None else sum(threads(pid) for pid in pids)
        cpu = self._cpu()
        return Usage(
            memory_bytes=memory,
            memory_peak_bytes=(
                self._number("memory", "memory.peak", "memory.max_usage_in_bytes") if peak else None
            ),
            cpu_seconds=max(0.0, cpu - self._cpu_before) if cpu is not None else None,
            tasks=tasks,
        )

    def begin(self) -> None:
        """Count processor time from now on: a new process starts in it."""
        self._cpu_before = self._cpu() or 0.0

    def _cpu(self) -> float | None:
        text = read(f"{self.path}/cpu.stat")
        used = keyed(text, "usage_usec") if text is not None else None
        return used / 1_000_000 if used is not None else None

    def oom_kills(self) -> int | None:
        """Processes of it that the kernel has killed for want of memory, since it was made."""
        text = read(f"{self.path}/memory.events")
        if text is None and "memory" in self._v1:
            text = read(f"{self._v1['memory']}/memory.oom_control")
        return keyed(text, "oom_kill") if text is not None else None

    def _number(self, controller: str, v2: str, v1: str) -> int | None:
        # A file that is not there will not be until a controller is handed on.
        looked_for = (v2, self._owner.tries)
        text = None if looked_for in self._absent else read(f"{self.path}/{v2}")
        if text is None:
            self._absent.add(looked_for)
            if controller in self._v1:
                text = read(f"{self._v1[controller]}/{v1}")
        return int(text) if text is not None and text.strip().isdigit() else None

    # ------------------------------------------------------------------ the end

    def remove(self) -> bool:
        """Remove it, and what was made below it; False as long as somebody is in it."""
        gone = remove_tree(self.path)
        for folder in self._v1.values():
            gone = remove_tree(folder) and gone
        if gone:
            self.close()
        return gone

    def close(self) -> None:
        """Give the descriptors back; the cgroup stays."""
        self.unwatch()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Cgroups:
    """The cgroups of all instances, below one place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._tried: set[str] = set()

    @property
    def tries(self) -> int:
        """How often it was tried to hand a controller on: files appear when that works."""
        return len(self._tried)

    def create(self, service: str, index: int) -> Cgroup:
        """The cgroup of an instance: a new one, or the one that is there (of an adopted instance).

        Raises `OSError` when it cannot be made.
        """
        return Cgroup(self, f"{service}.{index}")

    def controllers(self) -> tuple[str, ...]:
        """The controllers of version 2 that could be handed on to the cgroups of services."""
        return tuple((read(f"{os.path.dirname(self.place.v2)}/cgroup.controllers") or "").split())

    def enable(self, controller: str) -> bool:
        """Hand a controller of version 2 on to the cgroups of services; whether it was possible.

        It is done for the first limit that needs it, and not before: a cgroup that hands on
        controllers may hold no process itself, so from then on our own processes sit in a leaf.
        """
        if controller in self._tried:
            return controller in (read(f"{self.place.v2}/cgroup.subtree_control") or "").split()
        self._tried.add(controller)
        parent = os.path.dirname(self.place.v2)
        if controller not in self.controllers():
            return False
        handed_on = (read(f"{parent}/cgroup.subtree_control") or "").split()
        if controller not in handed_on and not write(
            f"{parent}/cgroup.subtree_control", f"+{controller}"
        ):
            move_all(parent, f"{parent}/{SUPERVISOR}")
            if not write(f"{parent}/cgroup.subtree_control", f"+{controller}"):
                return False
        return write(f"{self.place.v2}/cgroup.subtree_control", f"+{controller}")

    def leave(self) -> None:
        """Remove all that is empty, the place itself too: nobody is to be started here any more."""
        self.sweep(frozenset())
        for parent in (self.place.v2, *self.place.v1.values()):
            try:
                os.rmdir(parent)
            except OSError:
                pass  # somebody lives on in it, for a successor to adopt

    def sweep(self, keep: frozenset[str]) -> None:
        """Remove empty cgroups of instances that are no more; `keep` names those that are."""
        for parent in (self.place.v2, *self.place.v1.values()):
            for name in folders(parent):
                if name not in keep:
                    remove_tree(f"{parent}/{name}")


def open_cgroups(policy: str, run_dir: str) -> tuple[Cgroups | None, Place]:
    """The cgroups below the place that this host offers, and that place with what is said of it.

    None where there is no such place. It is remembered in the run directory: a successor that was
    started elsewhere finds the services where they are.
    """
    place = this_place(policy, run_dir)
    memory = f"{run_dir}/cgroup.json"
    if place.v2:
        place = _remembered(memory, place)
        try:
            os.makedirs(place.v2, exist_ok=True)
            with open(f"{memory}.new", "w", encoding="utf-8") as file:
                json.dump({"v2": place.v2, "v1": dict(place.v1)}, file)
            os.replace(f"{memory}.new", memory)
        except OSError as error:
            place = Place(detail=f"cannot make {error.filename}: {error.strerror}")
    return (Cgroups(place) if place.v2 else None), place


def _remembered(memory: str, place: Place) -> Place:
    try:
        with open(memory, encoding="utf-8") as file:
            known = json.load(file)
        v2, v1 = str(known["v2"]), {str(k): str(v) for k, v in known["v1"].items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return place
    if v2 == place.v2 or not folders(v2):
        return place
    return Place(v2=v2, v1=v1, detail=f"{v2} (where a predecessor left services)")
