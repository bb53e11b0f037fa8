"""Jobs through a real daemon: its commands, its socket, its deaths."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from atlasd.worker import Client
from tests.integration.daemons import Atlas, atlas, until

JOBS = Path(__file__).parent / "jobs"


@pytest.fixture
def daemon() -> Iterator[Atlas]:
    with atlas() as made:
        made.configure('[jobs]\nlease = "5s"\n[jobs.queues.small]\nsize = 3\n')
        made.up()
        yield made


def ctl(daemon: Atlas, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "atlasd.cli.atlasctl", *words, "--root", str(daemon.root)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def ctl_json(daemon: Atlas, *words: str) -> Any:
    done = ctl(daemon, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_completed(daemon: Atlas, number: str) -> bool:
    return bool(ctl_json(daemon, "job", "show", number)["state"] == "completed")


def ran_more_than(out: Path, count: int) -> bool:
    return out.exists() and len(out.read_text().splitlines()) > count


def worker(daemon: Atlas, *words: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", "atlasd.worker", "shop_jobs", "--root", str(daemon.root), *words],
        cwd=JOBS,
        env={
            **os.environ, "ATLAS_TEST_ROOT": str(daemon.root),
            "SHOP_OUT": str(daemon.root / "out"), "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )  # fmt: skip
    daemon.processes.append(process)
    return process


def test_a_job_by_the_commands(daemon: Atlas) -> None:
    assert ctl(daemon, "job", "push", "shop.sum", '{"a": 2, "b": 5}').stdout == (
        "job 1 is available\n"
    )
    said = ctl(daemon, "job", "explain", "1").stdout
    assert said == "job 1 is available (no_worker): no worker asks for jobs of default\n"
    worker(daemon)
    until(lambda: ctl_json(daemon, "job", "show", "1")["state"] == "completed", "the job")
    shown = ctl(daemon, "job", "show", "1").stdout
    assert shown.startswith("job 1: shop.sum in default, completed\n")
    assert "result     7" in shown
    assert "shop.sum" in ctl(daemon, "job", "list").stdout
    (queue,) = ctl_json(daemon, "queue", "list")["queues"]
    assert (queue["name"], queue["completed"]) == ("default", 1)


def test_dead_jobs_are_grouped_and_come_back(daemon: Atlas) -> None:
    for _ in range(3):
        ctl(daemon, "job", "push", "shop.fail", '{"how": "error"}', "--max-attempts", "1")
    worker(daemon)
    until(lambda: ctl_json(daemon, "queue", "list")["queues"][0]["dead"] == 3, "three dead jobs")
    (group,) = ctl_json(daemon, "dead", "groups")["groups"]
    assert (group["jobs"], group["reason"]) == (3, "exhausted")
    assert group["error"] == "ValueError: no such address: 17"
    assert "ValueError" in ctl(daemon, "dead", "groups").stdout
    dry = ctl(daemon, "dead", "requeue", "--all", "--dry-run").stdout
    assert "3 jobs would be requeued" in dry
    chosen = ("--fingerprint", group["fingerprint"], "--limit", "2")
    assert ctl(daemon, "dead", "requeue", *chosen).stdout == "2 jobs requeued\n"
    assert ctl(daemon, "dead", "purge", "--kind", "shop.other", "--yes").stdout == (
        "0 jobs deleted\n"
    )


def test_mistakes_are_explained(daemon: Atlas) -> None:
    for words, code, said in (
        (("job", "show", "99"), 3, "there is no job 99"),
        (("job", "push", "a b"), 2, "jobs[0].kind: expected a name"),
        (("job", "push", "a", "[1]"), 2, "no JSON object"),
        (("job", "push", "a", "--delay", "soon"), 2, "jobs[0].delay"),
        (("breaker", "close", "bank"), 3, "no job has the target 'bank'"),
    ):
        done = ctl(daemon, *words)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr


def test_a_full_queue_refuses_and_says_so(daemon: Atlas) -> None:
    for _ in range(3):
        assert ctl(daemon, "job", "push", "a", "--queue", "small").returncode == 0
    done = ctl(daemon, "job", "push", "a", "--queue", "small")
    assert done.returncode == 5
    assert "has 3 of at most 3 waiting jobs" in done.stderr
    assert ctl(daemon, "queue", "purge", "small", "--dry-run").stdout == (
        "3 jobs would be deleted\n"
    )
    assert ctl(daemon, "queue", "purge", "small", "--yes").stdout == "3 jobs deleted\n"
    assert ctl(daemon, "job", "push", "a", "--queue", "small").returncode == 0


def test_a_paused_queue_and_a_forced_breaker_hold_jobs(daemon: Atlas) -> None:
    ctl(daemon, "queue", "pause", "default")
    ctl(daemon, "job", "push", "shop.sum", '{"a": 1, "b": 1}')
    ctl(daemon, "breaker", "open", "bank", "--new")
    ctl(daemon, "job", "push", "shop.sum", '{"a": 2, "b": 2}', "--target", "bank", "--queue", "x")
    worker(daemon, "--queue", "default", "--queue", "x")
    assert "queue default is paused" in ctl(daemon, "job", "explain", "1").stdout
    assert "opened by an operator" in ctl(daemon, "job", "explain", "2").stdout
    assert ctl(daemon, "queue", "resume", "default").stdout == "default is worked again\n"
    assert ctl(daemon, "breaker", "close", "bank").stdout == (
        "the breaker of bank is closed: its jobs are run\n"
    )
    for number in ("1", "2"):
        until(partial(is_completed, daemon, number), f"job {number}")


def test_a_worker_that_is_only_curl(daemon: Atlas) -> None:
    def curl(path: str, body: object) -> Any:
        done = subprocess.run(
            [
                "curl", "-sS", "--unix-socket", daemon.paths.control_socket,
                "-H", "Content-Type: application/json", "-d", json.dumps(body),
                f"http://localhost/v1/{path}",
            ],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    pdf = {"kind": "pdf.make", "args": {"page": 3}, "then": [{"kind": "pdf.mail"}]}
    made = curl("jobs", {"jobs": [pdf]})
    number = made["jobs"][0]["id"]
    (job,) = curl("jobs-work", {"worker": "curl", "limit": 1, "wait_seconds": 5})["jobs"]
    assert (job["id"], job["args"]) == (number, {"page": 3})
    held = [[job["id"], job["token"]]]
    assert curl("jobs-beat", {"worker": "curl", "held": held}) == {"lost": [], "cancel": []}
    assert curl("jobs-work", {"worker": "curl", "finish": held})["lost"] == []
    again = curl("jobs-work", {"worker": "curl", "finish": held})
    assert again["error"]["code"] == "job.lease_lost"
    assert ctl_json(daemon, "job", "show", str(number))["state"] == "completed"
    (job,) = curl("jobs-work", {"worker": "curl", "limit": 5})["jobs"]
    assert job["kind"] == "pdf.mail", "what comes after it, once"


def test_core_killed_in_the_middle_loses_nothing_and_runs_nothing_twice_at_once(
    daemon: Atlas,
) -> None:
    client = Client(str(Path(daemon.paths.run, "jobs.sock")))
    made = client.enqueue_many("shop.note", ({"word": f"w{n}"} for n in range(3000)))
    worker(daemon, "--processes", "2")
    out = daemon.root / "out"
    for rest in (2500, 1500):
        until(partial(ran_more_than, out, 3000 - rest), "some of them")
        core = daemon.processes[0] if rest == 2500 else daemon.processes[-1]
        os.kill(core.pid, signal.SIGKILL)
        core.wait()
        daemon.start()
    client.close()
    until(
        lambda: daemon.client.call("queue.list")["queues"][0]["completed"] == 3000,
        "all of them",
    )
    ran = [line.split() for line in out.read_text().splitlines()]
    assert {int(number) for _, number, *_ in ran} == {one.id for one in made}
    runs = [(number, fence) for _, number, fence, _ in ran]
    assert len(runs) == len(set(runs)), "each run of a job had a fence of its own"


def test_a_queue_that_cannot_be_opened_is_said_and_heals(tmp_path: Path) -> None:
    with atlas() as made:
        made.configure("")
        folder = Path(made.paths.state, "plugins", "queue_sqlite")
        folder.mkdir(parents=True)
        queue = folder / "queue.db"
        queue.write_bytes(b"this is no database, and must not be overwritten" * 100)
        made.up()
        health = made.client.call("health")["checks"]["atlasd:jobs"][0]
        assert health["status"] == "warn"
        assert "queue.db cannot be used: file is not a database" in health["output"]
        done = ctl(made, "job", "push", "a")
        assert done.returncode == 1
        assert "there is no queue" in done.stderr
        assert queue.read_bytes().startswith(b"this is no database")
        queue.unlink()
        until(lambda: ctl(made, "job", "push", "a").returncode == 0, "the queue to be back")
