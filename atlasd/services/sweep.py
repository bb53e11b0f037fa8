"""After the main process: finding and ending what it has left behind."""

import os
import signal
from typing import TYPE_CHECKING

from atlasd.services import procinfo
from atlasd.services.launcher import INVOCATION
from atlasd.services.loop import Timer

if TYPE_CHECKING:
    from atlasd.services.unit import Unit

GRACE = 1.0
"""Seconds between TERM and KILL for what is left, where there is no cgroup."""
WAKES = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Followed by SIGCONT, as systemd does: a stopped process would not see them."""
PATIENCE = 5.0
"""Seconds after which processes that will not die are named."""


class Sweep:
    """The end of one instance's remaining processes.

    In a cgroup the kernel kills them all at once and says when the last has gone. Without one
    they are found by their session, their process group and the invocation in their environment,
    among our own descendants (we are their subreaper); TERM, a grace, then KILL.
    """

    def __init__(self, unit: "Unit") -> None:
        self._unit = unit
        self._began = unit.now
        self._timer: Timer | None = None
        self._watched = False
        self._over = False

    def start(self) -> None:
        """Begin; calls the unit's `swept` at once when nothing is left."""
        unit = self._unit
        if unit.machine.spec.stop.kill_mode in ("process", "none"):
            unit.spared([p.pid for p in self.find(unit)])
            self._end()
            return
        if self._nothing_left():
            self._end()
            return
        unit.machine.sweep_takes_time()
        if unit.cgroup is not None:
            unit.cgroup.watch_empty(unit.loop, self.look)
            self._watched = True
            unit.cgroup.kill()
        else:
            self.signal(self._unit, signal.SIGTERM)
        self._again()
        self.look()

    def look(self) -> None:
        """Something has ended: see whether anything is left."""
        if self._over:
            return
        if self._nothing_left():
            self._end()

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._watched and self._unit.cgroup is not None:
            self._unit.cgroup.unwatch()
        self._unit.swept()

    def _nothing_left(self) -> bool:
        unit = self._unit
        if unit.cgroup is not None:
            return not unit.cgroup.populated()
        ours = unit.process.is_descendant
        if ours and not procinfo.group_alive(unit.process.session) and not _orphans(unit):
            return True  # the common case, for three system calls
        return not self.find(unit)

    def _again(self) -> None:
        self._timer = self._unit.loop.call_later(GRACE, self._due)

    def _due(self) -> None:
        self.look()
        if self._over:
            return
        unit = self._unit
        if unit.cgroup is not None:
            unit.cgroup.kill()
        else:
            self.signal(unit, signal.SIGKILL)
        if unit.now - self._began >= PATIENCE:
            pids = unit.cgroup.processes() if unit.cgroup is not None else None
            left = pids if pids is not None else [p.pid for p in self.find(unit)]
            unit.left(list(left), "these processes of it will not die")
        self._again()

    @staticmethod
    def signal(unit: "Unit", number: int, *, but: int | None = None) -> None:
        """Signal every process of the instance, but for one that was seen to already."""
        for process in Sweep.find(unit):
            if process.pid != but and procinfo.signal_proven(process, number) and number in WAKES:
                procinfo.signal_proven(process, signal.SIGCONT)

    @staticmethod
    def find(unit: "Unit") -> list[procinfo.Stat]:
        """The living processes of an instance, its main one included, each proven to be ours."""
        if unit.cgroup is not None:
            found = [procinfo.stat(pid) for pid in unit.cgroup.processes()]
            return [p for p in found if p is not None and p.state not in "ZX"]
        return _find_without_cgroup(unit)


def _orphans(unit: "Unit") -> set[int]:
    """Children of ours that are neither an instance's main process nor a command."""
    ours = set(procinfo.children(os.getpid()))
    return ours - unit.supervisor.by_pid.keys() - set(unit.effects.commands.pids())


def _find_without_cgroup(unit: "Unit") -> list[procinfo.Stat]:
    mark = f"{INVOCATION}={unit.invocation}".encode()
    everything = [p for p in procinfo.all_processes() if p.state not in "ZX"]
    # A session's number is not given to another process while the session has members. But once
    # a stranger bears it as his pid, the session is no longer the one that we have made.
    reused = any(
        p.pid == unit.process.session and p.start_time != unit.process.session_start
        for p in everything
    )
    roots = {unit.pid} if unit.pid is not None else set()
    candidates = _orphans(unit) if unit.process.is_descendant else {p.pid for p in everything}
    for process in everything:
        same_session = unit.process.session in (process.sid, process.pgid) and not reused
        if process.start_time < unit.process.session_start:
            continue
        if same_session or (
            process.pid in candidates and procinfo.environment_has(process.pid, mark)
        ):
            roots.add(process.pid)
    # Hooks and probes bear the mark too, and have an end of their own.
    commands = {p.pid for p in procinfo.descendants(list(unit.effects.commands.pids()))}
    others = (unit.supervisor.by_pid.keys() | commands) - {unit.pid}
    return [p for p in procinfo.descendants(sorted(roots)) if p.pid not in others]
