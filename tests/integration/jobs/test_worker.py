"""Real worker processes: what they do with jobs, signals, sudden deaths and lost leases."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atlasd.states import JobState
from atlasd.worker import Client
from tests.integration.daemons import until
from tests.integration.jobs.served import Served

HERE = Path(__file__).parent

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(engine: Served, folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, module: str = "shop_jobs") -> "subprocess.Popen[bytes]":
        with (folder / "worker.out").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "atlasd.worker", module, *words],
                cwd=HERE,
                env={
                    **os.environ, "ATLASD_JOBS": engine.path, "SHOP_OUT": str(folder / "out"),
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                stdout=out,
                stderr=out,
                start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def client(engine: Served) -> Iterator[Client]:
    made = Client(engine.path)
    yield made
    made.close()


def noted(folder: Path) -> list[list[str]]:
    out = folder / "out"
    return [line.split() for line in out.read_text().splitlines()] if out.exists() else []


def finished(engine: Served, count: int) -> None:
    until(lambda: len(engine.rows(JobState.COMPLETED)) == count, f"{count} finished jobs")


def test_jobs_are_run_and_results_kept(engine: Served, client: Client, start: Start) -> None:
    start()
    made = client.enqueue("shop.sum", {"a": 3, "b": 4})
    finished(engine, 1)
    (row,) = engine.rows()
    assert (row.id, row.result, row.attempt) == (made.id, "7", 1)


@pytest.mark.parametrize("words", [(), ("--concurrency", "4"), ("--processes", "2")])
def test_each_of_many_runs_once(
    engine: Served, client: Client, start: Start, folder: Path, words: tuple[str, ...]
) -> None:
    client.enqueue_many("shop.note", ({"word": f"w{n}"} for n in range(2000)))
    start(*words)
    finished(engine, 2000)
    found = noted(folder)
    assert sorted(word for word, *_ in found) == sorted(f"w{n}" for n in range(2000))
    assert {fence for _, _, fence, _ in found} == {"1"}


def test_what_a_handler_raises_decides(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    for how in ("discard", "bury", "snooze", "error"):
        client.enqueue("shop.fail", {"how": how}, retry={"base": 0.05}, max_attempts=2, tags=[how])
    start()
    until(lambda: all(row.finalized_at for row in engine.rows()), "all to be final")
    found = {row.options.split('"tags":["')[1].split('"')[0]: row for row in engine.rows()}
    assert (found["discard"].state, found["discard"].reason) == (JobState.CANCELLED, "discarded")
    assert (found["bury"].state, found["bury"].reason) == (JobState.DEAD, "buried")
    assert (found["snooze"].state, found["snooze"].attempt) == (JobState.COMPLETED, 1)
    error = found["error"]
    assert (error.state, error.reason, error.attempt) == (JobState.DEAD, "exhausted", 2)
    assert '"error":"ValueError"' in error.errors
    assert "shop_jobs:fail" in error.errors
    assert "atlasd.worker" not in error.errors


def test_a_kind_without_a_handler_says_so(engine: Served, client: Client, start: Start) -> None:
    client.enqueue("shop.unheard", max_attempts=1)
    start()
    until(lambda: engine.rows(JobState.DEAD), "a dead job")
    (row,) = engine.rows()
    assert "no handler for 'shop.unheard'" in row.errors
    assert "shop.sum" in row.errors


def test_a_killed_worker_costs_seconds_and_no_job(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    client.enqueue("shop.sleep", {"seconds": 1.0})
    client.enqueue_many("shop.note", ({"word": f"w{n}"} for n in range(50)))
    first = start("--prefetch", "100")
    until(lambda: noted(folder), "the job to begin")
    os.killpg(first.pid, signal.SIGKILL)
    start()
    finished(engine, 51)
    sleeping = [line for line in noted(folder) if line[0] == "begin"]
    assert [line[2] for line in sleeping] == ["1", "2"], "another fence for the second run"
    (row,) = [row for row in engine.rows() if row.kind == "shop.sleep"]
    assert row.lost_count == 1


def test_a_worker_that_is_told_to_end_finishes_what_it_began(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    client.enqueue("shop.sleep", {"seconds": 0.5})
    client.enqueue_many("shop.note", ({"word": f"w{n}"} for n in range(50)))
    worker = start("--prefetch", "100")
    until(lambda: noted(folder), "the job to begin")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    rows = engine.rows()
    assert [row.state for row in rows if row.kind == "shop.sleep"] == [JobState.COMPLETED]
    rest = [row for row in rows if row.kind == "shop.note"]
    assert {(row.state, row.attempt, row.lost_count) for row in rest} <= {
        (JobState.AVAILABLE, 0, 0), (JobState.COMPLETED, 1, 0),
    }  # fmt: skip
    assert not engine.rows(JobState.RUNNING)


def test_what_outlasts_the_grace_goes_back_without_an_attempt(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    client.enqueue("shop.spin")
    worker = start("--grace", "0.2")
    until(lambda: noted(folder), "the job to begin")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    (row,) = engine.rows()
    assert (row.state, row.attempt, row.lost_count) == (JobState.AVAILABLE, 0, 0)


def test_a_handler_that_takes_too_long_is_stopped(
    engine: Served, client: Client, start: Start
) -> None:
    client.enqueue("shop.spin", timeout=0.2, max_attempts=1)
    client.enqueue("shop.sum", {"a": 1, "b": 1})
    start()
    finished(engine, 1)
    until(lambda: engine.rows(JobState.DEAD), "the job to be dead")
    (row,) = engine.rows(JobState.DEAD)
    assert '"error":"timeout"' in row.errors


def test_a_worker_without_an_engine_waits_for_it(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "atlasd.worker", "shop_jobs"],
        cwd=HERE,
        env={
            **os.environ, "ATLASD_JOBS": str(folder / "jobs.sock"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    assert "does not answer" in line
    assert "next try in" in line
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    process.stderr.close()


def test_modules_that_are_not_there_or_have_no_jobs(folder: Path) -> None:
    for module, words in (("no_such_module", "No module named"), ("json", "no @job")):
        done = subprocess.run(
            [sys.executable, "-m", "atlasd.worker", module],
            cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_coroutines_run_together_in_one_loop(engine: Served, client: Client, start: Start) -> None:
    start("--concurrency", "20", module="shop_async")
    # The first finds the worker waiting; what comes later wakes it each time.
    for count, wait in ((1, 0.0), (40, 0.2)):
        client.enqueue_many("async.together", ({"wait": wait} for _ in range(count)))
        until(lambda: not engine.rows(JobState.AVAILABLE, JobState.RUNNING), "the jobs")
    client.enqueue("async.plain", {"word": "ab"})
    finished(engine, 42)
    results = [row.result for row in engine.rows()]
    assert results[-1] == '"abab"'
    assert max(int(result) for result in results[:-1]) == 20


def test_a_coroutine_is_stopped_by_its_time_out_and_given_back_at_the_end(
    engine: Served, client: Client, start: Start, folder: Path
) -> None:
    client.enqueue("async.hang", timeout=0.2, max_attempts=1)
    worker = start("--grace", "0.2", module="shop_async")
    until(lambda: engine.rows(JobState.DEAD), "the job to be dead")
    (row,) = engine.rows(JobState.DEAD)
    assert '"error":"timeout"' in row.errors
    client.enqueue("async.hang")
    until(lambda: len(noted(folder)) == 2, "the other to begin")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    (row,) = [row for row in engine.rows() if row.state is not JobState.DEAD]
    assert (row.state, row.attempt, row.lost_count) == (JobState.AVAILABLE, 0, 0)


def test_an_idle_worker_of_coroutines_ends_at_once(
    engine: Served, client: Client, start: Start
) -> None:
    client.enqueue("async.plain", {"word": "ab"})
    worker = start(module="shop_async")
    finished(engine, 1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0


def test_a_worker_reloads_its_code_and_survives_a_mistake_in_it(
    engine: Served, client: Client, folder: Path
) -> None:
    code = folder / "shop" / "sums.py"
    code.parent.mkdir()
    (code.parent / "__init__.py").touch()
    out = folder / "worker.out"

    def save(text: str) -> None:
        code.with_suffix(".new").write_text(text)
        code.with_suffix(".new").rename(code)  # as editors do

    def declare(result: str) -> str:
        return f'from atlasd.worker import job\n@job("sum")\ndef sum():\n    return {result}\n'

    def result_of_another() -> str:
        made = client.enqueue("sum").id
        until(lambda: any(row.id == made for row in engine.rows(JobState.COMPLETED)), "the job")
        return next(row.result for row in engine.rows() if row.id == made)

    save(declare("1"))
    with out.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "atlasd.worker", "shop.sums", "--reload"],
            cwd=folder, stdout=log, stderr=log,
            env={
                **os.environ, "ATLASD_JOBS": engine.path, "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )  # fmt: skip
    try:
        assert result_of_another() == "1"
        save(declare("2"))
        until(lambda: "the code has changed" in out.read_text(), "the change")
        until(lambda: result_of_another() == "2", "the new code")
        save("def sum(:\n")
        until(lambda: "waits for the next change" in out.read_text(), "the mistake to be told")
        assert "sums.py:1: invalid syntax" in out.read_text()
        assert "Traceback" not in out.read_text()
        save(declare("3"))
        assert result_of_another() == "3"
    finally:
        process.terminate()
        assert process.wait(30) == 0
