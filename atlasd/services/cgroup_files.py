"""Reading and writing the files of cgroups; what cannot be read or written is simply not there."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

PAGE = os.sysconf("SC_PAGE_SIZE")

_SURELY_THE_END = 2048
"""Bytes: the kernel fills a page before it leaves something of such a file for another read, but
for the line that no longer fits, and none is half a page long."""

_PIDFD_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_PIDFD_INFO_CGROUPID = 1 << 2
_PIDFD_INFO_EXIT = 1 << 3


def cgroup_of(pidfd: int) -> int | None:
    """The number of the folder of a process's cgroup, by the kernel's own account."""
    buffer = bytearray(64)
    struct.pack_into("Q", buffer, 0, _PIDFD_INFO_CGROUPID | _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    mask, number = struct.unpack_from("QQ", buffer, 0)
    return int(number) if mask & _PIDFD_INFO_CGROUPID else None


def inodes(folder: str) -> Iterator[int]:
    """The numbers of a folder and of all below it."""
    try:
        yield os.stat(folder).st_ino
    except OSError:
        return
    for name in folders(folder):
        yield from inodes(f"{folder}/{name}")


def move_all(folder: str, leaf: str) -> None:
    """Move the processes of a cgroup to a leaf below it."""
    try:
        os.makedirs(leaf, exist_ok=True)
    except OSError:
        return
    for _ in range(5):
        pids = (read(f"{folder}/cgroup.procs") or "").split()
        if not pids:
            return
        for pid in pids:
            write(f"{leaf}/cgroup.procs", pid)


def read(path: str) -> str | None:
    """The whole of a file; None when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
            if len(part) < _SURELY_THE_END:
                break
        return b"".join(parts).decode()
    except OSError:
        return None
    finally:
        os.close(fd)


def write(path: str, text: str) -> bool:
    """Whether the file took the text in one write, as the kernel wants it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def keyed(text: str, key: str) -> int | None:
    """The number that stands behind a key in a flat file of the kernel's."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return None


def folders(path: str) -> list[str]:
    """Names of the folders in a folder; none when it cannot be read."""
    try:
        if os.stat(path).st_nlink == 2:
            return []  # a name of its own and its `.`: nothing below has a `..`
        with os.scandir(path) as entries:
            return [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def processes_in(folder: str) -> tuple[int, ...]:
    """The pids in a cgroup and in those below it."""
    text = read(f"{folder}/cgroup.procs")
    # 0 stands for a process of another pid namespace, which we can neither name nor end.
    found = [int(word) for word in (text or "").split() if word != "0"]
    for name in folders(folder):
        found.extend(processes_in(f"{folder}/{name}"))
    return tuple(dict.fromkeys(found))


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    words = (read(f"/proc/{pid}/statm") or "").split()
    return int(words[1]) * PAGE if len(words) > 1 else 0


def threads(pid: int) -> int:
    """Threads of a process."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def remove_tree(folder: str) -> bool:
    """Remove a cgroup and those below it; False as long as somebody is in it."""
    for name in folders(folder):
        remove_tree(f"{folder}/{name}")
    try:
        os.rmdir(folder)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True
