"""The measurements: each starts a supervisor on programs of its own, and gives plain figures."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.supervision import procfs
from benchmarks.supervision.probe import LINE_BYTES, Marks, Program, numbered
from benchmarks.supervision.supervisor import Supervisor, wait_until

Figures = dict[str, float]
"""Figure → value; the unit stands in the figure's name."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How long and how much: full, or `--quick`."""

    kills: int = 30
    many: int = 200
    status_calls: int = 20
    idle_seconds: float = 60
    looping: int = 50
    loop_seconds: float = 20
    flood_mb: int = 200
    floods: int = 2
    survivors: int = 20
    survival_seconds: float = 15
    restart_rounds: int = 5

    @classmethod
    def quick(cls) -> Scale:
        """A tenth of the time; the figures are then a first impression."""
        return cls(
            kills=10,
            many=40,
            status_calls=5,
            idle_seconds=5,
            looping=20,
            loop_seconds=6,
            flood_mb=20,
            floods=1,
            survivors=5,
            survival_seconds=8,
            restart_rounds=2,
        )


class Bench:
    """One supervisor over one probe; every measurement has a fresh home and leaves nothing."""

    def __init__(self, supervisor: Supervisor, probe: Path, work: Path, scale: Scale) -> None:
        self.supervisor = supervisor
        self.probe = probe
        self.work = work
        self.scale = scale
        self._homes = 0

    def programs(
        self, count: int, marks: Marks, *mode: str, capture: bool = False
    ) -> list[Program]:
        """Give `count` programs p000, p001 … of one mode."""
        names = [f"p{number:03d}" for number in range(count)]
        return [
            Program(
                name=name,
                command=(str(self.probe), str(marks.path), name, *mode),
                capture=capture,
            )
            for name in names
        ]

    @contextlib.contextmanager
    def home(self) -> Iterator[tuple[Path, Marks]]:
        """Give a fresh folder and its marks; stop the supervisor afterwards, and all it left."""
        self._homes += 1
        folder = self.work / f"{self.supervisor.name}{self._homes}"
        folder.mkdir()
        try:
            yield folder, Marks(folder / "marks")
        finally:
            # Before it is stopped, for what won't stop; a PID may be taken anew in between, hence
            # the program beside it.
            tree = {pid: procfs.executable(pid) for pid in self._processes()}
            try:
                self.supervisor.stop()
            finally:
                if self.supervisor.name != "systemd":
                    procfs.end(p for p, program in tree.items() if procfs.executable(p) == program)
                procfs.end(procfs.running(str(self.probe)))

    def _processes(self) -> list[int]:
        try:
            roots = self.supervisor.roots().values()
        except (OSError, ValueError):
            return []
        if self.supervisor.name == "systemd":
            return list(roots)
        return procfs.family(roots, without=str(self.probe))

    def usage(self) -> procfs.Usage:
        """Give what the supervisor's processes have used so far."""
        return procfs.usage(self._processes())

    def pss(self) -> float:
        """Give the memory of the supervisor's processes, PSS in MiB."""
        return procfs.pss_mib(self._processes())

    def by_role(self, figure: str, of: Callable[[list[int]], float]) -> Figures:
        """Give a figure for each top process with its descendants, where there are several."""
        roots = self.supervisor.roots()
        if len(roots) < 2:
            return {}
        return {
            f"{figure}.{role}": of(
                [pid]
                if self.supervisor.name == "systemd"
                else procfs.family([pid], without=str(self.probe))
            )
            for role, pid in roots.items()
        }

    def up(self, marks: Marks, count: int, seconds: float = 60) -> None:
        """Wait until `count` programs have started. Raises TimeoutError."""
        if not wait_until(lambda: len(marks.of("start")) >= count, seconds):
            raise TimeoutError(f"{len(marks.seen)} of {count} programs up after {seconds:.0f} s")


def restart(bench: Bench) -> Figures:
    """Measure SIGKILL to the first instruction of the new instance, each up for 2 s and more."""
    count = bench.scale.kills
    chance = random.Random(1)
    with bench.home() as (home, marks):
        bench.supervisor.start(home, bench.programs(count, marks, "hold"))
        bench.up(marks, count)
        time.sleep(3)
        first = {mark.name: mark.pid for mark in marks.of("start")}
        took = []
        for name, inner in first.items():
            pid = bench.supervisor.host_pid(inner)
            # over more than a second, so that no kill keeps step with a supervisor that polls
            time.sleep(chance.uniform(0.1, 1.2))
            killed = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            back: list[int] = []

            def is_back(name: str = name, back: list[int] = back, killed: int = killed) -> bool:
                back += [m.at for m in marks.read() if m.name == name and m.at > killed]
                return bool(back)

            if wait_until(is_back, 30, every=0.002):
                took.append((back[0] - killed) / 1e6)
    if not took:
        raise TimeoutError("no killed program came back within 30 s")
    return {
        "p50_ms": statistics.median(took),
        "p99_ms": sorted(took)[round(0.99 * (len(took) - 1))],
        "max_ms": max(took),
        "back": len(took),
        "killed": count,
    }


def many(bench: Bench) -> Figures:
    """Measure a start of many, status, idleness and memory, before and after restarts."""
    count = bench.scale.many
    figures: Figures = {"programs": count}
    with bench.home() as (home, marks):
        began = time.monotonic_ns()
        bench.supervisor.start(home, bench.programs(count, marks, "hold"))
        bench.up(marks, count, 120)
        figures["started_s"] = (max(m.at for m in marks.of("start")) - began) / 1e9
        wait_until(lambda: bench.supervisor.running() >= count, 120, every=0.02)
        figures["status_agrees_s"] = (time.monotonic_ns() - began) / 1e9
        figures["start_cpu_s"] = bench.usage().cpu
        took = []
        for _ in range(bench.scale.status_calls):
            asked = time.monotonic()
            bench.supervisor.status()
            took.append((time.monotonic() - asked) * 1e3)
        figures["status_ms"] = statistics.median(took)

        time.sleep(10 if bench.scale.idle_seconds > 30 else 2)  # what a start leaves to be done
        before = bench.usage()
        roles = bench.by_role("cpu", lambda pids: procfs.usage(pids).cpu)
        woken = bench.by_role("wakeups", lambda pids: procfs.usage(pids).wakeups)
        time.sleep(bench.scale.idle_seconds)
        after = bench.usage()
        minutes = bench.scale.idle_seconds / 60
        figures["idle_cpu_ms_per_min"] = (after.cpu - before.cpu) * 1e3 / minutes
        figures["idle_wakeups_per_s"] = (after.wakeups - before.wakeups) / (minutes * 60)
        for key, value in bench.by_role("cpu", lambda pids: procfs.usage(pids).cpu).items():
            role = key.partition(".")[2]
            figures[f"idle_cpu_ms_per_min.{role}"] = (value - roles[key]) * 1e3 / minutes
        for key, value in bench.by_role("wakeups", lambda p: procfs.usage(p).wakeups).items():
            role = key.partition(".")[2]
            figures[f"idle_wakeups_per_s.{role}"] = (value - woken[key]) / (minutes * 60)
        figures["pss_mib"] = bench.pss()
        figures |= bench.by_role("pss_mib", procfs.pss_mib)
        figures["processes"] = after.processes

        starts = len(marks.of("start"))
        for _ in range(bench.scale.restart_rounds):
            bench.supervisor.restart_all()
            starts += count
            wait_until(lambda starts=starts: len(marks.of("start")) >= starts, 60)  # type: ignore[misc]
        figures["restarts"] = len(marks.of("start")) - count
        time.sleep(2)
        figures["pss_after_restarts_mib"] = bench.pss()
        for role, value in bench.by_role("pss_after_restarts_mib", procfs.pss_mib).items():
            figures[role] = value
    return figures


def crash_loops(bench: Bench) -> Figures:
    """Measure what programs that exit at once cost the supervisor, and whether it gives up."""
    with bench.home() as (home, marks):
        bench.supervisor.start(home, bench.programs(bench.scale.looping, marks, "crash"))
        bench.up(marks, 1)
        before = bench.usage()
        roles = bench.by_role("cpu_s", lambda pids: procfs.usage(pids).cpu)
        spawned = len(marks.of("start"))
        time.sleep(bench.scale.loop_seconds)
        after, ended = bench.usage(), time.monotonic_ns()
        by_role = bench.by_role("cpu_s", lambda pids: procfs.usage(pids).cpu)
        spawns = sum(mark.at < ended for mark in marks.of("start")) - spawned
        # By now the longest delay of those that back off is far below this.
        goes_on = wait_until(lambda: marks.seen[-1].at > ended or bool(marks.read()), 45)
        return {
            "cpu_s": after.cpu - before.cpu,
            "spawns": spawns,
            "cpu_ms_per_spawn": (after.cpu - before.cpu) * 1e3 / max(1, spawns),
            "goes_on": float(goes_on),
            **{role: cpu - roles[role] for role, cpu in by_role.items()},
        }


def _flood(bench: Bench, each: int) -> Figures:
    lines = bench.scale.flood_mb * 1_000_000 // LINE_BYTES
    with bench.home() as (home, marks):
        go = home / "go"
        mode = ("flood", str(go), str(lines), str(each))
        [program] = bench.programs(1, marks, *mode, capture=True)
        bench.supervisor.start(home, [program])
        bench.up(marks, 1)
        time.sleep(1.5)
        pid = marks.of("start")[0].pid
        last = f"@{pid}:{lines:010d}@".encode()
        before = bench.usage()
        go.touch()
        arrived = wait_until(
            lambda: bool(marks.of("end")) and bench.supervisor.has_captured(program.name, last),
            180,
            every=0.02,
        )
        done = time.monotonic_ns()
        after = bench.usage()
        seconds = (done - marks.of("begin")[0].at) / 1e9
        found = numbered(bench.supervisor.captured(program.name)).get(pid, [])
    # Old lines may have been rotated away as the supervisor's defaults say; those kept must be
    # one run without a gap, up to the last.
    lost = lines - (found[-1] if found else 0)
    lost += sum(b - a - 1 for a, b in itertools.pairwise(found))
    return {
        "mb_per_s": lines * LINE_BYTES / 1e6 / seconds,
        "cpu_s_per_gb": (after.cpu - before.cpu) / (lines * LINE_BYTES / 1e9),
        "lines_lost": lost,
        "arrived": float(arrived),
    }


def output(bench: Bench) -> Figures:
    """Measure captured output: 100-byte lines, one a write and forty a write; medians."""
    figures: Figures = {}
    for each in (1, 40):
        runs = [_flood(bench, each) for _ in range(bench.scale.floods)]
        for key in runs[0]:
            of_all = [run[key] for run in runs]
            worst = key == "lines_lost"
            figures[f"{key}.{each}"] = max(of_all) if worst else statistics.median(of_all)
    return figures


def survival(bench: Bench) -> Figures:
    """Kill -9 the processes that hold the programs; see what becomes of both, and of output."""
    count = bench.scale.survivors
    with bench.home() as (home, marks):
        counters = home / "counters"
        counters.mkdir()
        programs = bench.programs(count, marks, "count", str(counters), capture=True)
        bench.supervisor.start(home, programs)
        bench.up(marks, count)
        time.sleep(3)
        first = {mark.name: mark.pid for mark in marks.of("start")}
        holders = {procfs.parent(pid) for pid in first.values()}
        for holder in holders:
            os.kill(holder, signal.SIGKILL)
        time.sleep(0.2)
        bench.supervisor.recover()
        time.sleep(bench.scale.survival_seconds)

        instances: dict[str, set[int]] = {}
        for mark in marks.of("start"):
            instances.setdefault(mark.name, set()).add(mark.pid)
        living = {n: [p for p in pids if procfs.alive(p)] for n, pids in instances.items()}
        said = bench.supervisor.running()
        adopted = [n for n in first if living[n] == [first[n]] and len(instances[n]) == 1]
        procfs.end(pid for pids in living.values() for pid in pids)
        time.sleep(1)

        written = captured = 0
        for name in first:
            found = numbered(bench.supervisor.captured(name))
            for pid in instances[name]:
                counter = counters / str(pid)
                if not counter.exists():
                    continue
                # A line may have been written, but not counted, when the kill came.
                wrote = int.from_bytes(counter.read_bytes(), "little")
                written += wrote
                captured += len({number for number in found.get(pid, []) if number <= wrote})
        return {
            "programs": count,
            "holders_killed": len(holders),
            "adopted": len(adopted) if said >= count else 0,
            "died": sum(first[n] not in living[n] for n in first),
            "duplicated": sum(len(pids) > 1 for pids in living.values()),
            "lines_written": written,
            "lines_lost": written - captured,
        }


def helpers(bench: Bench) -> Figures:
    """Stop the supervisor, and count the double-forked helpers that live on."""
    count = bench.scale.survivors
    with bench.home() as (home, marks):
        bench.supervisor.start(home, bench.programs(count, marks, "helper"))
        bench.up(marks, count)
        wait_until(lambda: len(marks.of("helper")) >= count, 30)
        time.sleep(3)
        pids = [bench.supervisor.host_pid(mark.pid) for mark in marks.of("helper")]
        bench.supervisor.stop()
        wait_until(lambda: not any(map(procfs.alive, pids)), 5)
        return {"helpers": len(pids), "left": sum(map(procfs.alive, pids))}


MEASURES: dict[str, Callable[[Bench], Figures]] = {
    "restart": restart,
    "many": many,
    "crash_loops": crash_loops,
    "output": output,
    "survival": survival,
    "helpers": helpers,
}
