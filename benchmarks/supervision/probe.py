"""The program under the supervisors: built here, and what it leaves behind read."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LINE_BYTES = 100
_LINE = re.compile(rb"@(\d+):(\d{10})@")


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program for a supervisor to run; `capture` wants its output kept in files."""

    name: str
    command: tuple[str, ...]
    capture: bool = False


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a probe said of itself: `at` is CLOCK_MONOTONIC in nanoseconds."""

    name: str
    pid: int
    at: int
    event: str


class Marks:
    """The file that probes append to, read once and in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        path.chmod(0o666)
        self._offset = 0
        self.seen: list[Mark] = []

    def read(self) -> list[Mark]:
        """Give the marks that have come since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        fresh = []
        for line in whole.decode().splitlines():
            name, pid, at, event = line.split(" ")
            fresh.append(Mark(name=name, pid=int(pid), at=int(at), event=event))
        self.seen += fresh
        return fresh

    def of(self, event: str) -> list[Mark]:
        """Give all marks of one event, the unread ones included."""
        self.read()
        return [mark for mark in self.seen if mark.event == event]


def build(folder: Path) -> Path:
    """Compile the probe, static so that no loader's time is measured, and return its path.

    Raises RuntimeError when there is no C compiler or it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler: install gcc (apt-get install gcc libc6-dev)")
    binary = folder / "probe"
    source = Path(__file__).with_name("probe.c")
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-static", "-o", binary, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the probe does not compile:\n{done.stderr}")
    return binary


def numbered(chunks: Iterable[bytes]) -> dict[int, list[int]]:
    """Give the numbers of the lines found in captured output, in order, for each PID."""
    found: dict[int, list[int]] = {}
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        cut = data.rfind(b"\n") + 1
        for match in _LINE.finditer(data, 0, cut):
            found.setdefault(int(match[1]), []).append(int(match[2]))
        rest = data[cut:]
    return found
