"""What the measurements expect of a supervisor, and what the adapters share."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.supervision.probe import Program


class Unavailable(Exception):  # noqa: N818 - it is a state of the host, not a fault
    """This supervisor can't be had here; the message says why."""


class Supervisor(Protocol):
    """One supervisor, with its defaults, beneath the measurements."""

    name: str

    def install(self, cache: Path, work: Path) -> None:
        """Get it, once, into `cache`; all its later homes lie in `work`. Raises Unavailable."""

    def version(self) -> str:
        """Give its version."""

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Start it on these programs, its files in the empty folder `home`; doesn't wait."""

    def roots(self) -> Mapping[str, int]:
        """Give its top processes, by what they are called."""

    def running(self) -> int:
        """Ask it how many programs are up; 0 while it can't be asked."""

    def status(self) -> None:
        """Run what its user would type to see how all programs are."""

    def restart_all(self) -> None:
        """Have it restart every program, by its own command."""

    def recover(self) -> None:
        """Start it again after its death, as a service manager would."""

    def captured(self, program: str) -> Iterator[bytes]:
        """Give what it has captured of a program's output, oldest first, in chunks."""

    def has_captured(self, program: str, text: bytes) -> bool:
        """Say whether `text` stands in the newest captured output."""

    def stop(self) -> None:
        """End it and its programs in the way it is meant to be."""

    def close(self) -> None:
        """Give back what `install` holds on to."""

    def host_pid(self, pid: int) -> int:
        """Give the PID here of a process that calls itself `pid`."""

    def why_not(self, measure: str) -> str | None:
        """Say why a measurement makes no sense with it, None when it does."""


class Common:
    """What most adapters do alike: a daemon in the foreground, log files, no namespaces."""

    name = ""

    def __init__(self) -> None:
        self.home = Path()
        self._started: list[subprocess.Popen[bytes]] = []

    def launch(self, *command: str | Path, env: Mapping[str, str] | None = None) -> int:
        """Start a process in a session of its own, its output in `home`, and return its PID."""
        with (self.home / f"output-{len(self._started)}.txt").open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=None if env is None else {**os.environ, **env},
            )
        self._started.append(process)
        return process.pid

    def ask(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run a command and give its output, whatever its exit status."""
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
            env=None if env is None else {**os.environ, **env},
        )
        return done.stdout.decode(errors="replace")

    def end_started(self, with_signal: signal.Signals, *, seconds: float = 60) -> None:
        """Signal every process launched, wait for it, kill it when it won't go."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(with_signal)
        for process in self._started:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._started.clear()

    def host_pid(self, pid: int) -> int:
        """Give the PID itself: no namespaces."""
        return pid

    def why_not(self, measure: str) -> str | None:
        """Refuse nothing."""
        return None

    def close(self) -> None:
        """Hold on to nothing."""

    def log_files(self, program: str) -> list[Path]:
        """Give the files with a program's output, oldest first."""
        raise NotImplementedError

    def captured(self, program: str) -> Iterator[bytes]:
        """Read a program's log files, the compressed ones too."""
        for path in self.log_files(program):
            with contextlib.suppress(FileNotFoundError):
                yield from _chunks(path)

    def has_captured(self, program: str, text: bytes) -> bool:
        """Look at the ends of the two newest files: one may just have been rotated."""
        for path in reversed(self.log_files(program)[-2:]):
            with contextlib.suppress(FileNotFoundError):
                if path.suffix == ".gz":
                    if any(text in chunk for chunk in _chunks(path)):
                        return True
                    continue
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 4096))
                    if text in file.read():
                        return True
        return False


def _chunks(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.005) -> bool:
    """Wait for a condition; False when it hasn't come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def first_line(text: str) -> str:
    """Give the first line that says anything."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "?")


def shell_words(words: Iterable[str]) -> str:
    """Join a command for a shell; the probe's words need no quoting."""
    joined = " ".join(words)
    assert not set(joined) & set("'\"$`\\;&|<>()"), joined
    return joined
