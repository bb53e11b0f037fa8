"""s6, from its Debian package."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.supervision import install
from benchmarks.supervision.probe import Program
from benchmarks.supervision.procfs import alive, family
from benchmarks.supervision.supervisor import Common, shell_words, wait_until


class S6(Common):
    """An s6-svscan over one s6-supervise a program, and an s6-log each where output is kept."""

    name = "s6"

    def install(self, cache: Path, work: Path) -> None:
        """Unpack the Debian package and its libraries."""
        self._place = install.from_debian(cache, "s6")
        self._env = install.debian_environment(self._place)
        # s6-svscan starts /usr/bin/s6-supervise, whatever PATH says
        self._over_usr = install.debian_over_usr(self._place)

    def version(self) -> str:
        """Give the package's version."""
        return install.debian_version(self._place, "s6")

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Write a service directory for each program and start s6-svscan."""
        self.home = home
        self._services = [home / "scan" / program.name for program in programs]
        for program, folder in zip(programs, self._services, strict=True):
            folder.mkdir(parents=True)
            _script(folder / "run", f"exec {shell_words(program.command)}")
            if program.capture:
                (folder / "log").mkdir()
                (folder / "kept").mkdir()
                _script(folder / "log/run", "exec s6-log ../kept")
        self.recover()

    def recover(self) -> None:
        """Start s6-svscan, unless it still runs: then a killed s6-supervise is its affair."""
        if not (self._started and self._started[-1].poll() is None):
            self._pid = self.launch(*self._over_usr, "s6-svscan", self.home / "scan", env=self._env)

    def roots(self) -> Mapping[str, int]:
        """Give s6-svscan; all s6-supervise are its children."""
        return {"s6-svscan": self._pid}

    def _stat(self) -> list[str]:
        # s6-svstat takes one directory at a time
        return [self.ask("s6-svstat", folder, env=self._env) for folder in self._services]

    def running(self) -> int:
        """Count what it calls up."""
        return sum(answer.startswith("up ") for answer in self._stat())

    def status(self) -> None:
        """Run s6-svstat on every service directory."""
        self._stat()

    def restart_all(self) -> None:
        """Run s6-svc -r on every service directory; each returns at once."""
        for folder in self._services:
            self.ask("s6-svc", "-r", folder, env=self._env)

    def log_files(self, program: str) -> list[Path]:
        """Give s6-log's files: the names of the rotated ones are their times."""
        folder = self.home / "scan" / program / "kept"
        return [*sorted(folder.glob("@*")), folder / "current"]

    def stop(self) -> None:
        """Run s6-svscanctl -t, which brings everything down."""
        tree = family([self._pid], without="")
        self.ask("s6-svscanctl", "-t", self.home / "scan", env=self._env)
        wait_until(lambda: not any(alive(pid) for pid in tree if pid != self._pid), 30)
        self.end_started(signal.SIGTERM)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
