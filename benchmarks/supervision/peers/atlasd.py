"""atlasd itself: its services and core roles as two processes, as its systemd units run them."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import atlasd
from atlasd.services.rotation import parse_name
from benchmarks.supervision.probe import Program
from benchmarks.supervision.supervisor import Common


class Atlasd(Common):
    """services holds the programs and captures their output; core says what should run."""

    name = "atlasd"

    def install(self, cache: Path, work: Path) -> None:
        """Take the one of this environment."""
        self._ctl = Path(sys.executable).with_name("atlasctl")
        self._runs: list[Path] = []

    def version(self) -> str:
        """Give the version of this tree."""
        return atlasd.__version__

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Write atlasd.toml and start both roles."""
        self.home = home
        root = home / "root"
        (root / "etc").mkdir(parents=True)
        # /run is in memory wherever systemd or a container is, so the run folder is here too.
        self._runs.append(Path(tempfile.mkdtemp(prefix="bench-run-", dir="/dev/shm")))
        (root / "run").symlink_to(self._runs[-1])
        lines = ['[host]\nenvironment = "production"\n']
        for program in programs:
            command = json.dumps(list(program.command))
            lines.append(f"[services.{program.name}]\ncommand = {command}\n")
        (root / "etc/atlasd.toml").write_text("\n".join(lines))
        self._env = {"ATLASD_ROOT": str(root)}
        self.recover()
        self._core = self.launch(sys.executable, "-m", "atlasd", "core", env=self._env)

    def recover(self) -> None:
        """Start the services role, as its unit would."""
        self._services = self.launch(sys.executable, "-m", "atlasd", "services", env=self._env)

    def roots(self) -> Mapping[str, int]:
        """Give the two roles."""
        return {"services": self._services, "core": self._core}

    def running(self) -> int:
        """Count the instances whose state is running."""
        answer = self.ask(self._ctl, "status", "--json", env=self._env)
        try:
            services = json.loads(answer)["services"]
        except (ValueError, KeyError):
            return 0
        return sum(i["state"] == "running" for s in services for i in s["instances"])

    def status(self) -> None:
        """Run atlasctl status."""
        self.ask(self._ctl, "status", env=self._env)

    def restart_all(self) -> None:
        """Run atlasctl restart --all."""
        self.ask(self._ctl, "restart", "--all", env=self._env)

    def log_files(self, program: str) -> list[Path]:
        """Give the current file last, before it the rotated ones by age."""
        folder = self.home / "root/log" / program
        current = folder / "0.log"
        named = {parse_name(program, path.name): path for path in folder.glob("0.log.*")}
        rotated = sorted((file for file in named if file is not None), key=lambda f: f.order)
        return [*(named[file] for file in rotated), current]

    def captured(self, program: str) -> Iterator[bytes]:
        """Put the parts of lines together that its records hold apart (tag P)."""
        rest = b""
        message = b""
        for chunk in super().captured(program):
            *lines, rest = (rest + chunk).split(b"\n")
            whole = []
            for line in lines:
                _, _, tag, text = line.split(b" ", 3)
                message += text
                if tag == b"F":
                    whole.append(message)
                    message = b""
            yield b"".join(text + b"\n" for text in whole)

    def stop(self) -> None:
        """Run atlasctl shutdown."""
        self.ask(self._ctl, "shutdown", env=self._env)
        self.end_started(signal.SIGTERM)
        for folder in self._runs:
            shutil.rmtree(folder, ignore_errors=True)
        self._runs.clear()
