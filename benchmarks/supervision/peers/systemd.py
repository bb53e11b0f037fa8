"""systemd as PID 1 of namespaces of its own, by the harness of the integration tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.supervision.probe import Program
from benchmarks.supervision.procfs import everyone
from benchmarks.supervision.supervisor import Common, Unavailable, first_line, shell_words
from tests.integration.systemd import machine as machines


class Systemd(Common):
    """PID 1, and journald for the output (its rate limit is off, or it would drop nearly all)."""

    name = "systemd"

    def install(self, cache: Path, work: Path) -> None:
        """Boot a machine, with the folder that the probes write to mounted into it."""
        missing = machines.why_unsupported()
        if missing:
            raise Unavailable(missing)
        shutil.rmtree(cache / "machine", ignore_errors=True)
        try:
            self._machine = machines.boot(cache / "machine", writable={work: str(work)})
        except RuntimeError as error:
            raise Unavailable(first_line(str(error))) from error

    def close(self) -> None:
        """Power the machine off."""
        self._machine.power_off()

    def why_not(self, measure: str) -> str | None:
        """Leave out what needs the death of PID 1."""
        return "PID 1 can't be killed" if measure == "survival" else None

    def version(self) -> str:
        """Give the version it prints."""
        return first_line(self._machine.run("systemctl", "--version").stdout).split()[1]

    def start(self, home: Path, programs: Sequence[Program]) -> None:
        """Write a unit for each program and have systemd start them all."""
        self.home = home
        self._units = [f"bench-{program.name}.service" for program in programs]
        for unit, program in zip(self._units, programs, strict=True):
            self._machine.write(
                f"/run/systemd/system/{unit}",
                f"[Service]\nExecStart={shell_words(program.command)}\nRestart=always\n",
            )
        self._machine.run("systemctl", "daemon-reload")
        self._started.append(
            self._machine.start("systemctl", "start", *self._units, stdin=-3, stdout=-3)
        )

    def recover(self) -> None:
        """Never called: see why_not."""

    def roots(self) -> Mapping[str, int]:
        """Give PID 1 and journald."""
        journald = int(self._machine.show("systemd-journald.service", "MainPID"))
        return {"systemd": self._machine.leader, "journald": self.host_pid(journald)}

    def host_pid(self, pid: int) -> int:
        """Find the process here whose PID in the machine's namespace is `pid`."""
        ours = Path(f"/proc/{self._machine.leader}/ns/pid").readlink()
        for candidate in everyone():
            try:
                if Path(f"/proc/{candidate}/ns/pid").readlink() != ours:
                    continue
                status = Path(f"/proc/{candidate}/status").read_text()
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("NSpid:") and int(line.split()[-1]) == pid:
                    return candidate
        raise ProcessLookupError(f"no process of the machine's is PID {pid}")

    def _list(self) -> str:
        return self._machine.run(
            "systemctl", "list-units", "--no-pager", "--plain", "--no-legend", "bench-*"
        ).stdout

    def running(self) -> int:
        """Count what it calls running."""
        return self._list().count(" running ")

    def status(self) -> None:
        """Run systemctl list-units on them."""
        self._list()

    def restart_all(self) -> None:
        """Run systemctl restart on all units."""
        self._machine.run("systemctl", "restart", *self._units, timeout=300)

    def captured(self, program: str) -> Iterator[bytes]:
        """Read the journal of the program's unit."""
        yield self._journal(program).encode()

    def has_captured(self, program: str, text: bytes) -> bool:
        """Look at the newest lines of the unit's journal."""
        return text.decode() in self._journal(program, "-n", "3")

    def _journal(self, program: str, *words: str) -> str:
        return self._machine.run(
            *("journalctl", "--no-pager", "-o", "cat", "-u", f"bench-{program}.service"),
            *words,
            timeout=300,
        ).stdout

    def stop(self) -> None:
        """Run systemctl stop on all units, and forget them."""
        for process in self._started:
            process.wait(120)
        self._started.clear()
        self._machine.run("systemctl", "stop", *self._units, check=False, timeout=300)
        self._machine.run("systemctl", "reset-failed", "bench-*", check=False)
        for unit in self._units:
            (self._machine.root / "run/systemd/system" / unit).unlink(missing_ok=True)
        self._machine.run("journalctl", "--rotate", "--vacuum-size=1", check=False)
