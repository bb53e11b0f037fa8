"""circus, from its Python package."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.supervision import install
from benchmarks.supervision.probe import Program
from benchmarks.supervision.supervisor import Common, shell_words


class Circus(Common):
    """One process with a ZeroMQ control socket; it captures output only where told to."""

    name = "circus"

    def install(self, cache: Path, work: Path) -> None:
        """Get it with pip."""
        self._bin = install.from_pip(cache, "circus")

    def version(self) -> str:
        """Give the package's version."""
        return install.pip_version(self._bin, "circus")

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Write circus.ini and start circusd in the foreground."""
        self.home = home
        lines = [
            "[circus]",
            f"endpoint = ipc://{home}/control",
            f"pubsub_endpoint = ipc://{home}/events",
        ]
        for program in programs:
            lines += [f"[watcher:{program.name}]", f"cmd = {shell_words(program.command)}"]
            if program.capture:
                lines += [
                    "stdout_stream.class = FileStream",
                    f"stdout_stream.filename = {home}/{program.name}.log",
                ]
        (home / "circus.ini").write_text("\n".join(lines) + "\n")
        self.recover()

    def recover(self) -> None:
        """Start circusd in the foreground."""
        self._pid = self.launch(self._bin / "circusd", self.home / "circus.ini")

    def roots(self) -> Mapping[str, int]:
        """Give the one process."""
        return {"circusd": self._pid}

    def _ctl(self, *words: str) -> str:
        return self.ask(
            *(self._bin / "circusctl", "--endpoint", f"ipc://{self.home}/control"),
            *("--timeout", "120", *words),
        )

    def running(self) -> int:
        """Count what it calls active."""
        return sum(line.endswith(": active") for line in self._ctl("status").splitlines())

    def status(self) -> None:
        """Run circusctl status."""
        self._ctl("status")

    def restart_all(self) -> None:
        """Run circusctl restart, without a watcher's name."""
        self._ctl("restart", "--waiting")

    def log_files(self, program: str) -> list[Path]:
        """Give the one file of its FileStream."""
        return [self.home / f"{program}.log"]

    def stop(self) -> None:
        """Send it SIGTERM."""
        self.end_started(signal.SIGTERM)
