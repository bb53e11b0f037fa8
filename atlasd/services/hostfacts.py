"""What this host offers the services role, found by trying, and what is reduced without it."""

import ctypes
import errno
import os
import re
import resource
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from atlasd import notify
from atlasd.services import cgroup_place, procinfo, spawn
from atlasd.services.cgroup_place import CONTROLLERS, Place

ENOUGH_FILES = 4096
"""Descriptors that a few hundred instances take, at about eight each."""
ENOUGH_PIPE = 1 << 20
"""Bytes that a pipe should be able to hold, for output that comes in bursts."""
STORE_ANNOUNCED = 254
"""The version from which systemd tells a unit how much it may store."""

_SYS_CLONE3 = 435
_PR_GET_CHILD_SUBREAPER = 37
_SYSTEMD_FOLDERS = ("/usr/lib/systemd", "/lib/systemd", "/usr/lib64/systemd")
_CAPABILITIES = {
    "chown": 0,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "sys_nice": 23,
    "sys_resource": 24,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Capability:
    """One thing that a host may offer."""

    name: str
    available: bool
    detail: str = ""
    """What was found."""
    reduced: str = ""
    """What atlasd cannot do without it, or does in a poorer way; empty where it is available."""
    hint: str = ""
    """How to get it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """All that was looked for, in the order in which it is told."""

    found: tuple[Capability, ...]

    def __getitem__(self, name: str) -> Capability:
        for one in self.found:
            if one.name == name:
                return one
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether the host offers it. Raises `KeyError` for a name that is not looked for."""
        return self[name].available

    def reduced(self) -> tuple[Capability, ...]:
        """Those that are missing."""
        return tuple(one for one in self.found if not one.available)

    def to_wire(self) -> dict[str, dict[str, object]]:
        """Name → available, detail, reduced and hint."""
        return {
            one.name: {
                "available": one.available,
                "detail": one.detail,
                "reduced": one.reduced,
                "hint": one.hint,
            }
            for one in self.found
        }


IN_MEMORY = ("tmpfs", "ramfs")
"""File systems of which nothing reaches a disk, save by swapping."""

WITHOUT: Mapping[str, tuple[str, str]] = {
    "systemd": (
        "nobody restarts atlasd itself, and nobody keeps its descriptors while it is away",
        "run the units of share/atlasd/systemd",
    ),
    "notify-socket": (
        "systemd is not told of readiness, reloads and shutdown",
        "set Type=notify in the unit",
    ),
    "fd-store": (
        "sockets and output pipes survive a kill of the services role only while core lives",
        "set FileDescriptorStoreMax=4096 in the unit of atlas-services",
    ),
    "watchdog": (
        "nobody notices when the services role hangs",
        "set WatchdogSec= in the unit",
    ),
    "root": (
        "services run as atlasd's own user: user and group have no effect",
        "run atlas-services as root; its unit takes away what it does not need",
    ),
    "raise-limits": (
        "limits above the hard limits of atlasd itself are refused",
        "give it CAP_SYS_RESOURCE, or raise LimitNOFILE= and the like in its unit",
    ),
    "raise-priority": (
        "services cannot be given a negative nice value",
        "give it CAP_SYS_NICE",
    ),
    "cgroup-v2": (
        "no limits for memory, CPU and tasks; stopping relies on sessions and environment marks",
        "run under systemd with Delegate=yes, or name a delegated folder in host.cgroup",
    ),
    "cgroup-memory": (
        "limits.memory has no effect, and an OOM kill looks like any SIGKILL",
        "delegate the memory controller (Delegate=yes)",
    ),
    "cgroup-cpu": ("limits.cpu has no effect", "delegate the cpu controller (Delegate=yes)"),
    "cgroup-pids": ("limits.tasks has no effect", "delegate the pids controller (Delegate=yes)"),
    "cgroup-kill": ("a cgroup is killed process by process", "Linux 5.14 or newer"),
    "clone-into-cgroup": (
        "a program cannot be started inside its cgroup, so it has none",
        "Linux 5.7 or newer, and nothing that forbids clone3 (RestrictNamespaces= does)",
    ),
    "pidfd": (
        "the end of an adopted process cannot be seen",
        "Linux 5.3 or newer",
    ),
    "pidfd-exit-info": (
        "exit codes of processes that ended while nobody watched are unknown",
        "Linux 6.15 or newer",
    ),
    "sender-pidfd": (
        "senders of notifications are known by their pid alone",
        "Linux 6.5 or newer",
    ),
    "subreaper": ("processes that daemonise are not found again", "Linux 3.4 or newer"),
    "inotify": (
        "following logs looks for new lines from time to time",
        "raise fs.inotify.max_user_instances",
    ),
    "open-files": (
        "fewer instances fit, at about eight descriptors each",
        "raise LimitNOFILE= in the unit of atlas-services",
    ),
    "pipe-size": (
        "programs that write in bursts wait for their output to be taken sooner",
        "raise fs.pipe-max-size",
    ),
    "gzip": ("rotated logs are not compressed", "install gzip"),
    "tmpfs-run": (
        "the run directory is on a disk: environments and secrets of services are written to it",
        "put the run directory on a tmpfs, as /run is",
    ),
}
"""Name → what is reduced without it, and how to get it; in the order in which it is told."""


def detect(
    *,
    run_dir: str = "/run",
    place: Place | None = None,
    environ: Mapping[str, str] | None = None,
) -> Capabilities:
    """What this host offers now; takes a few milliseconds, one of them for a short-lived child.

    `place` is where cgroups are made, as `open_cgroups` gave it; else it is looked for.
    """
    env = dict(os.environ if environ is None else environ)
    where = place if place is not None else cgroup_place.this_place("auto", run_dir)
    tried = dict(_systemd(env))
    tried |= dict(_rights())
    tried |= dict(_cgroups(where))
    tried |= dict(_processes())
    tried |= dict(_files(run_dir))
    return Capabilities(found=tuple(_told(name, *tried[name], where) for name in WITHOUT))


def _told(name: str, available: bool, detail: str, place: Place) -> Capability:  # noqa: FBT001
    if available:
        return Capability(name=name, available=True, detail=detail)
    reduced, hint = WITHOUT[name]
    if name == "cgroup-v2":
        hint = place.hint or hint
    return Capability(name=name, available=False, detail=detail, reduced=reduced, hint=hint)


Found = Iterator[tuple[str, tuple[bool, str]]]


def _systemd(environ: dict[str, str]) -> Found:
    booted = cgroup_place.systemd_booted()
    version = systemd_version() if booted else None
    name = "systemd" if version is None else f"systemd {version}"
    ours = booted and "INVOCATION_ID" in environ
    if not booted:
        yield "systemd", (False, "not this host's init")
    else:
        yield "systemd", (ours, f"started by {name}" if ours else f"{name}, not started by it")
    listens = notify.enabled(environ)
    yield "notify-socket", (listens, environ.get("NOTIFY_SOCKET", "NOTIFY_SOCKET is not set"))
    if "FDSTORE" in environ:
        yield "fd-store", (environ["FDSTORE"] not in ("", "0"), f"{environ['FDSTORE']} descriptors")
    elif listens and version is not None and version < STORE_ANNOUNCED:
        yield "fd-store", (True, f"{name} does not say how large it is")
    else:
        yield "fd-store", (False, "not offered")
    interval = notify.watchdog_interval(environ)
    yield "watchdog", (interval is not None, f"{interval:g} s" if interval else "not watched")


def systemd_version(folders: tuple[str, ...] = _SYSTEMD_FOLDERS) -> int | None:
    """The version of the systemd that is installed, by the name of its library; null if unknown."""
    places = list(folders)
    for parent in ("/usr/lib", "/usr/lib64"):
        if folders is _SYSTEMD_FOLDERS:
            places += [f"{parent}/{name}/systemd" for name in _names(parent) if "-linux-" in name]
    for folder in places:
        for name in _names(folder):
            if found := re.match(r"libsystemd-shared-(\d+)", name):
                return int(found[1])
    return None


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _rights() -> Found:
    rights = effective_capabilities(_text("/proc/self/status"))
    user = f"user {os.geteuid()}"
    missing = [n for n in ("setuid", "setgid", "kill", "chown") if n not in rights]
    lacks = f"{user}, without {', '.join(f'CAP_{n.upper()}' for n in missing)}"
    yield "root", (not missing, lacks if missing and os.geteuid() == 0 else user)
    for name, right in (("raise-limits", "sys_resource"), ("raise-priority", "sys_nice")):
        there = right in rights
        yield name, (there, f"{'CAP' if there else 'no CAP'}_{right.upper()}")


def effective_capabilities(status: str) -> frozenset[str]:
    """Of the capabilities that matter here, those in force, from `/proc/self/status`."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            mask = int(value.strip(), 16)
            return frozenset(n for n, bit in _CAPABILITIES.items() if mask >> bit & 1)
    return frozenset()


def _cgroups(place: Place) -> Found:
    usable = bool(place.v2)
    yield "cgroup-v2", (usable, place.detail)
    parent = os.path.dirname(place.v2)
    v2 = _text(f"{parent}/cgroup.controllers").split() if usable else []
    for name in CONTROLLERS:
        if name in v2:
            told = (True, "version 2")
        elif usable and name in place.v1:
            told = (True, "by its version 1 hierarchy")
        else:
            told = (False, "neither version 2 nor version 1 offers it here")
        yield f"cgroup-{name}", told
    # The file is in every cgroup but the root; the kernel's release says it there.
    kill = usable and (os.path.exists(f"{parent}/cgroup.kill") or _release() >= (5, 14))
    yield "cgroup-kill", (kill, f"Linux {os.uname().release}")
    refusal = _clone3_refusal()
    can = usable and not refusal and _release() >= (5, 7)
    yield "clone-into-cgroup", (can, refusal or ("" if can else "no cgroup to start in"))


def _clone3_refusal() -> str:
    # Arguments of no size at all are wrong: the call says so wherever it exists, and does nothing.
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.syscall(_SYS_CLONE3, None, ctypes.c_size_t(0))
    code = ctypes.get_errno()
    return "" if code in (errno.EINVAL, errno.EFAULT) else f"clone3: {os.strerror(code)}"


def _processes() -> Found:
    try:
        os.close(os.pidfd_open(os.getpid()))
        yield "pidfd", (True, "")
    except OSError as error:
        yield "pidfd", (False, str(error))
    there = _exit_info()
    yield "pidfd-exit-info", (there, f"Linux {os.uname().release}")
    yield "sender-pidfd", (_release() >= (6, 5), f"Linux {os.uname().release}")
    libc = ctypes.PyDLL(None, use_errno=True)
    answer = ctypes.c_int(0)
    works = libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0
    yield "subreaper", (works, "" if works else os.strerror(ctypes.get_errno()))


_known_exit_info: bool | None = None


def _exit_info() -> bool:
    """Whether a pidfd tells the exit code of a process that was reaped; tried once, on a child."""
    global _known_exit_info  # noqa: PLW0603  a kernel doesn't change
    if _known_exit_info is None:
        _known_exit_info = False
        try:
            program = spawn.find_program("false", spawn.DEFAULT_PATH, "/")
            pid = os.posix_spawn(program, [program], {}, setsigdef=(signal.SIGPIPE,))
        except (OSError, spawn.SpawnError):
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.waitpid(pid, 0)
            return False
        os.waitpid(pid, 0)
        _known_exit_info = procinfo.exit_by_pidfd(pidfd).code == 1
        os.close(pidfd)
    return _known_exit_info


def _files(run_dir: str) -> Found:
    libc = ctypes.PyDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    yield "inotify", (fd >= 0, "" if fd >= 0 else os.strerror(ctypes.get_errno()))
    if fd >= 0:
        os.close(fd)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    endless = hard == resource.RLIM_INFINITY
    yield "open-files", (endless or hard >= ENOUGH_FILES, "no limit" if endless else f"{hard}")
    text = _text("/proc/sys/fs/pipe-max-size").strip()
    size = int(text) if text.isdigit() else 0
    yield "pipe-size", (size >= ENOUGH_PIPE, f"{size} bytes")
    try:
        yield "gzip", (True, spawn.find_program("gzip", spawn.DEFAULT_PATH, "/"))
    except spawn.SpawnError:
        yield "gzip", (False, "not found")
    kind = filesystem_of(os.path.realpath(run_dir))
    yield "tmpfs-run", (kind in IN_MEMORY, f"{run_dir} is on {kind or 'what?'}")


def filesystem_of(path: str, mountinfo: str | None = None) -> str:
    """The type of the file system that a path is on, from `/proc/self/mountinfo`."""
    best, kind = "", ""
    if mountinfo is None:
        mountinfo = _text("/proc/self/mountinfo")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        words = left.split(" ")
        if len(words) < 5:
            continue
        place = words[4].replace("\\040", " ")
        # Of several mounts on one place the last one is seen.
        if len(place) >= len(best) and (place == "/" or f"{path}/".startswith(f"{place}/")):
            best, kind = place, right.split(" ")[0]
    return kind


def _release() -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
