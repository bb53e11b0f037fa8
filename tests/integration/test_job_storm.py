"""Kill storms: whatever dies, and whenever, every acknowledged job ends, one run at a time.

What is killed next, and after how much progress, is drawn from a seed that a failure shows.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from atlasd.errors import AtlasError
from atlasd.states import JobState
from atlasd.worker import Client
from atlasd.worker.client import Enqueued
from tests.integration.daemons import Atlas, atlas, until
from tests.integration.jobs.served import Served

JOBS = Path(__file__).parent / "jobs"
COUNT = 20_000
FAILING = 500
UNIQUE = 1_000
BATCH = 500
WORKERS = 3


class Storm:
    """A daemon, its workers, a producer, and what was seen of them."""

    def __init__(self, daemon: Atlas) -> None:
        self.daemon = daemon
        self.out = daemon.root / "runs"
        self.out.touch()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.killed: dict[int, int] = {}
        """When a worker was still alive for certain, by its process."""
        self.acknowledged: dict[int, str] = {}
        """Kind of each job that an answer has named."""
        self.producer = threading.Thread(target=self._produce, name="producer")

    def socket(self) -> str:
        return str(Path(self.daemon.paths.run, "jobs.sock"))

    def start_worker(self) -> None:
        with (self.daemon.root / "workers.out").open("ab") as out:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "atlasd.worker", "storm_jobs", "--queue", "default",
                    "--concurrency", "4", "--root", str(self.daemon.root),
                ],
                cwd=JOBS, stdout=out, stderr=out,
                env={
                    **os.environ, "STORM_OUT": str(self.out),
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
            )  # fmt: skip
        self.daemon.processes.append(process)
        self.workers.append(process)

    def kill_worker(self, number: int) -> None:
        process = self.workers.pop(number)
        self.killed[process.pid] = time.monotonic_ns()
        process.kill()
        process.wait()
        self.start_worker()

    def kill_core(self) -> None:
        core = next(
            p
            for p in reversed(self.daemon.processes)
            if p.args[2] == "atlasd"  # type: ignore[index]
        )
        core.kill()
        core.wait()
        self.daemon.start()

    def ended(self) -> int:
        return self.out.read_bytes().count(b"end ")

    def has_ended(self, count: int) -> bool:
        return self.ended() >= count

    def _produce(self) -> None:
        client = Client(self.socket())
        for first in range(0, COUNT, BATCH):
            jobs = [_job(number) for number in range(first, first + BATCH)]
            found = self._persist(client, jobs, f"batch {first}")
            self.acknowledged |= {
                one.id: str(job["kind"]) for one, job in zip(found, jobs, strict=True)
            }
        client.close()

    def _persist(self, client: Client, jobs: list[dict[str, Any]], key: str) -> list[Enqueued]:
        """Ask until there is an answer: the key makes it one batch, however often it is asked."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return client.enqueue_jobs(jobs, idempotency_key=key)
            except AtlasError as error:
                if error.code not in ("core.unreachable", "job.store"):
                    raise
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def _job(number: int) -> dict[str, Any]:
    if number % (COUNT // FAILING) == 0:
        return {
            "kind": "storm.fail", "max_attempts": 2, "retry": {"base": 0.05, "factor": 1.0},
        }  # fmt: skip
    made: dict[str, Any] = {
        "kind": "storm.run", "args": {"seconds": 0.002 * (number % 3)}, "priority": number % 10,
        "fair_key": f"customer-{number % 7}",
    }  # fmt: skip
    if number % (COUNT // UNIQUE) == 1:
        made["unique"] = f"key {number}"
    return made


class Run(NamedTuple):
    """One run of a job, from its beginning until it surely ran no longer."""

    job: int
    fence: int
    begin: int
    over: int


def runs_of(text: str, killed: Mapping[int, int]) -> list[Run]:
    """The runs by their beginnings; one whose process was killed was over then at the latest."""
    begun: dict[tuple[int, int], tuple[int, int]] = {}
    ended: dict[tuple[int, int], int] = {}
    for line in text.splitlines():
        word, *numbers = line.split()
        job, fence, pid, at = map(int, numbers)
        if word == "begin":
            assert (job, fence) not in begun, "no fence is given twice"
            begun[job, fence] = (at, pid)
        else:
            ended[job, fence] = at
    found = []
    for (job, fence), (at, pid) in begun.items():
        over = ended.get((job, fence))
        if over is None:
            assert pid in killed, f"run {fence} of job {job} has no end, and its worker lives"
            over = killed[pid]
        found.append(Run(job, fence, at, over))
    return sorted(found, key=lambda run: run.begin)


@pytest.fixture
def storm() -> Iterator[Storm]:
    with atlas() as daemon:
        daemon.configure('[jobs]\nlease = "2s"\n')
        daemon.up()
        yield Storm(daemon)


def test_nothing_is_lost_and_nothing_runs_twice_at_once(storm: Storm) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(WORKERS):
        storm.start_worker()
    storm.producer.start()
    for step in range(1, 9):
        goal = COUNT * step // 10 + chance.randrange(COUNT // 20)
        until(partial(storm.has_ended, goal), f"progress (seed {seed})")
        if step % 3 == 0:
            storm.kill_core()
        else:
            storm.kill_worker(chance.randrange(WORKERS))
    storm.producer.join(60)
    assert not storm.producer.is_alive()
    assert len(storm.acknowledged) == COUNT, f"each job has one id (seed {seed})"

    def all_ended() -> bool:
        (queue,) = storm.daemon.client.call("queue.list")["queues"]
        return bool(queue["completed"] + queue["dead"] == COUNT)

    until(all_ended, f"the end of all jobs (seed {seed})")
    (queue,) = storm.daemon.client.call("queue.list")["queues"]
    assert sum(queue[state.value] for state in JobState) == COUNT
    dead = storm.daemon.client.call("job.list", state=["dead"], limit=1000)["jobs"]
    failing = {job for job, kind in storm.acknowledged.items() if kind == "storm.fail"}
    assert {job["id"] for job in dead} >= failing
    assert {job["reason"] for job in dead if job["id"] in failing} <= {"exhausted", "worker_lost"}
    # A job that was in hand at every kill may be taken for what kills; no other is dead.
    assert {job["reason"] for job in dead if job["id"] not in failing} <= {"worker_lost"}

    runs = runs_of(storm.out.read_text(), storm.killed)
    assert {run.job for run in runs} == set(storm.acknowledged), f"seed {seed}"
    last: dict[int, Run] = {}
    for run in runs:
        before = last.get(run.job)
        if before is not None:
            assert run.fence > before.fence, f"job {run.job}: an older fence (seed {seed})"
            assert run.begin >= before.over, f"job {run.job} ran twice at once (seed {seed})"
        last[run.job] = run
    client = Client(storm.socket())
    keys = [job for job in map(_job, range(COUNT)) if "unique" in job]
    again = client.enqueue_jobs(keys)
    assert len(again) == UNIQUE
    assert {one.outcome for one in again} == {"created"}, "every key is free again"
    client.close()


def test_a_worker_that_was_stopped_past_its_lease_has_lost_the_job(tmp_path: Path) -> None:
    with atlas() as daemon:
        daemon.configure('[jobs]\nlease = "2s"\n')
        daemon.up()
        storm = Storm(daemon)
        storm.start_worker()
        client = Client(storm.socket())
        job = client.enqueue("storm.run", {"seconds": 0.5}).id
        until(storm.out.read_text, "the first run")
        stopped = storm.workers[0]
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            storm.start_worker()
            until(lambda: storm.ended() >= 1, "a run elsewhere")
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        until(lambda: f"end {job} 1 " in storm.out.read_text(), "the end of the first")
        completed = partial(daemon.client.call, "job.show", id=job)
        until(lambda: completed()["state"] == "completed", "the job")
        shown = completed()
        # On a machine that is slow enough, the other may lose it too.
        assert shown["lost_count"] == shown["token"] - 1 >= 1
        assert shown["errors"][0]["message"] == "the worker did not prolong its lease"
        # It goes on with others.
        storm.workers[1].terminate()
        assert storm.workers[1].wait(30) == 0
        other = client.enqueue("storm.run", {"seconds": 0}).id
        until(lambda: f"end {other} " in storm.out.read_text(), "another job")
        client.close()


def test_a_late_finish_is_refused(served_briefly: Served) -> None:
    late, quick = served_briefly.connect(), served_briefly.connect()
    with pytest.raises(AtlasError):
        late.call("work", want=1)
    number = late.call("enqueue", jobs=[{"kind": "a"}])["jobs"][0][0]
    assert late.call("hello", worker="late")["lease"] == 300
    ((job, token, *_),) = late.call("work", want=1)["jobs"]
    quick.call("hello", worker="quick")
    ((again, fence, *_),) = quick.call("work", want=1, wait=20_000)["jobs"]
    assert (job, again, token, fence) == (number, number, 1, 2)
    assert late.call("work", finish=[[job, token, '"late"']])["lost"] == [number]
    assert late.call("beat", held=[[job, token]])["lost"] == [number]
    assert "lost" not in quick.call("work", finish=[[job, fence, '"quick"']])
    (row,) = served_briefly.rows()
    assert (row.state, row.result) == (JobState.COMPLETED, '"quick"')
    late.close()
    quick.close()


@pytest.fixture
def served_briefly() -> Iterator[Served]:
    import shutil
    import tempfile

    from atlasd.jobs.rules import QueueRules
    from tests.integration.jobs.served import served

    folder = Path(tempfile.mkdtemp(prefix="atj-"))
    with served(folder, QueueRules(held_for=300)) as engine:
        yield engine
    shutil.rmtree(folder, ignore_errors=True)
