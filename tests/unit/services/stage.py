"""A supervisor on a stage: its loop has a hand-wound clock, and its processes are played."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from atlasd.clock import HandClock
from atlasd.redaction import Redactor
from atlasd.services import attendants, procinfo, spawn, supervisor, unit
from atlasd.services.cgroup_place import Place
from atlasd.services.commands import Commands, Finished
from atlasd.services.effects import Effects
from atlasd.services.held import Held
from atlasd.services.loop import Loop
from atlasd.services.notifysock import Message, Notification
from atlasd.services.output import Capture
from atlasd.services.requests import Requests
from atlasd.services.restart import Exit
from atlasd.services.spec import (
    Backoff,
    Edge,
    HostPolicy,
    KnownSecret,
    Log,
    Probe,
    Restart,
    ServiceSpec,
)
from atlasd.services.supervisor import Supervisor
from atlasd.services.unit import Unit
from atlasd.states import Wanted

FIRST_PID = 5_000_000
"""Above the kernel's largest: a signal to a played process could reach nobody."""
STEADY = Restart(backoff=Backoff(jitter=0.0))


def spec(name: str, **changes: Any) -> ServiceSpec:
    """A service without jitter."""
    return replace(ServiceSpec(name=name, command=(f"/bin/{name}",), restart=STEADY), **changes)


def needs(*edges: str) -> tuple[Edge, ...]:
    """Edges from words: `requires db:ready`."""
    found = []
    for text in edges:
        kind, _, rest = text.partition(" ")
        service, _, condition = rest.partition(":")
        found.append(Edge(service=service, kind=kind, condition=condition or "started"))
    return tuple(found)


@dataclass
class PlayedCommand:
    """A hook, drain or probe command that ends when the test says so."""

    argv: tuple[str, ...]
    on_exit: Callable[[Finished], object]
    options: Mapping[str, object]
    cancelled: bool = False
    over: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def end(self, code: int = 0, output: bytes = b"") -> None:
        """Let it end; a cancelled one tells nobody."""
        self.over = True
        if not self.cancelled:
            self.on_exit(Finished(code=code, output=output))


class PlayedCommands:
    """Stands in for `Commands`."""

    def __init__(self) -> None:
        self.all: list[PlayedCommand] = []

    def run(
        self, argv: Sequence[str], *, on_exit: Callable[[Finished], object], **options: object
    ) -> PlayedCommand:
        self.all.append(PlayedCommand(tuple(argv), on_exit, options))
        return self.all[-1]

    def pids(self) -> tuple[int, ...]:
        return ()

    def named(self, program: str) -> PlayedCommand:
        """The last one of this program that goes on."""
        return [c for c in self.all if c.argv[0] == program and not c.over][-1]


class PlayedOutput:
    """Stands in for `InstanceOutput`."""

    def __init__(self, effects: object, log: Log, service: str, index: int) -> None:
        self.log = log
        self.known: list[KnownSecret] = []
        self.tapped: Callable[[bytes, str], object] | None = None

    def define(self, log: Log) -> None:
        self.log = log

    def keep_out(self, secrets: Iterable[KnownSecret], *, anew: bool = False) -> None:
        known = [] if anew else self.known
        self.known = [*known, *(secret for secret in secrets if secret not in known)]

    @property
    def redactor(self) -> Redactor:
        return Redactor((secret.name, secret.value) for secret in self.known)

    def own(self, uid: int | None) -> None:
        pass

    def child_ends(self) -> tuple[int, int]:
        return os.open("/dev/null", os.O_WRONLY), os.open("/dev/null", os.O_WRONLY)

    def say(self, data: bytes) -> None:
        pass

    def drain(self) -> None:
        pass

    def tail(self, lines: int, since: float) -> list[str]:
        return ["the last words"]

    def tap(self, callback: Callable[[bytes, str], object] | None) -> None:
        self.tapped = callback

    def close(self) -> None:
        pass


@dataclass
class Played:
    """A process."""

    pid: int
    launch: spawn.Launch
    start_time: int
    pidfds: set[int] = field(default_factory=set)
    got: list[int] = field(default_factory=list)
    """Signals."""
    alive: bool = True
    exit: Exit = field(default_factory=lambda: Exit(code=1))
    session: int = 0
    """Of somebody's child; 0: it leads its own."""


class Stage:
    """What a test speaks to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = HandClock()
        self.reports: list[str] = []
        self.boot = "this boot"
        self._loops: list[Loop] = []
        self.commands = PlayedCommands()
        self.processes: dict[int, Played] = {}
        self.events: list[dict[str, Any]] = []
        self.no_program: set[str] = set()
        """Programs that cannot be started."""
        self.spawn_error: Exception | None = None
        self.folder = folder
        for name in ("run/instances", "run/notify", "state/crashes"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._play(monkeypatch)
        self.successor()

    def successor(self) -> Supervisor:
        """A supervisor; another finds in the run directory what the one before it has left.

        The one before is as dead as `kill -9` leaves it: its loop never turns again.
        """
        self.loop = Loop(self.clock, self.reports.append)
        self._loops.append(self.loop)
        self.held = Held(self.loop)
        self.events.clear()
        self.supervisor = made = Supervisor(
            Effects(
                loop=self.loop,
                run_dir=str(self.folder / "run"),
                state_dir=str(self.folder / "state"),
                boot_id=self.boot,
                null=0,
                capture=cast("Capture", _NoCapture()),
                commands=cast("Commands", self.commands),
                held=self.held,
            )
        )
        self.requests = Requests(made)
        journal = made.journal
        told = journal.add

        def add(kind: str, **fields: Any) -> Any:
            event = told(kind, **fields)
            self.events.append(dict(event))
            return event

        journal.add = add  # type: ignore[method-assign]
        return made

    def _play(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(unit, "InstanceOutput", PlayedOutput)
        patch.setattr(supervisor, "open_cgroups", lambda *_: (None, Place()))
        patch.setattr(spawn, "start", self._start)
        patch.setattr(procinfo, "stat", self._stat)
        patch.setattr(procinfo, "send", self._send)
        patch.setattr(procinfo, "all_processes", self._all)
        patch.setattr(procinfo, "children", lambda _pid: [])
        patch.setattr(procinfo, "group_alive", self._group_lives)
        patch.setattr(procinfo, "open_proven", self._open_proven)
        patch.setattr(procinfo, "exit_of", self._exit_of)
        patch.setattr(procinfo, "environment", self._environment)
        patch.setattr(os, "pidfd_open", self._pidfd_open)
        patch.setattr(attendants, "NotifySocket", _NoNotifySocket)

    def _start(self, launch: spawn.Launch) -> int:
        if self.spawn_error is not None:
            raise self.spawn_error
        if launch.argv[0] in self.no_program:
            raise spawn.SpawnError(f"no such program: {launch.argv[0]}")
        pid = FIRST_PID + len(self.processes)
        self.processes[pid] = Played(pid, launch, start_time=pid)
        return pid

    def _stat(self, pid: int) -> procinfo.Stat | None:
        found = self.processes.get(pid)
        if found is None or not found.alive:
            return None
        return procinfo.Stat(
            pid=pid,
            state="S",
            ppid=1,
            pgid=found.session or pid,
            sid=found.session or pid,
            start_time=found.start_time,
            cpu_seconds=0.0,
            rss_bytes=0,
            exit_status=0,
        )

    def _group_lives(self, group: int) -> bool:
        return any(s.pgid == group for s in self._all())

    def _environment(self, pid: int) -> list[bytes]:
        found = self.processes.get(pid)
        return [f"{k}={v}".encode() for k, v in found.launch.env.items()] if found else []

    def _all(self) -> list[procinfo.Stat]:
        found = (self._stat(pid) for pid in self.processes)
        return [s for s in found if s is not None]

    def child_of(self, name: str, index: int = 0) -> Played:
        """Let the process of an instance start another, in its session."""
        parent = self.process(name, index)
        pid = FIRST_PID + len(self.processes)
        self.processes[pid] = Played(pid, parent.launch, start_time=pid, session=parent.pid)
        return self.processes[pid]

    def _pidfd_open(self, pid: int) -> int:
        if pid not in self.processes:
            raise ProcessLookupError
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.processes[pid].pidfds.add(fd)
        return fd

    def _exit_of(self, pidfd: int, pid: int, start_time: int) -> Exit:
        found = self.processes[pid]
        known = pidfd in found.pidfds and found.start_time == start_time
        return found.exit if known and not found.alive else Exit()

    def _open_proven(self, pid: int, start_time: int) -> int | None:
        found = self._stat(pid)
        return self._pidfd_open(pid) if found and found.start_time == start_time else None

    def _send(self, pidfd: int, number: int) -> bool:
        for process in self.processes.values():
            if pidfd in process.pidfds and process.alive:
                process.got.append(number)
                return True
        return False

    # ------------------------------------------------------------------ what a test does

    def turn(self) -> None:
        """Let what is due happen."""
        for _ in range(4):
            self.loop.turn(limit=0)

    def wind(self, seconds: float) -> None:
        """Let time pass in small steps, as timers set timers."""
        left = seconds
        while left > 0:
            step = min(0.25, left)
            self.clock.wind(step)
            left -= step
            self.turn()

    def apply(
        self,
        *specs: ServiceSpec,
        wanted: Mapping[str, Wanted] | None = None,
        dry_run: bool = False,
        **policy: Any,
    ) -> list[tuple[str, int, str]]:
        """Make them the target; what was done as (service, instance, action)."""
        done = self.supervisor.apply(
            specs, wanted or {}, HostPolicy(**policy), actor="test", dry_run=dry_run
        )
        self.turn()
        return [(a.service, a.instance, a.action) for a in done]

    def unit(self, name: str, index: int = 0) -> Unit:
        """An instance."""
        return self.supervisor.services[name].units[index]

    def state(self, name: str, index: int = 0) -> str:
        """Its state."""
        return self.unit(name, index).machine.state.value

    def process(self, name: str, index: int = 0) -> Played:
        """Its process."""
        pid = self.unit(name, index).pid
        assert pid is not None
        return self.processes[pid]

    def dies(self, name: str, index: int = 0, exit_: Exit | None = None) -> None:
        """Its process ends."""
        process, of = self.process(name, index), self.unit(name, index)
        process.alive = False
        of.process_ended(exit_ or Exit(code=1))
        self.turn()

    def ends_alone(self, process: Played, exit_: Exit) -> None:
        """A process ends that is nobody's child here: whoever holds a pidfd is told by it."""
        process.alive, process.exit = False, exit_
        for fd in process.pidfds:
            try:
                os.eventfd_write(fd, 1)
            except OSError:
                pass  # closed meanwhile
        self.turn()

    def says(self, name: str, *, pid: int | None = None, **words: Any) -> None:
        """A process, the main one if no other is named, speaks to its notify socket."""
        hears = _NoNotifySocket.open[f"{self.folder}/run/notify/{name}.0"]
        speaker = pid if pid is not None else self.process(name).pid
        hears.receive(
            Message(notification=Notification(**words), pid=speaker, uid=0, gid=0, fds=[])
        )
        self.turn()

    def started(self) -> list[str]:
        """The programs in the order of their starts."""
        return [p.launch.argv[0].removeprefix("/bin/") for p in self.processes.values()]

    def told(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """The facts of a kind with these fields."""
        return [
            e
            for e in self.events
            if e["kind"] == kind and all(e.get(k) == v for k, v in fields.items())
        ]

    def close(self) -> None:
        """Give back what is open; whatever the loop has reported is a failure."""
        for service in list(self.supervisor.services.values()):
            service.close()
        for loop in self._loops:
            loop.close()


NOTIFY = Probe(kind="notify")


class _NoCapture:
    bytes_total = 0
    lost_bytes = 0

    def set_policy(self, policy: HostPolicy) -> None:
        pass


class _NoNotifySocket:
    """Hears what `Stage.says` says."""

    open: ClassVar[dict[str, "_NoNotifySocket"]] = {}

    def __init__(
        self,
        loop: Loop,
        path: str,
        receive: Callable[[Message], object],
        *,
        fd: int | None = None,
    ) -> None:
        self.address = path
        self.receive = receive
        self._fd = os.open("/dev/null", os.O_RDONLY)
        self.open[path] = self

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._fd)
        self.open.pop(self.address, None)
