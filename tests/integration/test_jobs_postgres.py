"""Two daemons on one PostgreSQL database, as on two hosts: what they share, and its deaths."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from atlasd.errors import AtlasError
from atlasd.worker import Client
from tests.integration.daemons import Atlas, atlas, until
from tests.postgres_server import FAST, PostgresServer, lacking

JOBS = Path(__file__).parent / "jobs"
KILLS = 4
COUNT = 3_000
CHUNK = 25


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if why := lacking("current"):
        pytest.skip(why)
    found = PostgresServer("current", settings=FAST)
    try:
        found.start()
        yield found
    finally:
        found.remove()


class Hosts:
    """Daemons on one schema."""

    def __init__(self, server: PostgresServer, stack: ExitStack, folder: Path, more: str) -> None:
        self.server = server
        self.schema = f"q{uuid4().hex[:12]}"
        self.out = folder / "out"
        self.bank = folder / "bank"
        self.daemons: list[Atlas] = []
        for _ in range(2):
            daemon = stack.enter_context(atlas())
            daemon.configure(
                '[jobs]\nstore = "postgres"\n[jobs.stores.postgres]\n'
                f'dsn = "{server.dsn}"\nschema = "{self.schema}"\npatience = 20.0\n{more}'
            )
            daemon.up()
            self.daemons.append(daemon)

    def worker(self, daemon: Atlas, *words: str) -> None:
        """A worker of one of them."""
        process = subprocess.Popen(
            [sys.executable, "-m", "atlasd.worker", "ledger_jobs", "--root", str(daemon.root),
             *words],
            cwd=JOBS,
            env={
                **os.environ, "ATLAS_TEST_ROOT": str(daemon.root), "SHOP_OUT": str(self.out),
                "SHOP_BANK": str(self.bank), "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )  # fmt: skip
        daemon.processes.append(process)

    def client(self, index: int) -> Client:
        """A producer at one of them."""
        return Client(str(Path(self.daemons[index].paths.run, "jobs.sock")))

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Rows of a statement."""
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(f"SET search_path TO {self.schema}")
            return connection.execute(text.encode()).fetchall()

    def ran_more_than(self, count: float) -> bool:
        """Whether the ledger has grown so far."""
        return self.out.exists() and len(self.out.read_text().splitlines()) > count

    def runs(self) -> dict[int, list[tuple[int, int, int]]]:
        """Of each job its runs: fence, beginning, end (0: it did not)."""
        begun: dict[tuple[int, int], int] = {}
        found: dict[tuple[int, int], tuple[int, int, int]] = {}
        for line in self.out.read_text().splitlines():
            word, *numbers = line.split()
            job, fence, at = map(int, numbers)
            if word == "begin":
                assert (job, fence) not in begun, f"job {job} was begun twice with fence {fence}"
                begun[job, fence] = at
                found[job, fence] = (fence, at, 0)
            else:
                found[job, fence] = (fence, begun[job, fence], at)
        by_job: dict[int, list[tuple[int, int, int]]] = {}
        for (job, _), run in sorted(found.items()):
            by_job.setdefault(job, []).append(run)
        return by_job


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def enqueue_through(hosts: Hosts, index: int, count: int, made: list[int]) -> None:
    """Enqueue whatever happens: what was not acknowledged is sent again with its key."""
    with closing(hosts.client(index)) as client:
        for start in range(0, count, CHUNK):
            send(client, index, start, made)


def send(client: Client, index: int, start: int, made: list[int]) -> None:
    """Enqueue a chunk, until it is acknowledged."""
    jobs = [
        {"kind": "ledger.run", "args": {"seconds": 0.002 if number % 5 == 0 else 0.0},
         "unique": f"u{index}/{number}" if number % 3 == 0 else None}
        for number in range(start, start + CHUNK)
    ]  # fmt: skip
    jobs = [{k: v for k, v in job.items() if v is not None} for job in jobs]
    while True:
        try:
            found = client.enqueue_jobs(jobs, idempotency_key=f"{index}/{start}")
        except AtlasError as error:
            if error.code not in ("job.store", "job.unsure"):
                raise
            time.sleep(0.2)
        else:
            made += [one.id for one in found]
            break


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_run_twice_at_once_when_the_database_is_killed(
    server: PostgresServer, stack: ExitStack, tmp_path: Path
) -> None:
    hosts = Hosts(server, stack, tmp_path, "")
    for daemon in hosts.daemons:
        hosts.worker(daemon, "--concurrency", "4")
    made: list[list[int]] = [[], []]
    producers = [
        threading.Thread(target=enqueue_through, args=(hosts, n, COUNT // 2, made[n]))
        for n in range(2)
    ]
    for producer in producers:
        producer.start()
    chance = random.Random()
    for kill in range(KILLS):
        # In mid-traffic: after a random part of the jobs has run.
        wanted = COUNT * (kill + chance.random()) / (KILLS + 1)
        until(partial(hosts.ran_more_than, wanted), "jobs that run")
        server.kill()
        server.start()
    for producer in producers:
        producer.join(120)
        assert not producer.is_alive()
    ids = {number for some in made for number in some}
    assert len(ids) == COUNT, "each was acknowledged once"
    until(
        lambda: hosts.sql("SELECT count(*) FROM jobs WHERE finalized_at IS NULL") == [(0,)],
        "the end of all jobs",
        patience=120,
    )
    rows = {row[0]: row for row in hosts.sql("SELECT id, state, reason, token FROM jobs")}
    assert set(rows) == ids
    assert {(state, reason) for _, state, reason, _ in rows.values()} == {("completed", "")}
    for job, runs in hosts.runs().items():
        assert runs[-1][0] <= rows[job][3], "a fence that the database does not know"
        for (_, _, end), (_, begin, _) in pairwise(runs):
            assert 0 < end <= begin, f"two runs of job {job} at once"
    assert set(hosts.runs()) == ids
    assert hosts.sql("SELECT count(*) FROM jobs WHERE unique_key IS NOT NULL") == [(0,)]
    with closing(hosts.client(0)) as client:
        again = client.enqueue_jobs([{"kind": "ledger.run", "unique": "u0/0"}])
    assert again[0].outcome == "created"


@pytest.mark.timeout(200)
def test_a_breaker_lets_out_one_probe_over_two_daemons(
    server: PostgresServer, stack: ExitStack, tmp_path: Path
) -> None:
    hosts = Hosts(
        server,
        stack,
        tmp_path,
        '[jobs.breakers.bank]\nminimum_calls = 4\nopen_for = "1s"\nsuccesses = 3\n',
    )
    for daemon in hosts.daemons:
        hosts.worker(daemon, "--concurrency", "4", "--prefetch", "1")
    with closing(hosts.client(0)) as producer:
        producer.enqueue_jobs([{"kind": "ledger.pay", "max_attempts": 50, "target": "bank"}] * 40)

    def breaker() -> tuple[Any, ...]:
        rows = hosts.sql("SELECT state, trips FROM breakers WHERE target = 'bank'")
        return rows[0] if rows else ("none", 0)

    until(lambda: breaker()[0] == "open" and breaker()[1] >= 2, "a breaker that opened twice")
    opened_at = time.monotonic_ns()
    before = hosts.sql("SELECT sum(attempt) FROM jobs")
    while breaker()[0] == "open" and time.monotonic_ns() - opened_at < 300_000_000:
        # Nobody claims while it is open, so no attempt is burnt.
        assert hosts.sql("SELECT sum(attempt) FROM jobs") == before or breaker()[0] != "open"
        time.sleep(0.02)
    hosts.bank.touch()
    until(lambda: breaker()[0] == "closed", "a breaker that closed")
    until(
        lambda: hosts.sql("SELECT count(*) FROM jobs WHERE state <> 'completed'") == [(0,)],
        "the end of all jobs",
    )
    ledger = sorted((begin, end) for runs in hosts.runs().values() for _, begin, end in runs if end)
    assert len(ledger) >= 44
    closed = hosts.sql("SELECT count(*) FROM jobs WHERE state = 'completed'")
    assert closed == [(40,)]
