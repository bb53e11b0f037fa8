"""PM2, from its Node package."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.supervision import install
from benchmarks.supervision.probe import Program
from benchmarks.supervision.supervisor import Common, wait_until


class Pm2(Common):
    """A Node daemon that its command line starts on its own."""

    name = "pm2"

    def install(self, cache: Path, work: Path) -> None:
        """Get it with npm."""
        self._bin = install.from_npm(cache, "pm2")

    def version(self) -> str:
        """Read it from the package, as the command would start a daemon to say it."""
        package = self._bin.parent / "pm2/package.json"
        return str(json.loads(package.read_text())["version"])

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Write an ecosystem file and have the daemon start it."""
        self.home = home
        self._env = {"PM2_HOME": str(home / "pm2"), "PM2_DISCRETE_MODE": "true"}
        apps = [
            {
                "name": program.name,
                "script": program.command[0],
                "args": list(program.command[1:]),
                "interpreter": "none",
            }
            for program in programs
        ]
        (home / "ecosystem.json").write_text(json.dumps({"apps": apps}))
        self.recover()

    def recover(self) -> None:
        """Run pm2 start, which starts the daemon too."""
        self.launch(self._bin / "pm2", "start", self.home / "ecosystem.json", env=self._env)

    def roots(self) -> Mapping[str, int]:
        """Give the daemon by its pid file."""
        path = self.home / "pm2/pm2.pid"
        wait_until(lambda: path.exists() and path.read_text().strip() != "", 30)
        return {"pm2": int(path.read_text())}

    def _pm2(self, *words: str) -> str:
        return self.ask(self._bin / "pm2", *words, env=self._env)

    def running(self) -> int:
        """Count what it calls online."""
        if not (self.home / "pm2/pm2.pid").exists():
            return 0  # asking would start a second daemon beside the one that is coming up
        answer = self._pm2("jlist")
        return answer.count('"status":"online"')

    def status(self) -> None:
        """Run pm2 status."""
        self._pm2("status")

    def restart_all(self) -> None:
        """Run pm2 restart all."""
        self._pm2("restart", "all")

    def log_files(self, program: str) -> list[Path]:
        """Give the one file of its output."""
        return [self.home / f"pm2/logs/{program}-out.log"]

    def stop(self) -> None:
        """Run pm2 kill."""
        self.end_started(signal.SIGTERM)
        self._pm2("kill")
