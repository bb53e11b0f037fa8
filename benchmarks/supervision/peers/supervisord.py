"""supervisord, from its Python package."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.supervision import install
from benchmarks.supervision.probe import Program
from benchmarks.supervision.supervisor import Common, shell_words


class Supervisord(Common):
    """One process, which holds all programs and captures their output."""

    name = "supervisord"

    def install(self, cache: Path, work: Path) -> None:
        """Get it with pip."""
        self._bin = install.from_pip(cache, "supervisor")

    def version(self) -> str:
        """Give the package's version."""
        return install.pip_version(self._bin, "supervisor")

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Write supervisord.conf and start it in the foreground."""
        self.home = home
        (home / "logs").mkdir()
        lines = [
            "[unix_http_server]",
            f"file={home}/s.sock",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            "[supervisorctl]",
            f"serverurl=unix://{home}/s.sock",
            "[supervisord]",
            "nodaemon=true",
            f"logfile={home}/supervisord.log",
            f"pidfile={home}/supervisord.pid",
            f"childlogdir={home}/logs",
        ]
        for program in programs:
            lines += [f"[program:{program.name}]", f"command={shell_words(program.command)}"]
        (home / "supervisord.conf").write_text("\n".join(lines) + "\n")
        self.recover()

    def recover(self) -> None:
        """Start it in the foreground."""
        self._pid = self.launch(self._bin / "supervisord", "-c", self.home / "supervisord.conf")

    def roots(self) -> Mapping[str, int]:
        """Give the one process."""
        return {"supervisord": self._pid}

    def _ctl(self, *words: str) -> str:
        return self.ask(self._bin / "supervisorctl", "-c", self.home / "supervisord.conf", *words)

    def running(self) -> int:
        """Count what it calls RUNNING."""
        return self._ctl("status").count(" RUNNING ")

    def status(self) -> None:
        """Run supervisorctl status."""
        self._ctl("status")

    def restart_all(self) -> None:
        """Run supervisorctl restart all."""
        self._ctl("restart", "all")

    def log_files(self, program: str) -> list[Path]:
        """Give the stdout log and its numbered predecessors; the highest number is the oldest."""
        found = list((self.home / "logs").glob(f"{program}-stdout---supervisor-*.log*"))
        return sorted(found, key=_age, reverse=True)

    def stop(self) -> None:
        """Send it SIGTERM."""
        self.end_started(signal.SIGTERM)


def _age(path: Path) -> int:
    return int(path.suffix[1:]) if path.suffix[1:].isdigit() else 0
