"""Upgrade in place: the new program takes over this process, its children and its descriptors.

`execve` keeps the pid, so the services stay our children and systemd sees the same main process.
Three nets, since what must never fall is the thing that is replaced:

1. the new program is first started beside us and must import and say that it reads our state;
2. it then has a deadline in which to adopt everything, or the old one is executed again, from a
   copy of its own code that was made when it started;
3. should it die all the same, the next start adopts by the records, as after any `kill -9`.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import atlasd
from atlasd.errors import AtlasError
from atlasd.services.commands import Cancellable, Finished
from atlasd.services.sealed import sealed
from atlasd.services.supervisor import Supervisor

FORMAT = 1
"""Of the state that is handed over; `READS` is what this version understands."""
READS = (1,)
DEADLINE = 20.0
"""Seconds in which the new program must have adopted everything."""
GRACE = 10.0
PREFLIGHT = 15.0
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that wait while one program becomes another, which would die of them."""
_STATE = "atlasd-state"
_KEPT = ("services", "")
"""Parts of the package that the role consists of: its own folder, and the leaves."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the predecessor handed over."""

    version: str
    descriptors: dict[str, int]
    files: dict[str, str]
    """What each of them was open on, so that a number that was used anew is told apart."""
    lock: int | None
    old: tuple[str, str, tuple[str, ...]]
    """Interpreter, folder of its code, arguments: what is executed again if all goes wrong."""
    environment: dict[str, str]
    """Of the predecessor."""
    returned: str
    """Why the program that was to replace this one did not come up; empty on the way there."""
    fd: int


_current: State | None = None
_code_is_kept = False
_trial: Cancellable | None = None
last: dict[str, object] = {}
"""What came of the last upgrade, for `hello`: `{"ok": bool, "detail": str}`, or empty."""


def preflight_answer() -> str:
    """What `--preflight` prints: proof that everything imports, and which states are understood."""
    return json.dumps({"version": atlasd.__version__, "reads": READS})


def keep_code(run_dir: str) -> None:
    """Copy the role's own code aside, while the disk still has it; once is enough."""
    global _code_is_kept  # noqa: PLW0603  one process, one program
    source = os.path.dirname(os.path.abspath(atlasd.__file__))
    target = _code_dir(run_dir)
    # Who was returned to runs from the copy, and must not remove it.
    if not _code_is_kept and source != os.path.join(os.path.abspath(target), "atlasd"):
        shutil.rmtree(target, ignore_errors=True)
        for part in _KEPT:
            folder = os.path.join(target, "atlasd", part)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for name in os.listdir(os.path.join(source, part)):
                if name.endswith(".py"):
                    shutil.copyfile(os.path.join(source, part, name), os.path.join(folder, name))
    _code_is_kept = True


def _code_dir(run_dir: str) -> str:
    return os.path.join(run_dir, "code")


def execute(
    supervisor: Supervisor,
    *,
    run_dir: str,
    arguments: Sequence[str],
    executable: str | None,
    lock: int,
    refused: Callable[[AtlasError], object],
    say: Callable[[str], object],
) -> None:
    """Try the new program, then become it. `refused` is called if it does not come to that."""
    if supervisor.stopping:
        refused(_stopping())
        return
    program = executable or sys.executable
    command = [program, "-m", "atlasd", "services", *arguments]

    def tried(result: Finished) -> None:
        # Signals that come from here on wait for the new program; earlier ones are answered first.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            supervisor.loop.take_signals()
            problem = _unfit(result)
            if supervisor.stopping:
                refused(_stopping())
            elif problem:
                refused(
                    AtlasError(
                        "services.upgrade",
                        f"the new program is not fit to take over: {problem}",
                        hint="nothing was changed; put it right and try again",
                    )
                )
            else:
                say(f"upgrade: becoming {program}")
                supervisor.journal.add("upgrade", detail=f"becoming {program}")
                _become(supervisor, run_dir, program, command, arguments, lock)
        except OSError as error:
            refused(AtlasError("services.upgrade", f"cannot execute {program}: {error.strerror}"))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)

    global _trial  # noqa: PLW0603  one process, one successor
    abandon()
    _trial = supervisor.effects.commands.run(
        [*command, "--preflight"], on_exit=tried, env=dict(os.environ), timeout=PREFLIGHT
    )


def abandon() -> None:
    """Try no new program any more: the role ends, or another one is to be tried."""
    if _trial is not None:
        _trial.cancel()


def _stopping() -> AtlasError:
    return AtlasError("core.stopping", "atlasd is shutting down", hint="start it again")


def _unfit(result: Finished) -> str:
    if not result.ok:
        return f"{result.describe()}: {result.last_line()}"
    try:
        answer = json.loads(result.last_line(4000))
        reads = answer["reads"]
    except (ValueError, KeyError, TypeError):
        return f"it answered {result.last_line()!r}"
    if FORMAT not in reads:
        return f"it (version {answer.get('version')}) reads states {reads}, ours is {FORMAT}"
    return ""


def _become(
    supervisor: Supervisor,
    run_dir: str,
    program: str,
    command: list[str],
    arguments: Sequence[str],
    lock: int,
) -> None:
    keep_code(run_dir)
    for service in supervisor.services.values():
        for unit in service.units.values():
            unit.write_record()
    supervisor.effects.held.flush()
    descriptors = supervisor.effects.held.entries()
    body = {
        "format": FORMAT,
        "version": atlasd.__version__,
        "descriptors": descriptors,
        "files": {name: _file(fd) for name, fd in descriptors.items()},
        "lock": lock,
        "old": [sys.executable, _code_dir(run_dir), list(arguments)],
        "environment": dict(os.environ),
        "returned": "",
    }
    fd = sealed(_STATE, json.dumps(body).encode())
    for kept in (*descriptors.values(), lock, fd):
        os.set_inheritable(kept, True)
    signal.set_wakeup_fd(-1)
    # It outlives execve: a program that hangs before it can help itself is ended by the kernel,
    # and whoever starts the role again has it adopt.
    signal.setitimer(signal.ITIMER_REAL, DEADLINE + GRACE)
    try:
        os.execve(program, [*command, "--resume-fd", str(fd)], dict(os.environ))
    except OSError:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for kept in (*descriptors.values(), lock):
            os.set_inheritable(kept, False)
        os.close(fd)
        supervisor.loop.rearm_signals()
        raise


def read_state(fd: int) -> State:
    """What a predecessor handed over. From here until `succeeded`, a failure returns to it."""
    global _current  # noqa: PLW0603  one process, one predecessor
    body = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    executable, code, arguments = body["old"]
    state = State(
        version=body["version"],
        descriptors={str(k): int(v) for k, v in body["descriptors"].items()},
        lock=body["lock"],
        files=dict(body.get("files", {})),
        old=(executable, code, tuple(arguments)),
        environment=dict(body.get("environment", os.environ)),
        returned=body["returned"],
        fd=fd,
    )
    for ours in (fd, *([state.lock] if state.lock is not None else [])):
        os.set_inheritable(ours, False)
    if state.returned:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # The way to the copy of the code was for this start only: the next upgrade looks where
        # the one before has looked.
        os.environ.pop("PYTHONPATH", None)
        if "PYTHONPATH" in state.environment:
            os.environ["PYTHONPATH"] = state.environment["PYTHONPATH"]
        os.close(fd)
        last.update(ok=False, detail=state.returned)
        return state
    if body["format"] not in READS:
        _current = state
        fall_back(f"version {atlasd.__version__} does not read state format {body['format']}")
    _current = state
    signal.signal(signal.SIGALRM, lambda *_: fall_back(f"not ready within {DEADLINE:g} s"))
    signal.setitimer(signal.ITIMER_REAL, DEADLINE)
    return state


def under_way() -> bool:
    """Whether a predecessor would be returned to."""
    return _current is not None


def succeeded() -> None:
    """Everything is adopted: there is no way back any more, and none is needed."""
    global _current  # noqa: PLW0603  see read_state
    if _current is None:
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    last.update(ok=True, detail=f"from {_current.version} to {atlasd.__version__}")
    os.close(_current.fd)
    _current = None


def fall_back(why: str) -> NoReturn:
    """Execute the predecessor again."""
    assert _current is not None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.set_wakeup_fd(-1)
    sys.stderr.write(f"upgrade failed, returning to the version before: {why}\n")
    sys.stderr.flush()
    executable, code, arguments = _current.old
    # Names whose descriptor this program has closed or replaced are left out: adoption finds the
    # processes by their records, and opens pipes by their paths.
    descriptors = {
        name: fd
        for name, fd in _current.descriptors.items()
        if _file(fd) == _current.files.get(name) != ""
    }
    lock = _current.lock if _current.lock is not None and _file(_current.lock) else None
    body = {
        "format": FORMAT,
        "version": _current.version,
        "descriptors": descriptors,
        "lock": lock,
        "old": [executable, code, list(arguments)],
        "environment": _current.environment,
        "returned": why,
    }
    fd = sealed(_STATE, json.dumps(body).encode())
    for kept in (*descriptors.values(), fd, *([lock] if lock is not None else [])):
        os.set_inheritable(kept, True)
    env = dict(_current.environment)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [code, env.get("PYTHONPATH", "")]))
    os.execve(
        executable,
        [executable, "-m", "atlasd", "services", *arguments, "--resume-fd", str(fd)],
        env,
    )


def _file(fd: int) -> str:
    """What a descriptor is open on; empty when it isn't."""
    try:
        found = os.fstat(fd)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"
