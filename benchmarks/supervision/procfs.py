"""What the kernel knows of processes: processor time, wake-ups, memory, family."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What some processes have used: processor seconds, wake-ups, and how many they are."""

    cpu: float
    wakeups: int
    processes: int


def usage(pids: Iterable[int]) -> Usage:
    """Sum up what the processes' threads have used so far.

    From schedstat, which counts nanoseconds: the ticks of /proc/PID/stat are 10 ms wide.
    """
    nanoseconds = switches = processes = 0
    for pid in pids:
        try:
            for thread in (_PROC / str(pid) / "task").iterdir():
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
                for line in (thread / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        switches += int(line.split()[1])
            processes += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Usage(cpu=nanoseconds / 1e9, wakeups=switches, processes=processes)


def pss_mib(pids: Iterable[int]) -> float:
    """Sum up the proportional set sizes of processes in MiB: shared pages are shared out."""
    kib = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib / 1024


def _stat(pid: int) -> list[str]:
    # the name in parentheses may hold anything, spaces and parentheses too
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """Say whether a process exists and is not a zombie."""
    try:
        return _stat(pid)[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent(pid: int) -> int:
    """Give a process's parent; raises FileNotFoundError when it is gone."""
    return int(_stat(pid)[1])


def executable(pid: int) -> str | None:
    """Give the path of a process's program, None when it is gone."""
    try:
        return str((_PROC / str(pid) / "exe").readlink())
    except OSError:
        return None


def everyone() -> list[int]:
    """Give the PIDs of all processes."""
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def family(roots: Iterable[int], *, without: str) -> list[int]:
    """Give the roots and all that descends from them, but no process of the program `without`."""
    children: dict[int, list[int]] = {}
    for pid in everyone():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.setdefault(parent(pid), []).append(pid)
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if alive(pid) and executable(pid) != without:
            found.append(pid)
            waiting += children.get(pid, [])
    return sorted(found)


def running(program: str) -> list[int]:
    """Give the processes that run a program, by its path."""
    return [pid for pid in everyone() if executable(pid) == program]


def end(pids: Iterable[int]) -> None:
    """Kill processes that this run has started; one that is gone already is fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
