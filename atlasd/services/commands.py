"""Short-lived commands beside the services: exec probes, hooks, drains, compression."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from atlasd.redaction import Flow, Redactor
from atlasd.services import spawn
from atlasd.services.loop import Loop, Timer

TAIL = 4096
"""Bytes of output that are kept: the last ones, where programs say what went wrong."""
GRACE = 2.0
"""Seconds between TERM and KILL for a command that exceeded its time."""
CHUNK = 65536
REST = 0.01
"""Seconds without reading after a full chunk: a command that floods must not keep the loop busy."""
PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9: to the group whose leader the pidfd refers to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """How a command ended. Without `error`, exactly one of `code` and `signal` is set."""

    code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    error: str = ""
    """Why it could not be started at all; empty when it ran."""
    output: bytes = b""
    """The last `TAIL` bytes of standard output and error together."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it ran, in time, and exited with 0."""
        return self.code == 0 and not self.timed_out

    def describe(self) -> str:
        """The end in plain words: `exit code 3`, `killed by SIGSEGV`, `took longer than …`."""
        if self.error:
            return self.error
        if self.timed_out:
            return f"took longer than its time limit ({self.seconds:.1f} s)"
        if self.signal is not None:
            try:
                return f"killed by {signal.Signals(self.signal).name}"
            except ValueError:
                return f"killed by signal {self.signal}"
        return f"exit code {self.code}"

    def last_line(self, limit: int = 200) -> str:
        """The last line of output that isn't empty, cut to `limit` characters."""
        lines = self.output.decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:limit]


class Cancellable(Protocol):
    """A command on its way."""

    def cancel(self) -> None:
        """Kill its process group; `on_exit` won't be called any more. Harmless when it is over."""


class Spawn(Protocol):
    """How the parts of this role run a command; `Commands.run` is the one implementation."""

    def __call__(  # noqa: D102  the class says it
        self,
        argv: Sequence[str],
        *,
        on_exit: Callable[[Finished], object],
        env: Mapping[str, str],
        cwd: str = "/",
        user: str | None = None,
        group: str | None = None,
        timeout: float | None = None,
    ) -> Cancellable: ...


class Launch(Protocol):
    """Start a process that leads its own process group, with both its outputs on `output`."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        user: str | None,
        group: str | None,
        output: int,
    ) -> int:
        """The new process's pid. Raises `SpawnError` or `OSError` when it cannot be started."""


def launch(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    user: str | None,
    group: str | None,
    output: int,
) -> int:
    """`Launch` by this role's own spawning: a session of its own, with nothing on standard input.

    Raises `SpawnError`, with what failed, when it cannot be started.
    """
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return spawn.start(
            spawn.Launch(
                argv=tuple(argv),
                env=env,
                fds={0: nothing, 1: output, 2: output},
                cwd=cwd,
                account=spawn.account(user, group),
                no_core=True,  # it may be handed what the program is
            )
        )
    finally:
        os.close(nothing)


class Command:
    """One command that is running; made by `Commands.run`."""

    def __init__(
        self,
        owner: "Commands",
        pid: int,
        output: int,
        on_exit: Callable[[Finished], object],
        on_output: Callable[[bytes], object] | None,
        flow: Flow,
    ) -> None:
        self.pid = pid
        self._on_output = on_output
        self._flow = flow
        self.timed_out = False
        self.started = owner.loop.clock.monotonic()
        self._owner = owner
        self._loop = owner.loop
        self._output = output
        self._on_exit: Callable[[Finished], object] | None = on_exit
        self._tail = bytearray()
        self._timer: Timer | None = None
        self._rest: Timer | None = None
        self._pidfd = -1
        self._loop.watch(output, self._readable)

    def limit(self, timeout: float) -> None:
        """TERM to the process group after `timeout` seconds, KILL `GRACE` seconds later."""
        self._timer = self._loop.call_later(timeout, self._expire)

    def _expire(self) -> None:
        self.timed_out = True
        try:
            # It pins the process group's id, so that what the leader leaves can be killed later
            # without the danger of hitting a stranger.
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            pass
        self._kill(signal.SIGTERM)
        self._timer = self._loop.call_later(GRACE, lambda: self._kill(signal.SIGKILL))

    def _kill(self, number: int) -> None:
        # Its leader is our child and not reaped yet: the number belongs to nobody else.
        try:
            os.killpg(self.pid, number)
        except OSError:
            pass

    def cancel(self) -> None:
        """Kill its process group; `on_exit` won't be called any more. Harmless when it is over."""
        if self._output >= 0:
            self._on_exit = None
            self._kill(signal.SIGKILL)
            self._release()

    def _readable(self, _mask: int) -> None:
        try:
            data = os.read(self._output, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.unwatch(self._output)
            return
        self._keep(self._flow.feed(data))
        if len(data) == CHUNK:
            self._loop.unwatch(self._output)
            self._rest = self._loop.call_later(REST, self._resume)

    def _resume(self) -> None:
        if self._output >= 0:
            self._loop.watch(self._output, self._readable)

    def _keep(self, data: bytes) -> None:
        if data and self._on_output is not None:
            self._on_output(data)
        self._tail += data[-TAIL:]
        del self._tail[:-TAIL]

    def _drain(self) -> None:
        # What the command itself wrote is in the pipe now; what its children may write later isn't
        # waited for.
        for _ in range(16):
            try:
                data = os.read(self._output, CHUNK)
            except BlockingIOError:
                return
            if not data:
                return
            self._keep(self._flow.feed(data))

    def _release(self) -> None:
        for timer in (self._timer, self._rest):
            if timer is not None:
                timer.cancel()
        self._loop.unwatch(self._output)
        os.close(self._output)
        self._output = -1
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def finish(self, status: int) -> None:
        """The process was reaped with this wait status."""
        if self._output < 0:
            return
        if self.timed_out and self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL, None, PROCESS_GROUP)
            except OSError:
                pass  # nobody is left, or a kernel before 6.9: the sweep of orphans finds them
        self._drain()
        self._keep(self._flow.end())
        self._release()
        on_exit, self._on_exit = self._on_exit, None
        if on_exit is not None:
            code = os.waitstatus_to_exitcode(status)
            on_exit(
                Finished(
                    code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    timed_out=self.timed_out,
                    output=bytes(self._tail),
                    seconds=self._loop.clock.monotonic() - self.started,
                )
            )


class _Unstarted:
    """A command that could not be started: it only has to say so."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer

    def cancel(self) -> None:
        self._timer.cancel()


class Commands:
    """Runs commands on the loop; whoever reaps the role's children tells it which have ended."""

    def __init__(self, loop: Loop, launch: Launch = launch) -> None:
        self.loop = loop
        self._launch = launch
        self._running: dict[int, Command] = {}

    def run(
        self,
        argv: Sequence[str],
        *,
        on_exit: Callable[[Finished], object],
        env: Mapping[str, str],
        cwd: str = "/",
        user: str | None = None,
        group: str | None = None,
        timeout: float | None = None,
        on_output: Callable[[bytes], object] | None = None,
        redactor: Callable[[], Redactor] = Redactor,
    ) -> Cancellable:
        """Start a command; `on_exit` is called in the loop once it has ended, never before return.

        `env` is its whole environment. `on_output` is given what it says, as it comes, without the
        secrets that `redactor` knows at the start; so is what is kept of it. After
        `timeout` seconds its process group is sent TERM, and KILL two seconds later. A command
        that cannot be started ends with `Finished.error`.
        """
        try:
            read, write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            return self._failed(on_exit, f"cannot run {argv[0]}: {error}")
        try:
            os.set_blocking(read, False)
            pid = self._launch(argv, env=env, cwd=cwd, user=user, group=group, output=write)
        except spawn.SpawnError as error:
            os.close(read)
            return self._failed(on_exit, str(error))
        except (OSError, ValueError) as error:
            os.close(read)
            return self._failed(on_exit, f"cannot run {argv[0]}: {error}")
        finally:
            os.close(write)
        command = self._running[pid] = Command(
            self, pid, read, on_exit, on_output, Flow(redactor())
        )
        if timeout is not None:
            command.limit(timeout)
        return command

    def _failed(self, on_exit: Callable[[Finished], object], why: str) -> Cancellable:
        return _Unstarted(self.loop.call_later(0.0, lambda: on_exit(Finished(error=why))))

    def reaped(self, pid: int, status: int) -> bool:
        """Whether the child that was waited for was one of these; its end is reported at once."""
        command = self._running.pop(pid, None)
        if command is None:
            return False
        command.finish(status)
        return True

    def owns(self, pid: int) -> bool:
        """Whether a command of this pid is running, or killed and not yet reaped."""
        return pid in self._running

    def pids(self) -> tuple[int, ...]:
        """The pids of all commands that were not reaped yet."""
        return tuple(self._running)

    def close(self) -> None:
        """Kill every command; none reports any more. Reaping them is still the caller's."""
        for command in tuple(self._running.values()):
            command.cancel()
