"""What the kernel says of a process: who it is, what it uses, how it ended; and safe signals."""

import ctypes
import errno
import fcntl
import os
import signal
import struct
from dataclasses import dataclass, replace

from atlasd.services.restart import Exit

_PIDFD_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36


def boot_id() -> str:
    """The kernel's identifier of this boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


@dataclass(frozen=True, slots=True)
class Stat:
    """Some of /proc/PID/stat."""

    pid: int
    state: str
    ppid: int
    pgid: int
    sid: int
    start_time: int
    """Clock ticks since boot; with the pid and the boot id it names a process for good."""
    cpu_seconds: float
    rss_bytes: int
    exit_status: int
    """As wait() would give it, of a zombie; 0 for what we may not look into."""


def stat(pid: int) -> Stat | None:
    """What /proc/PID/stat says; null when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    # The name may hold spaces and brackets: what follows the last one is regular.
    f = text[text.rindex(b")") + 2 :].split()
    return Stat(
        pid=pid,
        state=f[0].decode(),
        ppid=int(f[1]),
        pgid=int(f[2]),
        sid=int(f[3]),
        start_time=int(f[19]),
        cpu_seconds=(int(f[11]) + int(f[12])) / _CLOCK_TICKS,
        rss_bytes=int(f[21]) * _PAGE,
        exit_status=int(f[49]) if len(f) > 49 else 0,
    )


def environment(pid: int) -> list[bytes]:
    """The environment that the process was executed with, as `NAME=value`; empty if unknown."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def environment_has(pid: int, assignment: bytes) -> bool:
    """Whether the environment that the process was executed with holds `NAME=value`."""
    return assignment in environment(pid)


def children(pid: int) -> list[int]:
    """The direct children of a single-threaded process."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(p) for p in file.read().split()]
    except OSError:
        return [s.pid for s in all_processes() if s.ppid == pid]


def all_processes() -> list[Stat]:
    """Every process that can be seen."""
    found = (stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [s for s in found if s is not None]


def descendants(roots: list[int]) -> list[Stat]:
    """The roots that are still alive and everything below them; zombies are left out."""
    by_parent: dict[int, list[Stat]] = {}
    known: dict[int, Stat] = {}
    for process in all_processes():
        known[process.pid] = process
        by_parent.setdefault(process.ppid, []).append(process)
    found: dict[int, Stat] = {}
    todo = [known[p] for p in roots if p in known]
    while todo:
        process = todo.pop()
        if process.pid not in found:
            found[process.pid] = process
            todo.extend(by_parent.get(process.pid, ()))
    return [p for p in found.values() if p.state not in "ZX"]


def open_proven(pid: int, start_time: int) -> int | None:
    """A pidfd of exactly the process that has this pid and start time; null when it is gone.

    The start time is looked at before and after the descriptor is opened: a pid that was reused
    in between does not pass.
    """
    before = stat(pid)
    if before is None or before.start_time != start_time:
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    after = stat(pid)
    if after is None or after.start_time != start_time:
        os.close(fd)
        return None
    return fd


def send(pidfd: int, number: int) -> bool:
    """Send a signal; false when the process is gone already, or has become another user's."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_proven(process: Stat, number: int) -> bool:
    """Send a signal to exactly this process; false when it is gone."""
    fd = open_proven(process.pid, process.start_time)
    if fd is None:
        return False
    try:
        return send(fd, number)
    finally:
        os.close(fd)


def from_wait_status(status: int) -> Exit:
    """What `wait4` says of how a process ended."""
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
    return Exit(code=os.waitstatus_to_exitcode(status))


def with_usage(exit_: Exit, *, max_rss: int, cpu: float, own_rss: int) -> Exit:
    """The exit with what the kernel counted: bytes, and seconds of CPU.

    The kernel's maximum includes the moment between fork and exec, in which the process was a
    copy of us. So a value that isn't above our own (`own_rss`) says nothing, and is left out.
    """
    return replace(exit_, max_rss=max_rss if max_rss > own_rss else None, cpu_seconds=cpu)


def exit_of(pidfd: int, pid: int, start_time: int) -> Exit:
    """How a process that is nobody's child here has ended; all null when nobody can tell.

    As long as its parent has not reaped it, /proc says so. After that the pidfd does, on Linux
    6.15 and newer, for as long as somebody has kept it open.
    """
    found = stat(pid)
    if found is not None and found.start_time == start_time and found.state == "Z":
        return from_wait_status(found.exit_status)
    return exit_by_pidfd(pidfd)


def exit_by_pidfd(pidfd: int) -> Exit:
    """What the pidfd of a process that was reaped says of its end; all null before Linux 6.15."""
    buffer = bytearray(64)
    struct.pack_into("Q", buffer, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except (OSError, ValueError):
        return Exit()
    (mask,) = struct.unpack_from("Q", buffer, 0)
    if not mask & _PIDFD_INFO_EXIT:
        return Exit()
    (status,) = struct.unpack_from("i", buffer, 60)
    return from_wait_status(status)


def become_subreaper() -> bool:
    """Have the orphans among our descendants handed to us; false where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def group_alive(pgid: int) -> bool:
    """Whether the process group has a member left (its unreaped leader counts)."""
    try:
        os.killpg(pgid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True
