"""No line is lost and none comes twice, though the capturing process dies again and again."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlasd.services.logfiles import Follower, query
from atlasd.services.loop import Loop
from atlasd.services.output import Capture
from atlasd.services.output_files import COMPRESS_AFTER
from atlasd.services.spec import Log

ROOT = Path(__file__).parent.parent.parent
PROGRAM = Path(__file__).parent / "capture_program.py"
DEATHS = 80
STREAMS = ("web/0/stdout", "web/0/stderr", "web/1/stdout", "db/0/stdout")
DEADLINE = 120.0

# Writes numbered lines, alone, many at once and torn across writes, until its stdin is closed; then
# tells how many there were.
WRITER = r"""
import os, random, select, sys, time
chance = random.Random(int(sys.argv[1]))
total, rest = 0, b""
while not select.select([0], [], [], 0)[0]:
    count = chance.choice((1, 1, 5, 400))
    texts = (b"x" * chance.randrange(80) for _ in range(count))
    lines = b"".join(b"%d %s\n" % (total + n, text) for n, text in enumerate(texts))
    total += lines.count(b"\n")
    data = rest + lines
    cut = chance.choice((len(data), len(data), chance.randrange(len(data))))
    os.write(1, data[:cut])
    rest = data[cut:]
    time.sleep(chance.choice((0.0005, 0.003, 0.01)))
os.write(1, rest)
os.write(int(sys.argv[2]), b"%d" % total)
"""


class Writer:
    """A child of the service: its stdout is the named pipe, opened as `child_end` does."""

    def __init__(self, pipe: Path, seed: int) -> None:
        self.pipe = os.open(pipe, os.O_RDWR)
        self.answer, told = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(seed), str(told)],
            stdin=subprocess.PIPE,
            stdout=self.pipe,
            pass_fds=(told,),
        )
        os.close(told)

    def stop(self) -> int:
        """Lines that it wrote in all."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        total = os.read(self.answer, 64)
        self.process.wait(DEADLINE)
        os.close(self.answer)
        return int(total)

    def kill(self) -> None:
        """End it, if the test did not come so far."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        os.close(self.pipe)


class Capturing:
    """The capturing program, started again after each death."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recoveries = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, death: str = "none") -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(PROGRAM),
                str(self.root / "run"),
                str(self.root / "log"),
                ",".join(STREAMS),
                death,
            ],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return self.process

    def over(self) -> None:
        """Wait for its end and see what it had found at its start."""
        assert self.process is not None
        said = self.process.communicate(timeout=DEADLINE)[0]
        self.recoveries += said.count(b"recovered")

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def capturing(tmp_path: Path) -> Iterator[Capturing]:
    (tmp_path / "run").mkdir()
    capturing = Capturing(tmp_path)
    yield capturing
    capturing.kill()


def wait_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    while line := process.stdout.readline():
        if line == b"ready\n":
            return
    pytest.fail("the capturing program ended before it was ready")


def lines_of(root: Path, name: str) -> list[str]:
    service, instance, stream = name.split("/")
    found = query(str(root / "log"), service, instances=[int(instance)], stream=stream)
    return [line.message for line in found if not line.partial]


@pytest.mark.soak
def test_each_line_is_there_once_and_in_order_through_eighty_deaths(capturing: Capturing) -> None:
    root = capturing.root
    chance = random.Random(20261123)
    first = capturing.start()
    wait_ready(first)
    first.kill()
    capturing.over()
    pipes = [
        root / "run/fifo" / name.replace("/", ".").replace("stdout", "out").replace("stderr", "err")
        for name in STREAMS
    ]
    # The peer: holds the pipes, so that what is in them outlives capture and writer.
    held = [os.open(pipe, os.O_RDWR | os.O_NONBLOCK) for pipe in pipes]
    writers = [Writer(pipe, seed) for seed, pipe in enumerate(pipes)]
    try:
        for number in range(DEATHS):
            if number % 3 == 0:
                # At any moment, also while it starts and recovers.
                process = capturing.start()
                if chance.random() < 0.8:
                    wait_ready(process)
                time.sleep(chance.random() * 0.05)
                process.kill()
            elif number % 3 == 1:
                # By the kernel while it works, also within a system call.
                process = capturing.start(f"cpu:{0.0005 + chance.random() * 0.004:.6f}")
            else:
                # Before a random line of the code that is on trial.
                files = len(list((root / "log").rglob("*.log*")))
                process = capturing.start(f"line:{chance.randrange(60 * files, 60 * files + 2000)}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()
            capturing.over()
        last = capturing.start()
        wait_ready(last)
        totals = [writer.stop() for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
    last.send_signal(signal.SIGTERM)
    capturing.over()
    assert last.returncode == 0
    for pipe in held:
        with pytest.raises(BlockingIOError):
            os.read(pipe, 1)
        os.close(pipe)
    assert capturing.recoveries >= 3, "hardly a death has hit a chunk on its way"
    for name, total in zip(STREAMS, totals, strict=True):
        numbers = [int(message.split(" ")[0]) for message in lines_of(root, name)]
        assert total > 1000
        assert numbers == list(range(total))


def test_a_reader_follows_a_real_writer_through_rotation_and_gzip(tmp_path: Path) -> None:
    """The whole way: program, pipe, log file, rotation, gzip, follower; nothing is stood in for."""
    loop = Loop()
    running: list[subprocess.Popen[bytes]] = []
    (tmp_path / "run").mkdir()

    def spawn(argv: list[str], on_exit: object) -> None:
        process = subprocess.Popen(argv)
        running.append(process)
        loop.call_later(0.01, lambda: reap(process, on_exit))

    def reap(process: subprocess.Popen[bytes], on_exit: object) -> None:
        code = process.poll()
        if code is None:
            loop.call_later(0.01, lambda: reap(process, on_exit))
        else:
            on_exit(code)  # type: ignore[operator]

    capture = Capture(
        loop,
        str(tmp_path / "run"),
        str(tmp_path / "log"),
        spawn=spawn,  # type: ignore[arg-type]
    )
    capture.recover()
    capture.configure("web", Log(max_size=20_000, max_files=1000))
    out = capture.stream("web", 0, "stdout")
    expected: list[str] = []
    found: list[str] = []
    deadline = time.monotonic() + DEADLINE
    with Follower(str(tmp_path / "log"), "web") as follower:
        found += [line.message for line in follower.initial()]
        for batch in range(8):
            end = out.child_end()
            count = f"n={batch * 1000}; while [ $n -lt {batch * 1000 + 500} ]"
            script = f"{count}; do echo line $n; n=$((n+1)); done"
            child = subprocess.Popen(["/bin/sh", "-c", script], stdout=end)
            os.close(end)
            expected += [f"line {batch * 1000 + number}" for number in range(500)]
            while len(found) < len(expected) and time.monotonic() < deadline:
                loop.turn(0.05)
                found += [line.message for line in follower.read()]
            assert child.wait(DEADLINE) == 0
            assert found == expected
    # Let the files be compressed now rather than in ten seconds.
    waiting = capture.files._waiting
    for position in range(len(waiting)):
        waiting[position] = (waiting[position][0] - COMPRESS_AFTER, waiting[position][1])
    capture.files._due()
    folder = tmp_path / "log/web"
    rotated = len(list(folder.glob("0.log.*")))
    assert rotated >= 4
    while len(list(folder.glob("*.gz"))) < rotated and time.monotonic() < deadline:
        loop.turn(0.05)
    assert [line.message for line in query(str(tmp_path / "log"), "web")] == expected
    assert [line.message for line in query(str(tmp_path / "log"), "web", lines=2500)] == (
        expected[-2500:]
    )
    assert len(list(folder.glob("*.gz"))) == rotated
    assert list(folder.glob(".*")) == []
    assert all(process.returncode == 0 for process in running)
    assert capture.files.total == sum(p.stat().st_size for p in folder.iterdir())
    capture.close()
    loop.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start a program as another user")
def test_a_program_of_another_user_can_open_its_stdout_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    loop = Loop()
    capture = Capture(loop, str(run), str(tmp_path / "log"))
    capture.recover()
    out = capture.stream("web", 0, "stdout", uid=65534, gid=65534)
    end = out.child_end()
    # As images do that log to a file which is a link to /dev/stdout.
    script = "echo by descriptor; echo by name > /dev/stdout; echo and appended >> /dev/stdout"
    child = subprocess.run(
        ["/bin/sh", "-c", script], stdout=end, user=65534, group=65534, check=False, cwd="/"
    )
    os.close(end)
    out.finish()
    capture.close()
    loop.close()
    assert child.returncode == 0
    assert [line.message for line in query(str(tmp_path / "log"), "web")] == [
        "by descriptor",
        "by name",
        "and appended",
    ]
