"""Starting a program: by posix_spawn where nothing needs doing before exec, else by clone3.

Measured on two cores with a parent of 14 MiB: posix_spawn 0.1 ms, clone3 0.7 ms, and moving a
process into a cgroup after its start up to 15 ms (the kernel waits for a grace period), which
`CLONE_INTO_CGROUP` saves. Everything that a child does between clone and exec is a system call;
a step that fails is named to the parent through a pipe, so that the user reads a sentence and not
an exit code.
"""

import ctypes
import errno
import fcntl
import grp
import os
import pwd
import resource
import signal
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from atlasd.services import child
from atlasd.services.spec import Limits

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SYS_CLONE3 = 435
_CLONE_VFORK = 0x4000
_CLONE_INTO_CGROUP = 0x200000000


class SpawnError(Exception):
    """The program could not be started; the text says at which step and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Who a program runs as, looked up."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def account(user: str | None, group: str | None) -> Account | None:
    """The account of a user and group name or number; null when neither is given.

    Raises `SpawnError` for an unknown one.
    """
    if user is None and group is None:
        return None
    try:
        if user is None:
            entry = pwd.getpwuid(os.geteuid())
        else:
            entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise SpawnError(f"no such user: {user}") from None
    gid = entry.pw_gid
    if group is not None:
        try:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise SpawnError(f"no such group: {group}") from None
    return Account(
        uid=entry.pw_uid,
        gid=gid,
        groups=tuple(os.getgrouplist(entry.pw_name, gid)),
        name=entry.pw_name,
        home=entry.pw_dir,
        shell=entry.pw_shell,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """All that a program is started with."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    fds: Mapping[int, int] = field(default_factory=dict)
    """Descriptor in the program → descriptor here. 0, 1 and 2 must be among them."""
    listen_fds: bool = False
    """Set LISTEN_PID, which only the program's own process can know."""
    cwd: str = "/"
    account: Account | None = None
    umask: int | None = None
    nice: int | None = None
    no_new_privs: bool = False
    limits: Limits = field(default_factory=Limits)
    no_core: bool = False
    """Unless the limits say otherwise, it leaves no core dump: see `child.NO_CORE`."""
    cgroup_fd: int | None = None
    join: tuple[str, ...] = ()
    """cgroup.procs files of v1 hierarchies that the program is to be in."""

    @property
    def plain(self) -> bool:
        """Whether posix_spawn can do it all."""
        return not (
            self.listen_fds
            or self.account is not None
            or self.nice is not None
            or self.no_new_privs
            or self.cgroup_fd is not None
            or self.join
            or any(getattr(self.limits, name) is not None for name in child.RLIMITS)
        )


_soft_nofile: int | None = None
_spared_from_oom = False


def raise_own_nofile() -> None:
    """Give this process as many descriptors as it may have; programs get what it started with.

    Programs that use select() break with descriptors over 1023, so a raised limit is not theirs.
    """
    global _soft_nofile  # noqa: PLW0603  one process, one limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _soft_nofile is None:
        _soft_nofile = soft
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def find_program(program: str, path: str, cwd: str) -> str:
    """The file that `program` names, by the search path of the program's own environment.

    Raises `SpawnError` when there is none, or it cannot be executed.
    """
    if "/" in program:
        found = os.path.join(cwd, program)
        if not os.path.exists(found):
            raise SpawnError(f"no such program: {found}")
        if os.path.isdir(found) or not os.access(found, os.X_OK):
            raise SpawnError(f"not an executable file: {found}")
        return found
    for folder in path.split(":"):
        found = os.path.join(folder or cwd, program)
        if os.access(found, os.X_OK) and os.path.isfile(found):
            return found
    raise SpawnError(f"no such program: {program} (searched {path})")


def start(launch: Launch) -> int:
    """Start the program in a session of its own; the pid.

    Raises `SpawnError`, with what failed, when it cannot be started; nothing is left over then.
    """
    path = launch.env.get("PATH", DEFAULT_PATH)
    program = find_program(launch.argv[0], path, launch.cwd)
    fds, copies = child.apart(launch.fds)
    try:
        # posix_spawn takes no number above the limit that the program is to begin with.
        within = _soft_nofile is None or max(fds.values()) < _soft_nofile
        way = _posix_spawn if launch.plain and within else _clone
        pid = way(program, launch, fds)
    finally:
        for fd in copies:
            os.close(fd)
    if _spared_from_oom:
        _oom_score(pid, "0")
    return pid


def note_own_oom_score() -> None:
    """Find out whether the kernel spares this process when memory runs out (OOMScoreAdjust=).

    Programs inherit that, and shall not have it: the kernel would end the rest of the host first.
    """
    global _spared_from_oom  # noqa: PLW0603  one process, one score
    with open("/proc/self/oom_score_adj") as file:
        _spared_from_oom = int(file.read()) < 0


def _oom_score(pid: int, score: str) -> None:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(score)
    except OSError:
        pass  # it has ended already


def _posix_spawn(program: str, launch: Launch, fds: Mapping[int, int]) -> int:
    # posix_spawn takes neither a folder nor a mask nor a limit: the program inherits ours, which
    # are changed for the moment. There is one thread, and it is here.
    # Ours need not be readable to us: O_PATH.
    back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    umask = os.umask(launch.umask) if launch.umask is not None else None
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    core = resource.getrlimit(resource.RLIMIT_CORE) if launch.no_core else None
    try:
        os.chdir(launch.cwd)
        if core is not None:
            resource.setrlimit(resource.RLIMIT_CORE, child.no_core(core))
        if _soft_nofile is not None and _soft_nofile != limits[0]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_soft_nofile, limits[1]))
        return os.posix_spawn(
            program,
            launch.argv,
            launch.env,
            file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in fds.items()],
            setsid=True,
            setsigdef=child.IGNORED_BY_PYTHON,
            setsigmask=(),
        )
    except OSError as error:
        where = launch.cwd if error.filename == launch.cwd else program
        raise SpawnError(_explain("start", error.errno or 0, where)) from None
    finally:
        if limits != resource.getrlimit(resource.RLIMIT_NOFILE):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        if core is not None:
            resource.setrlimit(resource.RLIMIT_CORE, core)
        if umask is not None:
            os.umask(umask)
        os.fchdir(back)
        os.close(back)


def _explain(step: str, number: int, what: str) -> str:
    text = os.strerror(number)
    if step == "start" and number == errno.ENOEXEC:
        return f"cannot execute {what}: not a program (a script needs a #! line)"
    if step == "start" and number == errno.ENOENT:
        return f"cannot execute {what}: {text} (or the interpreter in its #! line is missing)"
    return f"cannot {step} {what}: {text}" if what else f"cannot {step}: {text}"


_libc: ctypes.PyDLL | None = None


def _c() -> ctypes.PyDLL:
    global _libc  # noqa: PLW0603  opened once
    if _libc is None:
        # PyDLL: the interpreter's lock is kept across the call, so the child has it too.
        _libc = ctypes.PyDLL(None, use_errno=True)
    return _libc


def _clone3(cgroup_fd: int | None) -> tuple[int, bool]:
    """The child's pid (0 in the child), and whether we were suspended until its exec or end."""
    flags = _CLONE_VFORK | (_CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
    arguments = struct.pack("11Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd or 0)
    pid = int(_c().syscall(_SYS_CLONE3, arguments, len(arguments)))
    if pid >= 0:
        return pid, True
    number = ctypes.get_errno()
    if number not in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
        raise OSError(number, "clone3")
    # An old kernel, or a seccomp filter as systemd's RestrictNamespaces= is one: fork, and let
    # the child join the cgroup by itself, which takes longer.
    pid = os.fork()
    if pid == 0 and cgroup_fd is not None:
        try:
            fd = os.open("cgroup.procs", os.O_WRONLY, dir_fd=cgroup_fd)
            os.write(fd, b"0")
            os.close(fd)
        except OSError:
            os._exit(126)
    return pid, False


def _clone(program: str, launch: Launch, fds: Mapping[int, int]) -> int:
    plan = child.prepare(program, launch, fds, soft_nofile=_soft_nofile)
    read, write = os.pipe2(os.O_CLOEXEC)
    if write in launch.fds:
        write = _out_of_the_way(write)
    try:
        try:
            pid, suspended = _clone3(launch.cgroup_fd)
        except OSError as error:
            raise SpawnError(_explain("fork", error.errno or 0, "")) from None
        if pid == 0:
            child.run(plan, write)
        os.close(write)
        write = -1
        if suspended:
            # We have slept until the child's exec or end, so what it had to say is there. To wait
            # for the end of file, a moment after the exec, would cost a third of the start.
            os.set_blocking(read, False)
        try:
            message = os.read(read, 512)
        except BlockingIOError:
            message = b""
        if message:
            os.waitpid(pid, 0)
            number, what, detail = message.decode(errors="replace").split("\n", 2)
            raise SpawnError(_explain(what, int(number), detail))
        return pid
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


def _out_of_the_way(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, child.HIGH)
    os.close(fd)
    return moved
