"""What reading, time-stamping, writing and rotating output costs: MB/s and CPU seconds per GB.

    python -m benchmarks.output_capture [--seconds 3] [--writers 1]

A small C program (compiled here) writes 100-byte lines into a captured stream, one or forty a
write, as fast as it can; the figures are those of the process that captures.
"""

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from atlasd.services.loop import Loop
from atlasd.services.output import Capture
from atlasd.services.spec import KnownSecret

LINE = (
    "2026-11-25T18:04:05 INFO shop.orders: order 104729 of customer 7919 was Paid, total 12.50 EUR"
).ljust(99)
"""What a program might say: 99 characters."""
WRITER = r"""
#include <string.h>
#include <unistd.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    int lines = atoi(argv[1]);
    static char block[100 * 1000];
    for (char *line = block; line < block + 100 * lines; line += 100) {
        memcpy(line, argv[2], 99);
        line[99] = '\n';
    }
    for (;;) if (write(1, block, 100 * lines) < 0) return 1;
}
"""


def compile_writer(folder: Path) -> Path:
    source = folder / "writer.c"
    source.write_text(WRITER)
    subprocess.run(["cc", "-O2", "-o", str(folder / "writer"), str(source)], check=True)
    return folder / "writer"


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_kib() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])


def measure(
    folder: Path,
    writer: Path,
    lines: int,
    seconds: float,
    writers: int,
    secrets: Sequence[KnownSecret] = (),
) -> float:
    """Print the figures; MB/s. The `secrets` are looked for in all that is captured."""
    loop = Loop()
    run = Path(tempfile.mkdtemp(prefix=f"run{lines}-", dir=folder))
    capture = Capture(loop, str(run), str(folder / "log"))
    capture.recover()
    for index in range(writers):
        capture.keep_out("flood", index, secrets)
    streams = [capture.stream("flood", index, "stdout") for index in range(writers)]
    children = []
    before_memory = resident_kib()
    for stream in streams:
        end = stream.child_end()
        children.append(subprocess.Popen([str(writer), str(lines), LINE], stdout=end))
        os.close(end)
    longest = 0.0
    start_cpu, start, turns = cpu_seconds(), time.monotonic(), loop.wakeups
    while time.monotonic() - start < seconds:
        loop.turn(0.1)
    elapsed, cpu = time.monotonic() - start, cpu_seconds() - start_cpu
    count, wakeups = capture.bytes_total, loop.wakeups - turns
    for _ in range(300):  # how long one turn holds the loop when a stream floods
        began = time.process_time()
        loop.turn(0.1)
        longest = max(longest, time.process_time() - began)
    for child in children:
        child.kill()
        child.wait()
    for _ in range(20):
        loop.turn(0.01)
    after_memory = resident_kib()
    print(
        f"{writers} × {lines:>4} lines a write: {count / elapsed / 1e6:6.0f} MB/s, "
        f"{cpu / count * 1e9:5.2f} CPU s/GB, {count / wakeups / 1024:6.0f} KiB a wake-up, "
        f"longest turn {longest * 1e3:.1f} ms, PSS {before_memory} → {after_memory} KiB"
    )
    capture.close()
    loop.close()
    return count / elapsed / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--writers", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="atlasd-output-"))
    try:
        writer = compile_writer(folder)
        for lines in (1, 40):
            measure(folder, writer, lines, options.seconds, options.writers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
