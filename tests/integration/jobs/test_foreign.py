"""Workers without Python: jobs as runs of a command, and as requests to a server."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from atlasd.states import JobState
from atlasd.worker import Client
from tests.integration.daemons import alive, until
from tests.integration.jobs.served import Served

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(engine: Served, folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> "subprocess.Popen[bytes]":
        with (folder / "worker.out").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "atlasd.worker", "--queue", "default", *words],
                cwd=folder,
                env={
                    **os.environ, "ATLASD_JOBS": engine.path,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                stdout=out,
                stderr=out,
            )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def client(engine: Served) -> Iterator[Client]:
    made = Client(engine.path)
    yield made
    made.close()


def script(folder: Path, text: str) -> str:
    path = folder / "handler.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def ended(engine: Served) -> dict[str, Any]:
    until(lambda: engine.rows() and all(row.finalized_at for row in engine.rows()), "the jobs")
    return {row.kind: row for row in engine.rows()}


def test_a_command_gets_the_payload_and_gives_the_result(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    handler = script(
        folder,
        'case $ATLASD_JOB_KIND in\n'
        'echo) cat;;\n'
        'facts) echo "[$ATLASD_JOB_ID, $ATLASD_JOB_ATTEMPT, $ATLASD_JOB_FENCE, '
        '\\"$ATLASD_JOB_QUEUE\\"]";;\n'
        'silent) exec <&-;;\n'
        'bad) echo "no such page: 12" >&2; exit 65;;\n'
        'soon) if [ $ATLASD_JOB_ATTEMPT = 1 ]; then echo Retry-After: 0.2 >&2; exit 75; fi;;\n'
        'text) echo hello;;\n'
        "esac",
    )  # fmt: skip
    long = "x" * 300_000
    client.enqueue("echo", {"to": "ops@example.org", "long": long})
    made = client.enqueue("facts")
    for kind in ("silent", "bad", "text"):
        client.enqueue(kind, {"long": long})
    client.enqueue("soon", retry={"base": 0.01, "jitter": 0})
    start("--exec", handler, "--concurrency", "3")
    found = ended(engine)
    assert json.loads(found["echo"].result) == {"to": "ops@example.org", "long": long}
    assert json.loads(found["facts"].result) == [made.id, 1, 1, "default"]
    assert (found["silent"].state, found["silent"].result) == (JobState.COMPLETED, "")
    assert (found["bad"].state, found["bad"].reason) == (JobState.DEAD, "buried")
    (error,) = json.loads(found["bad"].errors)
    assert (error["error"], error["message"]) == ("exit 65", "no such page: 12")
    assert (found["soon"].state, found["soon"].attempt) == (JobState.COMPLETED, 2)
    assert found["text"].reason == "buried"
    assert "no JSON" in found["text"].errors
    assert "no such page: 12" in (folder / "worker.out").read_text()


def test_a_command_that_takes_too_long_goes_with_all_that_it_started(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    handler = script(
        folder, "trap '' TERM; sleep 300 & echo $! $$ > pids; while true; do sleep 300; done"
    )
    client.enqueue("slow", timeout=0.3, max_attempts=1)
    start("--exec", handler)
    found = ended(engine)
    (error,) = json.loads(found["slow"].errors)
    assert (found["slow"].reason, error["error"]) == ("exhausted", "timeout")
    for pid in (folder / "pids").read_text().split():
        assert not alive(int(pid))


def test_what_a_command_leaves_behind_ends_with_it(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    handler = script(folder, "sleep 300 & echo $! > pids; echo 5")
    client.enqueue("short")
    start("--exec", handler)
    assert ended(engine)["short"].result == "5"
    until(lambda: not alive(int((folder / "pids").read_text())), "the sleep to be gone")


def test_a_command_has_its_grace_and_then_gives_the_job_back(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    handler = script(folder, "echo $$ > pids; exec sleep 300")
    client.enqueue("slow")
    worker = start("--exec", handler, "--grace", "0.2")
    until(lambda: (folder / "pids").exists() and (folder / "pids").read_text(), "the command")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    (row,) = engine.rows()
    assert (row.state, row.attempt, row.lost_count) == (JobState.AVAILABLE, 0, 0)
    assert not alive(int((folder / "pids").read_text()))


class Answering(ThreadingHTTPServer):
    """A server that answers by the kind of the job, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.connections: set[int] = set()
        self.let_go = threading.Event()
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answering

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        kind = self.headers["Atlasd-Job-Kind"]
        self.server.asked.append((kind, body, dict(self.headers)))
        self.server.connections.add(self.client_address[1])
        attempt = int(self.headers["Atlasd-Job-Attempt"])
        if kind == "slow":
            self.server.let_go.wait(30)
        if kind == "gone" and attempt == 1:
            self.close_connection = True
            return
        status = 200
        if kind == "busy" and attempt == 1:
            status = 429
        elif kind == "bad":
            status = 422
        elif kind == "broken":
            status = 500
        said = json.dumps({"said": json.loads(body)}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "text/plain" if kind == "plain" else "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Answering]:
    made = Answering()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.let_go.set()
    made.shutdown()
    thread.join()
    made.server_close()


def test_jobs_are_posted_and_the_answer_decides(
    engine: Served, client: Client, start: Start, server: Answering
) -> None:
    made = client.enqueue("send", {"to": "ops@example.org"})
    for kind in ("bad", "busy", "plain", "gone"):
        client.enqueue(kind, retry={"base": 0.01, "jitter": 0})
    client.enqueue("broken", max_attempts=1)
    start("--http", f"http://127.0.0.1:{server.server_port}/run?x=1")
    found = ended(engine)
    assert json.loads(found["send"].result) == {"said": {"to": "ops@example.org"}}
    (headers,) = [headers for kind, _, headers in server.asked if kind == "send"]
    assert headers["Idempotency-Key"] == headers["Atlasd-Job-Id"] == str(made.id)
    assert headers["Atlasd-Job-Fence"] == "1"
    assert (found["bad"].state, found["bad"].reason) == (JobState.DEAD, "buried")
    assert '"error":"HTTP 422"' in found["bad"].errors
    busy = json.loads(found["busy"].errors)[0]
    assert (found["busy"].state, found["busy"].attempt) == (JobState.COMPLETED, 2)
    assert found["busy"].finalized_at - busy["at"] >= 1000, "Retry-After is kept to"
    assert (found["plain"].state, found["plain"].result) == (JobState.COMPLETED, "")
    assert found["gone"].state is JobState.COMPLETED
    assert (found["broken"].reason, found["broken"].attempt) == ("exhausted", 1)


def test_a_connection_is_kept_and_a_job_that_times_out_lets_go_of_it(
    engine: Served, client: Client, start: Start, server: Answering
) -> None:
    for number in range(20):
        client.enqueue("send", {"number": number})
    start("--http", f"http://127.0.0.1:{server.server_port}/")
    until(lambda: len(engine.rows(JobState.COMPLETED)) == 20, "the jobs")
    assert len(server.connections) == 1
    client.enqueue("slow", timeout=0.2, max_attempts=1)
    until(lambda: engine.rows(JobState.DEAD), "the slow one")
    (row,) = engine.rows(JobState.DEAD)
    assert '"error":"timeout"' in row.errors


def test_a_server_that_is_not_there_is_to_blame_itself(
    engine: Served, client: Client, start: Start
) -> None:
    client.enqueue("send", max_attempts=1, target="api")
    start("--http", "http://127.0.0.1:1/")
    (row,) = ended(engine).values()
    assert '"error":"ConnectionRefusedError"' in row.errors
    assert "127.0.0.1 did not answer: Connection refused" in row.errors

    async def breakers(store: Any) -> Any:
        return await store.breakers()

    (breaker,) = engine.ask(breakers)
    ((calls, failures, _),) = json.loads(breaker.buckets).values()
    assert (breaker.target, calls, failures) == ("api", 1, 1)


def test_a_worker_drains_while_a_request_is_under_way(
    engine: Served, client: Client, start: Start, server: Answering
) -> None:
    client.enqueue("slow")
    worker = start("--http", f"http://127.0.0.1:{server.server_port}/")
    until(lambda: server.asked, "the request")
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    server.let_go.set()
    assert worker.wait(30) == 0
    (row,) = engine.rows()
    assert (row.state, row.attempt) == (JobState.COMPLETED, 1)
