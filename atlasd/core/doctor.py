"""What this host offers atlasd, and what is reduced, by name, where something is missing."""

import ctypes
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Capability:
    """One thing that a host may offer."""

    name: str
    available: bool
    detail: str = ""
    reduced: str = ""
    """What atlasd cannot do without it; empty when it is available."""
    hint: str = ""
    """How to get it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Want:
    """What is lost without a capability, and how to get it."""

    reduced: str
    hint: str


WANTS: Mapping[str, _Want] = {
    "systemd": _Want(
        reduced="nobody restarts atlasd itself, and no descriptor store outlives the roles",
        hint="run the units of share/atlasd/systemd",
    ),
    "root": _Want(
        reduced="services run as atlasd's own user: user, group and raised limits have no effect",
        hint="run atlas-services as root; what it needs of root is in its unit",
    ),
    "cgroup-v2": _Want(
        reduced="no limits for memory, CPU and tasks; stopping relies on process groups, sessions "
        "and marks in the environment",
        hint="mount cgroup v2, and run under systemd with Delegate=yes, or name a delegated folder "
        "in host.cgroup",
    ),
    "cgroup-memory": _Want(
        reduced="limits.memory has no effect",
        hint="delegate the memory controller (Delegate=yes)",
    ),
    "cgroup-cpu": _Want(
        reduced="limits.cpu has no effect", hint="delegate the cpu controller (Delegate=yes)"
    ),
    "cgroup-pids": _Want(
        reduced="limits.tasks has no effect", hint="delegate the pids controller (Delegate=yes)"
    ),
    "cgroup-kill": _Want(
        reduced="a group is killed process by process", hint="Linux 5.14 or newer"
    ),
    "pidfd": _Want(
        reduced="signals go by process id, which can be given to another process meanwhile",
        hint="Linux 5.3 or newer",
    ),
    "pidfd-exit-info": _Want(
        reduced="exit codes of processes that ended while nobody watched are unknown",
        hint="Linux 6.15 or newer",
    ),
    "clone-into-cgroup": _Want(
        reduced="a process is moved into its cgroup after it was started, which takes longer",
        hint="Linux 5.7 or newer, and no RestrictNamespaces= in the unit",
    ),
    "subreaper": _Want(
        reduced="processes that daemonise are not found again", hint="Linux 3.4 or newer"
    ),
    "tmpfs-run": _Want(
        reduced="the run directory is on a disk: environments of services are written to it",
        hint="put the run directory on a tmpfs, as /run is",
    ),
}
"""Every capability, in the order in which it is told."""


def probe(*, run_dir: str = "/run") -> list[Capability]:
    """What can be seen from here, without trying anything that changes the host."""
    kernel = _kernel()
    controllers = _controllers()
    found = {
        "systemd": (Path("/run/systemd/system").is_dir(), ""),
        "root": (os.geteuid() == 0, f"user {os.geteuid()}"),
        "cgroup-v2": (controllers is not None, "" if controllers is None else "/sys/fs/cgroup"),
        "cgroup-memory": ("memory" in (controllers or ()), ""),
        "cgroup-cpu": ("cpu" in (controllers or ()), ""),
        "cgroup-pids": ("pids" in (controllers or ()), ""),
        "cgroup-kill": (controllers is not None and kernel >= (5, 14), ""),
        "pidfd": (_has_pidfd(), ""),
        "pidfd-exit-info": (kernel >= (6, 15), f"Linux {platform.release()}"),
        "clone-into-cgroup": (controllers is not None and kernel >= (5, 7), ""),
        "subreaper": (kernel >= (3, 4), ""),
        "tmpfs-run": (_is_tmpfs(run_dir), run_dir),
    }
    return [
        capability(name, available=available, detail=detail)
        for name, (available, detail) in found.items()
    ]


def capability(name: str, *, available: bool, detail: str = "") -> Capability:
    """A capability with the words that belong to its name."""
    want = WANTS.get(name)
    if available or want is None:
        return Capability(name=name, available=available, detail=detail)
    return Capability(
        name=name, available=False, detail=detail, reduced=want.reduced, hint=want.hint
    )


def merged(own: Sequence[Capability], services: Mapping[str, object] | None) -> list[Capability]:
    """What core sees, with what the services role found instead where it says something.

    It is the services role that needs these things, and it may have more rights than core. An
    entry of it is true or false, or an object with `available` and `detail`.
    """
    found = {one.name: one for one in own}
    for name, value in (services or {}).items():
        if isinstance(value, bool):
            found[name] = capability(name, available=value, detail=_kept(found.get(name), value))
        elif isinstance(value, Mapping) and "available" in value:
            one = capability(
                name,
                available=bool(value["available"]),
                detail=str(value.get("detail") or value.get("reason") or ""),
            )
            if not one.available:
                one = replace(
                    one,
                    reduced=str(value.get("reduced") or one.reduced),
                    hint=str(value.get("hint") or one.hint),
                )
            found[name] = one
    return list(found.values())


def _kept(before: Capability | None, available: bool) -> str:  # noqa: FBT001
    return before.detail if before is not None and before.available == available else ""


def body(one: Capability) -> dict[str, Any]:
    """As `atlasd.control.models.Capability` has it."""
    return {
        "name": one.name,
        "available": one.available,
        "detail": one.detail,
        "reduced": one.reduced,
        "hint": one.hint,
    }


def _kernel() -> tuple[int, int]:
    major, _, rest = platform.release().partition(".")
    minor = ""
    for letter in rest:
        if not letter.isdigit():
            break
        minor += letter
    return int(major or 0), int(minor or 0)


def _controllers() -> tuple[str, ...] | None:
    try:
        return tuple(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
    except OSError:
        return None


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError):
        return False
    return True


_TMPFS_MAGIC = 0x01021994


def _is_tmpfs(path: str) -> bool:
    # statvfs does not tell the type; the C library's statfs begins with it.
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    kind = ctypes.c_long.from_buffer(buffer).value
    return kind == _TMPFS_MAGIC
