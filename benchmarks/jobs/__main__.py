"""The job queue beside its peers, in one run: `python -m benchmarks.jobs`."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.jobs.mark import marked
from benchmarks.jobs.systems import APPS, PATIENCE, System, end, peers_python, systems
from benchmarks.supervision.procfs import family, pss_mib
from benchmarks.supervision.supervisor import Unavailable

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
DRAIN_LIMIT = 30.0
"""Seconds after which a drain is judged by what was done."""


@dataclass(kw_only=True)
class Result:
    """What was measured of one system; None where it wasn't."""

    one: float | None = None
    many: float | None = None
    bulk: float | None = None
    drain: float | None = None
    p50: float | None = None
    p99: float | None = None
    memory: float | None = None
    more: dict[str, float] = field(default_factory=dict)


class Bench:
    """One system, its servers started."""

    def __init__(
        self, system: System, python: Path, folder: Path, variables: dict[str, str],
        servers: list[int],
    ) -> None:  # fmt: skip
        self.system, self.python, self.folder, self.servers = system, python, folder, servers
        self.counts = folder / "counts"
        self.counts.mkdir()
        self.variables = {
            **os.environ, **variables, "RQ_REDIS_URL": variables.get("BENCH_REDIS", ""),
            **system.variables, "BENCH_COUNTS": str(self.counts),
            "BENCH_SOCKET": str(folder / "late.sock"), "PYTHONPATH": f"{HERE}:{APPS}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def run(self, *words: str) -> str:
        """What a program of the system's environment prints."""
        done = subprocess.run(
            (self.python, *words), cwd=APPS, env=self.variables, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(" ".join(done.stderr.strip().splitlines()[-1:]) or "it has failed")
        return done.stdout

    def drive(self, what: str, count: int) -> tuple[int, float]:
        """What the producer has done, and in how many seconds."""
        done, seconds = json.loads(
            self.run(str(HERE / "drive.py"), self.system.app, what, str(count))
        )
        return done, seconds

    @contextlib.contextmanager
    def workers(self) -> Iterator[list[int]]:
        """Two worker processes, for as long as it is entered; their commands' pids."""
        first, *words = self.system.worker
        command: tuple[str | Path, ...] = (self.python, first, *words)
        if first.isalpha():
            command = (self.python.parent / first, *words)
        log = (self.folder / "worker.log").open("ab")
        started = [
            subprocess.Popen(
                command, cwd=APPS, env=self.variables, stdout=log, stderr=log,
                start_new_session=True,
            )
            for _ in range(self.system.workers)
        ]  # fmt: skip
        try:
            yield [process.pid for process in started]
        finally:
            for process in started:
                end(process)
                # Not all of them take their children along.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            log.close()

    def drained(self, before: int, count: int, *, limit: float = DRAIN_LIMIT) -> float:
        """Jobs a second, from the first that begins to the last. Raises Unavailable."""
        since = time.monotonic()
        while (first := marked(self.counts) - before) == 0:
            if time.monotonic() - since > PATIENCE:
                raise Unavailable(f"no job has begun: {self.folder}/worker.log")
            time.sleep(0.001)
        began = time.monotonic()
        while (done := marked(self.counts) - before) < count:
            if time.monotonic() - began > limit:
                break
            time.sleep(0.002)
        return (done - first) / (time.monotonic() - began)


def measure(bench: Bench, count: int) -> Result:
    """Everything that is measured of every system."""
    found = Result()
    if bench.system.before:
        bench.run(*bench.system.before)
    waiting = 0
    for what, jobs in (("one", count // 5), ("many", count // 2), ("bulk", count)):
        done, seconds = bench.drive(what, jobs)
        setattr(found, what, done / seconds)
        waiting += done + {"one": 1, "many": 64, "bulk": 0}[what]
    with bench.workers() as pids:
        found.drain = bench.drained(0, waiting)
        if marked(bench.counts) < waiting:
            return found  # it would still be busy with the rest
        time.sleep(1.0)
        found.p50, found.p99 = late(bench, 300)
        found.memory = pss_mib(family([*bench.servers, *pids], without=""))
    return found


def late(bench: Bench, count: int) -> tuple[float, float]:
    """Milliseconds from before the enqueue to the start of the handler: median and 99 of 100."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        Path(bench.variables["BENCH_SOCKET"]).unlink(missing_ok=True)
        heard.bind(bench.variables["BENCH_SOCKET"])
        heard.settimeout(PATIENCE)
        with ThreadPoolExecutor(1) as pool:
            driven = pool.submit(bench.drive, "late", count)
            times = sorted(struct.unpack("d", heard.recv(8))[0] * 1000.0 for _ in range(count))
            driven.result()
    return statistics.median(times), times[int(len(times) * 0.99) - 1]


def ours(bench: Bench, found: Result, backlog: int) -> None:
    """What only atlasd is measured in: a long backlog, and a worker that is killed."""
    before = marked(bench.counts)
    for name, count in (("drain of ten thousand", 10_000), (f"drain of {backlog:,}", backlog)):
        bench.drive("bulk", count)
        with bench.workers():
            found.more[name] = bench.drained(before, count, limit=120.0)
            while marked(bench.counts) < before + count:
                time.sleep(0.01)
        before += count
    found.more["killed worker's jobs begin again after, s"] = killed(bench)


def killed(bench: Bench) -> float:
    """Seconds from `kill -9` of a worker in mid-drain to the end of all that it held."""
    before, count = marked(bench.counts), 20_000
    bench.drive("bulk", count)
    one = ("-m", "atlasd.worker", "atlasd_app")
    victim = subprocess.Popen((bench.python, *one), cwd=APPS, env=bench.variables)
    while marked(bench.counts) < before + 2_000:
        time.sleep(0.001)
    other = subprocess.Popen((bench.python, *one), cwd=APPS, env=bench.variables)
    time.sleep(0.02)
    victim.kill()
    at = time.monotonic()
    victim.wait()
    try:
        while marked(bench.counts) < before + count or unfinished(bench):
            if time.monotonic() - at > DRAIN_LIMIT:
                raise Unavailable("the killed worker's jobs did not come back")
            time.sleep(0.02)
        return time.monotonic() - at
    finally:
        end(other)


def unfinished(bench: Bench) -> int:
    """Jobs of the bench's queue that are not final."""
    words = ("-m", "atlasd.cli.atlasctl", "queue", "list", "--json", "--root")
    root = Path(bench.variables["ATLASD_JOBS"]).parent.parent
    rows = json.loads(bench.run(*words, str(root)))["queues"]
    return sum(row["scheduled"] + row["available"] + row["running"] for row in rows)


def raw_fsyncs(folder: Path, count: int = 1000) -> float:
    """Appends of 200 bytes a second, each synchronised: what the disk can do."""
    with (folder / "raw").open("wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(count):
            file.write(b"x" * 200)
            os.fsync(file.fileno())
        return count / (time.perf_counter() - began)


def table(results: dict[str, Result | str], fsyncs: float) -> str:
    """The results as Markdown."""
    head = ("system, durability", "enqueue one by one", "64 producers", "bulk",
            "drain, 2 workers", "p50 ms", "p99 ms", "memory MiB")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, found in results.items():
        if isinstance(found, str):
            lines.append(f"| {name} | not run: {found} | | | | | | |")
            continue
        numbers = (found.one, found.many, found.bulk, found.drain)
        cells = ["–" if value is None else f"{value:,.0f}" for value in numbers]
        cells += [
            "–" if value is None else f"{value:.{digits}f}"
            for value, digits in ((found.p50, 2), (found.p99, 2), (found.memory, 0))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"Appends with an fsync each: {fsyncs:,.0f} a second.", ""]
    for name, found in results.items():
        if not isinstance(found, str):
            lines += [f"- {name}: {what}: {value:,.2f}" for what, value in found.more.items()]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="jobs of the bulk (10,000)")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="the long backlog, ours")
    parser.add_argument("--only", help="systems whose name has this in it")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "atlasd-bench")
    parser.add_argument("--save", action="store_true", help="write it into benchmarks/results")
    options = parser.parse_args(words)
    options.cache.mkdir(exist_ok=True)
    results: dict[str, Result | str] = {}
    peers: Path | None = None
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="atlasd-bench-") as place:
        fsyncs = raw_fsyncs(Path(place))
    for system in systems(options.cache):
        name = f"{system.name}, {system.durability}"
        if options.only and options.only.lower() not in name.lower():
            continue
        folder = Path(tempfile.mkdtemp(prefix="ab-"))
        try:
            if not system.own:
                peers = peers or peers_python(options.cache)
            python = Path(sys.executable) if system.own else peers
            assert python is not None
            with system.server(folder) as (variables, servers):
                bench = Bench(system, python, folder, variables, servers)
                found = measure(bench, options.count)
                if system.name == "atlasd" and options.backlog:
                    ours(bench, found, options.backlog)
            results[name] = found
        except (Unavailable, subprocess.SubprocessError, OSError) as error:
            results[name] = str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(table({name: results[name]}, fsyncs).splitlines()[2], flush=True)
    text = table(results, fsyncs)
    print(text)
    if options.save:
        date = dt.date.today().isoformat()  # noqa: DTZ011  the day here
        head = (
            f"# Job queues, {date}\n\nOne run on {os.cpu_count()} processors, load before it"
            f" {load:.1f}. Payload 200 bytes, {options.count:,} jobs in bulk, two worker"
            " processes, the real SDK of each with a handler that counts itself.\n\n"
        )
        (RESULTS / f"{date}-jobs.md").write_text(head + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
