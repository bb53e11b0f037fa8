"""Checks by a command's exit code, as Nagios and Consul know it: 0 pass, 1 warn, other fail."""

import asyncio
import os
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

from atlasd import hookimpl
from atlasd.contracts.checks import CheckResult, CheckType, Health
from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import Settings

ATLASD_API = 1

MOST_OUTPUT = 4096
"""Bytes of output that are kept; the rest is read and thrown away."""
MOST_READ = 1024 * 1024
"""Bytes of output after which the command is ended."""

DEATH = timedelta(milliseconds=500)
"""What a killed process may take to be gone, before it is left to be buried in passing."""

# What a command is told of the daemon's own environment. The rest may hold what is the daemon's
# alone: its notify socket, its watchdog, secrets of whoever started it.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME")


def _command(value: object) -> object:
    """A list of words from one text, as a shell would split it; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {error}") from None


class ExecSettings(Settings):
    """Settings of an `exec` check."""

    command: Annotated[list[str], BeforeValidator(_command)] = Field(
        min_length=1,
        description="Program and arguments: a list, or one text that is split as a shell would "
        "split it; no shell runs.",
        examples=[["/usr/lib/nagios/plugins/check_disk", "-w", "10%"]],
    )
    cwd: str = Field(default="/", description="Folder in which it runs.")
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Environment, beside PATH, HOME, the locale and the time zone.",
    )


class ExecCheck:
    """Runs the command, in a process group that does not outlive the run."""

    def __init__(self, settings: ExecSettings, context: PluginContext) -> None:
        self._settings = settings
        self._context = context

    async def run(self, limit: timedelta, /) -> CheckResult:
        """The command's verdict; unknown when it cannot be run."""
        settings = self._settings
        began = self._context.clock.monotonic()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220  returns as soon as the program runs
                settings.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=settings.cwd,
                env={k: os.environ[k] for k in INHERITED if k in os.environ} | settings.env,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            missing = getattr(error, "filename", None) or settings.command[0]
            output = f"cannot run {shlex.join(settings.command)}: {missing}: {words}"
            self._context.log.warning("%s", output)
            return CheckResult(status=Health.UNKNOWN, output=output)
        run = _Run(process)
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await run.finish()
        except TimeoutError:
            pass
        finally:
            code = await run.end()
        if code is not None:
            return _verdict(code, run.output, self._context.clock.monotonic() - began)
        words = f"it did not end within {limit.total_seconds():g} s and was killed"
        if run.flooded:
            words = f"it wrote more than {MOST_READ // 1024} KiB and was killed"
        return CheckResult(status=Health.FAIL, output=_said(words, run.output))


def _verdict(code: int, output: str, seconds: float) -> CheckResult:
    if code == 0:
        status = Health.PASS
    elif code == 1:
        status, output = Health.WARN, _said("exit code 1", output)
    elif code > 0:
        status, output = Health.FAIL, _said(f"exit code {code}", output)
    else:
        status, output = Health.FAIL, _said(f"killed by {_signal_name(-code)}", output)
    return CheckResult(status=status, output=output, observed_value=seconds, observed_unit="s")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _said(what: str, output: str) -> str:
    return f"{what}: {output}" if output else what


class _Run:
    """One process, its output, and its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._kept = bytearray()
        self._read = 0
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        assert process.stdout is not None
        self._pipe = process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._ended = asyncio.Event()
        self._over = asyncio.Event()
        self._loop.add_reader(self._pidfd, self._end)
        self._loop.add_reader(self._pipe, self._take)

    @property
    def output(self) -> str:
        """The beginning of what it wrote, stripped."""
        text = self._kept.decode(errors="replace").strip()
        return text + "…" if self._read > len(self._kept) else text

    @property
    def flooded(self) -> bool:
        """Whether it wrote so much that it was ended."""
        return self._read > MOST_READ

    async def finish(self) -> None:
        """Wait until the process has ended, or written too much."""
        await self._over.wait()

    async def end(self) -> int | None:
        """Kill what is left of its process group.

        The exit code, negative for a signal; None when the process had not ended by itself.
        """
        by_itself = self._ended.is_set()
        self._take()
        self._loop.remove_reader(self._pipe)
        if self._process.stdout is not None:
            self._process.stdout.close()
        # The process has not been waited for, so its number is still its group's and nobody
        # else's: whatever it left behind is found by it.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            async with asyncio.timeout(DEATH.total_seconds()):
                await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            if not self._ended.is_set():
                # A process that waits for a disk cannot die before it has waited.
                self._loop.add_reader(self._pidfd, self._reap)
        if not self._ended.is_set():
            return None
        code = self._reap()
        return code if by_itself else None

    def _end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._ended.set()
        self._over.set()

    def _reap(self) -> int:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        return self._process.wait()

    def _take(self) -> None:
        # A few reads at a time: a flood must not keep the loop from its other work.
        for _ in range(4):
            try:
                chunk = os.read(self._pipe, 65536)
            except BlockingIOError:
                return
            if not chunk:
                self._loop.remove_reader(self._pipe)
                return
            self._read += len(chunk)
            self._kept += chunk[: MOST_OUTPUT - len(self._kept)]
            if self.flooded:
                self._loop.remove_reader(self._pipe)
                self._over.set()
                return


@asynccontextmanager
async def open_check(settings: ExecSettings, context: PluginContext) -> AsyncIterator[ExecCheck]:
    """A check that holds nothing between its runs."""
    yield ExecCheck(settings, context)


@hookimpl
def register_health_checks() -> list[CheckType]:
    """The `exec` check."""
    return [
        CheckType(
            name="exec",
            summary="a command's exit code: 0 pass, 1 warn, other fail",
            settings=ExecSettings,
            open=open_check,
            measurement="responseTime",
        )
    ]
