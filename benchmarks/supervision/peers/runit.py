"""runit, from its Debian package."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.supervision import install
from benchmarks.supervision.probe import Program
from benchmarks.supervision.procfs import alive, family
from benchmarks.supervision.supervisor import Common, shell_words, wait_until


class Runit(Common):
    """A runsvdir over one runsv a program, and one svlogd a program whose output is kept."""

    name = "runit"

    def install(self, cache: Path, work: Path) -> None:
        """Unpack the Debian package."""
        self._place = install.from_debian(cache, "runit")
        self._env = install.debian_environment(self._place)

    def version(self) -> str:
        """Give the package's version."""
        return install.debian_version(self._place, "runit")

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Write a service directory for each program and start runsvdir."""
        self.home = home
        self._services = [home / "sv" / program.name for program in programs]
        for program, folder in zip(programs, self._services, strict=True):
            folder.mkdir(parents=True)
            _script(folder / "run", f"exec {shell_words(program.command)}")
            if program.capture:
                (folder / "log/main").mkdir(parents=True)
                _script(folder / "log/run", "exec svlogd ./main")
        self.recover()

    def recover(self) -> None:
        """Start runsvdir, unless it still runs: then a killed runsv is its affair."""
        if not (self._started and self._started[-1].poll() is None):
            self._pid = self.launch("runsvdir", "-P", self.home / "sv", env=self._env)

    def roots(self) -> Mapping[str, int]:
        """Give runsvdir; all runsv are its children."""
        return {"runsvdir": self._pid}

    def _sv(self, *words: str) -> str:
        return self.ask("sv", *words, *self._services, env=self._env)

    def running(self) -> int:
        """Count what it calls run."""
        return sum(line.startswith("run: ") for line in self._sv("status").splitlines())

    def status(self) -> None:
        """Run sv status on every service directory."""
        self._sv("status")

    def restart_all(self) -> None:
        """Run sv restart on every service directory."""
        self._sv("-w", "60", "restart")

    def log_files(self, program: str) -> list[Path]:
        """Give svlogd's files: the names of the rotated ones are their times."""
        folder = self.home / "sv" / program / "log/main"
        return [*sorted(folder.glob("@*")), folder / "current"]

    def stop(self) -> None:
        """Send runsvdir SIGHUP, which has each runsv stop its program and go."""
        tree = family([self._pid], without="")
        self.end_started(signal.SIGHUP)
        wait_until(lambda: not any(alive(pid) for pid in tree), 30)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
