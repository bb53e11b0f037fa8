"""Where on this host cgroups of our own may be: which hierarchies there are, and what is ours."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CONTROLLERS = ("memory", "cpu", "pids")
"""Those that limits of services need."""
SUPERVISOR = "supervisor"
"""The leaf that our own processes go to: a cgroup whose controllers are handed on holds nobody."""
UNDER_SYSTEMD = "services"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The folder below which the cgroups of services are made, in each hierarchy that has one."""

    v2: str = ""
    """Folder of the version 2 hierarchy; empty: none that we may use."""
    v1: Mapping[str, str] = field(default_factory=dict)
    """Controller → folder, for limits that version 2 cannot set here."""
    detail: str = ""
    """Where it is, or why there is none."""
    hint: str = ""


def own_cgroups(text: str) -> dict[str, str]:
    """Controller → path, from `/proc/self/cgroup`; version 2 under the empty name."""
    found = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            found[""] = path
        else:
            found |= {name: path for name in names.split(",") if not name.startswith("name=")}
    return found


def mounts(text: str) -> dict[str, tuple[str, str]]:
    """Controller → (where it is mounted, which part of it), from `/proc/self/mountinfo`."""
    found: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words, kind = left.split(" "), right.split(" ")
        if len(words) < 5 or len(kind) < 3:
            continue
        place = (_unescape(words[4]), _unescape(words[3]))
        if kind[0] == "cgroup2":
            found.setdefault("", place)
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if option in CONTROLLERS:
                    found.setdefault(option, place)
    return found


def _unescape(text: str) -> str:
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, sign)
    return text


def own_folders(mountinfo: str, cgroup: str) -> dict[str, str]:
    """Controller → the folder of our own cgroup, for every hierarchy in which it can be seen."""
    paths = own_cgroups(cgroup)
    found = {}
    for name, (mounted, part) in mounts(mountinfo).items():
        path = paths.get(name)
        if path is None or path.startswith("/.."):
            continue  # outside of what this namespace shows
        if part != "/":
            # A container without a cgroup namespace: only a part of the tree is mounted.
            inside = path == part or path.startswith(part + "/")
            path = path[len(part) :] if inside else "/"
        found[name] = mounted + path if path != "/" else mounted
    return found


def find_place(
    policy: str,
    run_dir: str,
    *,
    mountinfo: str,
    cgroup: str,
    systemd: bool,
    delegated: Callable[[str], bool],
    writable: Callable[[str], bool],
) -> Place:
    """The place by the host's policy: `auto`, `off`, or the folder of a delegated cgroup.

    Under systemd only what it has delegated to us is ours; without it, what we can write to is.
    """
    if policy == "off":
        return Place(detail="switched off: host.cgroup is off")
    folders = own_folders(mountinfo, cgroup)
    ours = folders.get("", "")
    v1 = {name: folders[name] for name in CONTROLLERS if name in folders}
    group = "atlasd." + hashlib.blake2b(os.fsencode(run_dir), digest_size=4).hexdigest()
    if policy != "auto":
        ours = policy.rstrip("/")
        if systemd:
            v1 = {}
    elif not ours:
        return Place(
            detail="no cgroup version 2 is mounted here",
            hint="mount it: mount -t cgroup2 none /sys/fs/cgroup",
        )
    elif systemd:
        # After a restart or an upgrade in place we may be in the leaf already.
        unit = ours.removesuffix(f"/{SUPERVISOR}")
        if not delegated(unit):
            return Place(
                detail=f"systemd has not delegated {unit} to us",
                hint="set Delegate=yes in the unit, or host.cgroup to a delegated folder",
            )
        inside = own_cgroups(cgroup)
        path = inside[""].removesuffix(f"/{SUPERVISOR}")
        v1 = {name: folder for name, folder in v1.items() if inside[name] == path}
        ours, group = unit, UNDER_SYSTEMD
    if not writable(ours):
        return Place(detail=f"{ours} is not ours to write to", hint="run atlasd as root")
    return Place(
        v2=f"{ours}/{group}",
        v1={name: f"{folder}/{group}" for name, folder in v1.items() if writable(folder)},
        detail=f"{ours}/{group}",
    )


def is_delegated(folder: str) -> bool:
    """Whether systemd has marked the cgroup as delegated."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            continue
    return False


def is_writable(folder: str) -> bool:
    """Whether we can make cgroups in the folder of a cgroup, and put processes there."""
    return os.access(folder, os.W_OK | os.X_OK) and os.access(f"{folder}/cgroup.procs", os.W_OK)


def systemd_booted() -> bool:
    """Whether systemd is this host's init (as sd_booted has it)."""
    return os.path.isdir("/run/systemd/system")


def this_place(policy: str, run_dir: str) -> Place:
    """`find_place` for this very process."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mountinfo = file.read()
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            cgroup = file.read()
    except OSError as error:
        return Place(detail=f"cannot read where we are: {error}")
    return find_place(
        policy,
        run_dir,
        mountinfo=mountinfo,
        cgroup=cgroup,
        systemd=systemd_booted(),
        delegated=is_delegated,
        writable=is_writable,
    )
