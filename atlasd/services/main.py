"""`atlasd services`: the parent of every supervised process; small, so that it need not fall."""

import fcntl
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import atlasd
from atlasd import notify, paths, privacy
from atlasd.errors import EXIT_OK, AtlasError
from atlasd.services import adoption, child, procinfo, spawn, statusline, upgrade
from atlasd.services.commands import Commands
from atlasd.services.effects import Effects
from atlasd.services.held import Held
from atlasd.services.loop import Loop
from atlasd.services.output import Capture
from atlasd.services.output import Spawn as Compress
from atlasd.services.server import Server
from atlasd.services.supervisor import Supervisor

USAGE = "usage: atlasd services [--root DIR]\n"


def main(arguments: Sequence[str]) -> int:
    """Run the role until it is told to stop; the process's exit code."""
    try:
        options = _options(arguments)
        if options is None:
            sys.stdout.write(USAGE)
            return EXIT_OK
        if options.preflight:
            sys.stdout.write(upgrade.preflight_answer() + "\n")
            return EXIT_OK
        try:
            return run(paths.find(root=options.root), options)
        except Exception as error:
            if upgrade.under_way():
                upgrade.fall_back(repr(error))
            raise
    except AtlasError as error:
        sys.stderr.write(f"atlasd services: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
        return error.kind.exit


class Options(NamedTuple):
    """The command line."""

    root: str | None = None
    resume: int | None = None
    """Descriptor of a predecessor's state; see `upgrade`."""
    preflight: bool = False


def _options(arguments: Sequence[str]) -> Options | None:
    options = Options()
    rest = list(arguments)
    while rest:
        name, _, value = rest.pop(0).partition("=")
        if name in ("-h", "--help"):
            return None
        if name == "--preflight":
            options = options._replace(preflight=True)
            continue
        if name not in ("--root", "--resume-fd"):
            raise AtlasError("usage", f"unknown argument: {name}", hint=USAGE.strip())
        if not value:
            if not rest:
                raise AtlasError("usage", f"{name} needs a value", hint=USAGE.strip())
            value = rest.pop(0)
        if name == "--root":
            options = options._replace(root=value)
        elif not value.isdigit():
            raise AtlasError("usage", f"{name} needs a number, not {value!r}")
        else:
            options = options._replace(resume=int(value))
    return options


def say(text: str) -> None:
    """A line for the operator, on standard error: the journal, or the log file of `atlasd run`."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def run(where: paths.Paths, options: Options) -> int:
    """Compose the role and turn its loop; see `main`."""
    os.umask(0o022)
    privacy.keep_memory_private()
    _open_standard_descriptors()
    run_dir = _prepare(where)
    resumed = upgrade.read_state(options.resume) if options.resume is not None else None
    lock = _lock(run_dir, resumed)
    spawn.raise_own_nofile()
    child.catch_ignored()
    spawn.note_own_oom_score()
    procinfo.become_subreaper()

    loop = Loop(report=say)
    held = Held(loop)
    for name, fds in notify.listen_fds().items():
        held.offer({name: fds[-1]})
    if resumed is not None:
        held.offer(resumed.descriptors)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    commands = Commands(loop)
    capture = Capture(loop, run_dir, where.log, spawn=_compressor(commands), report=say)
    capture.recover()
    effects = Effects(
        loop=loop,
        run_dir=run_dir,
        state_dir=where.state,
        boot_id=procinfo.boot_id(),
        null=null,
        capture=capture,
        commands=commands,
        held=held,
    )
    supervisor = Supervisor(effects)
    server: Server | None = None

    def leave() -> None:
        # What has been said is still sent: whoever asked for the end waits for the answer.
        loop.call_soon(loop.stop)

    def stop() -> None:
        notify.stopping("stopping the services")
        say("stopping all services")
        supervisor.stop_all(leave, actor="signal")

    def reap() -> None:
        _reap(supervisor, commands)

    loop.on_signal(signal.SIGCHLD, reap)
    loop.on_signal(signal.SIGTERM, stop)
    loop.on_signal(signal.SIGINT, stop)
    _adopt(supervisor)
    listener = _listen(where.services_socket)

    def upgrade_now(executable: str | None, refused: Callable[[AtlasError], object]) -> None:
        upgrade.execute(
            supervisor,
            run_dir=run_dir,
            arguments=("--root", options.root) if options.root is not None else (),
            executable=executable,
            lock=lock,
            refused=refused,
            say=say,
        )

    server = Server(
        supervisor,
        listener,
        capabilities=lambda: _capabilities(supervisor),
        upgrade=upgrade_now,
        leave=leave,
    )
    loop.on_signal(
        signal.SIGHUP,
        lambda: upgrade_now(None, lambda e: say(f"upgrade refused: {e.message}; {e.hint}")),
    )
    signal.pthread_sigmask(signal.SIG_UNBLOCK, upgrade.HELD_BACK)
    loop.call_later(1.0, lambda: upgrade.keep_code(run_dir))
    reap()  # what has ended before the handler stood
    _watchdog(loop)
    notify.ready(statusline.text(supervisor))
    statusline.keep(supervisor)
    say(f"atlasd {atlasd.__version__} services ready (pid {os.getpid()})")
    if resumed is not None:
        upgrade.succeeded()
    # What is there now stays: the collector need not look at it again, nor a fork copy it.
    gc.collect()
    gc.freeze()
    loop.run()
    upgrade.abandon()
    server.close()
    _remove_socket(where.services_socket)
    capture.close()
    supervisor.leave_no_files()
    if effects.cgroups is not None:
        effects.cgroups.leave()
    loop.close()
    return EXIT_OK


def _prepare(where: paths.Paths) -> str:
    """Make the role's folders; its own one in the run directory."""
    where.prepare()
    run_dir = os.path.join(where.run, "services")
    for folder, mode in (
        (run_dir, 0o711),
        (f"{run_dir}/instances", 0o700),
        (f"{run_dir}/notify", 0o711),
        (f"{run_dir}/secrets", 0o711),
        (os.path.join(where.state, "crashes"), 0o750),
    ):
        os.makedirs(folder, mode, exist_ok=True)
    return run_dir


def _adopt(supervisor: Supervisor) -> None:
    adopted = adoption.adopt(supervisor)
    if adopted.failed and upgrade.under_way():
        upgrade.fall_back(f"could not take over {', '.join(adopted.failed)}")
    if supervisor.services:
        say(f"taking over: {adopted}")


def _open_standard_descriptors() -> None:
    # Whatever number 0, 1 or 2 would get later must not be mistaken for a program's output.
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _lock(run_dir: str, resumed: "upgrade.State | None") -> int:
    if resumed is not None and resumed.lock is not None:
        return resumed.lock
    fd = os.open(f"{run_dir}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AtlasError(
            "daemon.running",
            f"another `atlasd services` already uses {run_dir}",
            hint="use that one (atlasctl status), or another --root",
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _listen(path: str) -> socket.socket:
    # The lock is ours, so whatever lies at the path is a dead predecessor's.
    _remove_socket(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(path)
    # Who may connect is decided by the peer's credentials; see Server.
    os.chmod(path, 0o666)  # noqa: S103  see above
    made.listen(16)
    return made


def _remove_socket(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _capabilities(supervisor: Supervisor) -> Mapping[str, object]:
    # Asked for once in a while, by core; until then it costs neither time nor memory.
    from atlasd.services import hostfacts

    return hostfacts.detect(run_dir=supervisor.effects.run_dir, place=supervisor.place).to_wire()


def _compressor(commands: Commands) -> Compress:
    def start(argv: Sequence[str], on_exit: Callable[[int], object]) -> object:
        return commands.run(
            argv,
            on_exit=lambda finished: on_exit(1 if finished.code is None else finished.code),
            env={"PATH": spawn.DEFAULT_PATH},
        )

    return start


def _reap(supervisor: Supervisor, commands: Commands) -> None:
    """Take every child that has ended: a main process, a command, or an orphan of a service."""
    orphans = False
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        unit = supervisor.by_pid.get(pid)
        if unit is not None:
            exit_ = procinfo.from_wait_status(status)
            unit.process_ended(
                procinfo.with_usage(
                    exit_,
                    max_rss=usage.ru_maxrss * 1024,
                    cpu=usage.ru_utime + usage.ru_stime,
                    own_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                )
            )
        elif not commands.reaped(pid, status):
            orphans = True
    if orphans:
        for service in list(supervisor.services.values()):
            for unit in list(service.units.values()):
                unit.orphan_reaped()


def _watchdog(loop: Loop) -> None:
    interval = notify.watchdog_interval()
    if interval is None:
        return

    def ping() -> None:
        notify.watchdog()
        loop.call_later(interval / 2, ping)

    ping()
