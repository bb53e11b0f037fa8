"""What a child does between clone and exec, prepared beforehand by its parent.

A cloned child shares our memory until one of the two writes to it, and Python writes wherever it
looks: each object that the child touches costs a copied page. With everything looked up, checked
and made in the parent, a start takes 0.6 ms instead of 1.4 ms.
"""

import ctypes
import errno
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from atlasd.services.spawn import Account, Launch
    from atlasd.services.spec import Limits

RLIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
    "fsize": resource.RLIMIT_FSIZE,
    "stack": resource.RLIMIT_STACK,
    "address_space": resource.RLIMIT_AS,
    "memlock": resource.RLIMIT_MEMLOCK,
}
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these at start, and a program inherits that; it must begin with the defaults."""
_PR_SET_NO_NEW_PRIVS = 38
NO_CORE = 1
"""Bytes of a core dump of a program that holds secrets: too few for a file, and for the kernel the
one limit that keeps it from piping a dump to a collector (core(5)), which 0 does not."""
HIGH = 512
"""Descriptors that stand in the way are moved up to here."""


class Step(NamedTuple):
    """One call of the child's; `what` and `detail` name it if it fails."""

    call: Callable[..., object]
    arguments: tuple[Any, ...]
    what: str
    detail: str


class Plan(NamedTuple):
    """Everything that the child does."""

    steps: list[Step]
    program: str
    argv: list[bytes]
    env: dict[str, str]
    listen_pid: bool
    """Set LISTEN_PID, which nobody knows before there is a child."""


def prepare(
    program: str, launch: "Launch", fds: Mapping[int, int], *, soft_nofile: int | None
) -> Plan:
    """The child's plan.

    `fds` are the launch's, put `apart`; `soft_nofile` is the soft limit of open files that programs
    begin with.
    """
    steps = [Step(os.setsid, (), "begin a session", "")]
    steps += [Step(_join, (path,), "join cgroup", path) for path in launch.join]
    for theirs, ours in fds.items():
        steps.append(Step(os.dup2, (ours, theirs), "pass descriptor", str(theirs)))
    steps += _limits(launch.limits, soft_nofile)
    if launch.no_core and launch.limits.core is None:
        core = no_core(resource.getrlimit(resource.RLIMIT_CORE))
        steps.append(Step(resource.setrlimit, (resource.RLIMIT_CORE, core), "set limit", "core"))
    if launch.nice is not None:
        arguments = (os.PRIO_PROCESS, 0, launch.nice)
        steps.append(Step(os.setpriority, arguments, "set nice", str(launch.nice)))
    if launch.umask is not None:
        steps.append(Step(os.umask, (launch.umask,), "set umask", oct(launch.umask)))
    if launch.account is not None:
        steps += _become(launch.account)
    if launch.no_new_privs:
        steps.append(
            Step(_no_new_privs, (ctypes.PyDLL(None, use_errno=True),), "set", "no_new_privs")
        )
    steps.append(Step(os.chdir, (launch.cwd,), "change to folder", launch.cwd))
    steps += [
        Step(signal.signal, (number, signal.SIG_DFL), "reset signals", "")
        for number in (() if _caught else IGNORED_BY_PYTHON)
    ]
    return Plan(
        steps=steps,
        program=program,
        argv=[os.fsencode(a) for a in launch.argv],
        env=dict(launch.env),
        listen_pid=launch.listen_fds,
    )


def apart(fds: Mapping[int, int]) -> tuple[Mapping[int, int], list[int]]:
    """The descriptors such that no number is one of theirs and one of ours, and the copies made.

    One after the other, a number would else be taken away before its own turn has come.
    """
    moved: list[int] = []
    if fds.keys().isdisjoint(fds.values()):
        return fds, moved
    found = {}
    for theirs, ours in fds.items():
        if ours in fds:
            ours = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, HIGH)  # noqa: PLW2901
            moved.append(ours)
        found[theirs] = ours
    return found, moved


def run(plan: Plan, report: int) -> NoReturn:
    """Do it, in the child; a failure is written to `report` as number, what and detail."""
    steps, program, argv, env, listen_pid = plan
    what, detail = "start", program
    try:
        for call, arguments, what, detail in steps:  # noqa: B007  named for the report
            call(*arguments)
        what, detail = "start", program
        if listen_pid:
            env["LISTEN_PID"] = str(os.getpid())
        os.execve(program, argv, env)
    except OSError as error:
        os.write(report, f"{error.errno or 0}\n{what}\n{detail}".encode()[:500])
    except BaseException as error:  # noqa: BLE001  a second supervisor must not live on
        os.write(report, f"{errno.EPERM}\n{what}\n{detail} ({error})".encode()[:500])
    finally:
        os._exit(127)


_caught = False


def catch_ignored() -> None:
    """Leave no signal ignored, so that exec itself gives programs the defaults.

    Those that Python ignores are caught; what a shell ignores for what it starts in the background
    (INT and QUIT) has its default back.
    """
    global _caught  # noqa: PLW0603  one process, one set of signal handlers
    _caught = True
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            caught = number in IGNORED_BY_PYTHON
            signal.signal(number, (lambda *_: None) if caught else signal.SIG_DFL)


def _join(path: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"0")
    os.close(fd)


def _limits(limits: "Limits", soft_nofile: int | None) -> list[Step]:
    steps = []
    for name, which in RLIMITS.items():
        value = getattr(limits, name)
        if value is not None:
            _, hard = resource.getrlimit(which)
            detail = f"{name} to {value} (the hard limit here is {hard})"
            steps.append(Step(resource.setrlimit, (which, (value, value)), "set limit", detail))
        elif name == "nofile" and soft_nofile is not None:
            _, hard = resource.getrlimit(which)
            arguments = (which, (soft_nofile, hard))
            steps.append(Step(resource.setrlimit, arguments, "set limit", name))
    return steps


def no_core(limits: tuple[int, int]) -> tuple[int, int]:
    """The soft and hard limit of core dumps, such that none is made; the hard one stays."""
    _, hard = limits
    return (NO_CORE if hard == resource.RLIM_INFINITY else min(NO_CORE, hard), hard)


def _become(who: "Account") -> list[Step]:
    steps = []
    if os.geteuid() == 0:
        steps.append(Step(os.setgroups, (who.groups,), "take the groups of", who.name))
    steps.append(Step(os.setresgid, (who.gid,) * 3, "become a member of the group of", who.name))
    steps.append(Step(os.setresuid, (who.uid,) * 3, "become user", who.name))
    return steps


def _no_new_privs(libc: ctypes.PyDLL) -> None:
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
