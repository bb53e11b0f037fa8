"""What the SQLite queue does when power, disk, file or clock fail."""

import asyncio
import json
import random
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from atlasd.clock import HandClock
from atlasd.contracts.queue import (
    ClaimAsk,
    Claimed,
    Failure,
    Filter,
    Finish,
    Held,
    JobState,
    NewJob,
    QueueLimits,
)
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd.jobs.circuit import CircuitPolicy
from atlasd.jobs.rules import QueueRules
from atlasd.testing.context import PlainContext
from atlasd_plugins.queue_sqlite import connect, open_store
from atlasd_plugins.queue_sqlite.store import SqliteQueue

LEASE = 30_000
HOUR = 3_600_000


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@asynccontextmanager
async def opened(
    folder: Path, clock: HandClock | None = None, rules: QueueRules | None = None
) -> AsyncIterator[SqliteQueue]:
    context = PlainContext(folder, clock=clock or HandClock())
    rules = rules or QueueRules(chance=lambda: 0.0)
    try:
        async with open_store(NoSettings(), context, rules) as store:
            assert isinstance(store, SqliteQueue)
            yield store
    finally:
        context.close()


@pytest.fixture
async def queue(tmp_path: Path, clock: HandClock) -> AsyncIterator[SqliteQueue]:
    async with opened(tmp_path, clock) as store:
        yield store


def mail(text: str = "", **rest: object) -> NewJob:
    return NewJob("email", "email.send", json.dumps({"text": text}))._replace(**rest)  # type: ignore[arg-type]


async def claim(queue: SqliteQueue, limit: int = 10, *, name: str = "email") -> list[Claimed]:
    ask = ClaimAsk(worker="w", queues=(name,), limit=limit, lease=LEASE)
    _, jobs = await queue.exchange([], ask)
    return list(jobs)


async def ids_of(queue: SqliteQueue) -> set[int]:
    return {row.id for row in await queue.select(Filter(), 100_000)}


def checked(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


# --- power


class Snapshot(NamedTuple):
    """What is on the disk, and what was promised until then."""

    database: bytes
    log: bytes
    promised: set[int]
    settled: set[int]

    @classmethod
    def of(cls, folder: Path, promised: set[int], settled: set[int]) -> "Snapshot":
        database, log = Path(folder, "queue.db"), Path(folder, "queue.db-wal")
        return cls(database.read_bytes(), log.read_bytes(), set(promised), set(settled))

    async def assert_kept(self, folder: Path, log: bytes) -> None:
        """Assert that a machine that comes up with this disk has all that was promised."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        # Without the third file: shared memory is what a power cut surely takes.
        Path(folder, "queue.db").write_bytes(self.database)
        Path(folder, "queue.db-wal").write_bytes(log)
        async with opened(folder) as successor:
            rows = {row.id: row for row in await successor.select(Filter(), 100_000)}
            assert self.promised <= rows.keys()
            assert all(rows[job].state is JobState.COMPLETED for job in self.settled)
            (made,) = await successor.enqueue([mail()])
            assert made.id > max(rows, default=0)
            counts = {one.state: one.jobs for one in await successor.count()}
            assert sum(counts.values()) == len(rows) + 1
        checked(Path(folder, "queue.db"))


async def test_after_a_power_cut_nothing_that_was_acknowledged_is_missing(tmp_path: Path) -> None:
    chance = random.Random(20261125)
    snapshots: list[Snapshot] = []
    promised: set[int] = set()
    settled: set[int] = set()
    async with opened(tmp_path / "live") as queue:
        # Often, so that snapshots fall before, after and between checkpoints.
        queue.group.connection.execute("PRAGMA wal_autocheckpoint = 25")
        for step in range(60):
            batches = [
                [mail("x" * chance.randrange(2_000), delay=chance.choice((0, 9_000)))] * size
                for size in (1, chance.randrange(1, 20))
            ]
            for made in await asyncio.gather(*(queue.enqueue(jobs) for jobs in batches)):
                promised |= {one.id for one in made}
            for job in await claim(queue, chance.randrange(1, 5)) if step % 3 == 0 else ():
                await queue.exchange([Finish(job.id, job.token)], None)
                settled.add(job.id)
            snapshots.append(Snapshot.of(tmp_path / "live", promised, settled))
    for snapshot in chance.sample(snapshots, 20):
        await snapshot.assert_kept(tmp_path / "again", snapshot.log)


async def test_a_torn_end_of_the_log_costs_only_what_nobody_was_told_of(tmp_path: Path) -> None:
    """The power went while the next commit was being written: cut short, or half written."""
    chance = random.Random(20261126)
    async with opened(tmp_path / "live") as queue:
        made = await queue.enqueue([mail("x" * 500)] * 20)
        told = Snapshot.of(tmp_path / "live", {one.id for one in made}, set())
        await queue.enqueue([mail("y" * 500)] * 40)
        later = Snapshot.of(tmp_path / "live", set(), set())
    assert later.database == told.database, "no checkpoint in between"
    assert later.log.startswith(told.log)
    start, end = len(told.log), len(later.log)
    assert end > start
    for _ in range(12):
        at = chance.randrange(start, end)
        await told.assert_kept(tmp_path / "cut", later.log[:at])
        noise = later.log[:at] + chance.randbytes(end - at)
        await told.assert_kept(tmp_path / "noise", noise)


async def test_commits_are_forced_to_the_disk(queue: SqliteQueue) -> None:
    """What the snapshots cannot see: with less, the kernel would be the only one to have it."""
    (synchronous,) = queue.group.connection.execute("PRAGMA synchronous").fetchone()
    (mode,) = queue.group.connection.execute("PRAGMA journal_mode").fetchone()
    assert (synchronous, mode) == (2, "wal")


# --- a request that is to blame


async def test_what_cannot_be_stored_fails_alone(queue: SqliteQueue) -> None:
    jobs = [[mail()], [mail()._replace(args='{"text":"\ud800"}')], [mail()]]
    found = await asyncio.gather(*map(queue.enqueue, jobs), return_exceptions=True)
    assert isinstance(found[1], UnicodeEncodeError)
    assert not isinstance(found[0], BaseException)
    assert not isinstance(found[2], BaseException)
    assert await ids_of(queue) == {found[0][0].id, found[2][0].id}
    assert len(await claim(queue)) == 2


async def test_who_waits_is_not_served_twice_when_a_request_fails(queue: SqliteQueue) -> None:
    ask = ClaimAsk(worker="w", queues=("email",), limit=1, lease=LEASE, wait=60_000)
    before = asyncio.ensure_future(queue.exchange([], ask))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bad = queue.enqueue([mail()._replace(args='{"text":"\ud800"}')])
    beside = asyncio.ensure_future(queue.exchange([], ask))
    good = queue.enqueue([mail(), mail(), mail()])
    with pytest.raises(UnicodeEncodeError):
        await bad
    made = [one.id for one in await good]
    given = [job.id for _, jobs in await asyncio.gather(before, beside) for job in jobs]
    assert sorted(given) == made[:2]
    assert [job.id for job in await claim(queue)] == made[2:]


# --- disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    async with opened(small_disk) as queue:
        kept = {one.id for one in await queue.enqueue([mail()] * 20)}
        held = await claim(queue, 5)
        with pytest.raises(AtlasError) as caught:
            await fill(queue, 50_000, kept)
        assert caught.value.code == "job.store"
        assert str(small_disk / "queue.db") in caught.value.message
        assert "full" in caught.value.message
        assert "make room" in caught.value.hint
        assert await ids_of(queue) == kept, "what is there can be seen"
        for _ in range(2):
            with pytest.raises(AtlasError, match="full"):  # room for something small was left
                await fill(queue, 3_000, kept)
        run("mount", "-o", "remount,size=8m", str(small_disk))
        await queue.maintain()
        assert kept <= await ids_of(queue)
        assert [await settled(queue, job) for job in held] == [True] * 5
        await queue.enqueue([mail("x" * 50_000)])
    checked(small_disk / "queue.db")


async def fill(queue: SqliteQueue, size: int, kept: set[int]) -> None:
    """Enqueue until it is refused."""
    while True:
        kept |= {one.id for one in await queue.enqueue([mail("x" * size)])}


async def settled(queue: SqliteQueue, job: Claimed) -> bool:
    (held,), _ = await queue.exchange([Finish(job.id, job.token)], None)
    return held


async def test_maintenance_proves_that_the_store_can_be_written_again(queue: SqliteQueue) -> None:
    await queue.enqueue([mail()])
    queue.group.connection.execute("PRAGMA query_only = 1")
    await queue.maintain()  # nothing is due, so nothing is written
    with pytest.raises(AtlasError) as caught:
        await queue.enqueue([mail()])
    assert caught.value.code == "job.store"
    assert "readonly" in caught.value.message
    assert "writable" in caught.value.hint
    for _ in range(2):
        with pytest.raises(AtlasError):
            await queue.maintain()
    queue.group.connection.execute("PRAGMA query_only = 0")
    await queue.maintain()
    assert len(await claim(queue)) == 1


async def test_who_holds_a_job_is_known_after_a_failed_commit(queue: SqliteQueue) -> None:
    await queue.enqueue([mail(), mail()])
    job, other = await claim(queue)
    queue.group.connection.execute("PRAGMA query_only = 1")
    with pytest.raises(AtlasError):
        await queue.exchange([Finish(job.id, job.token)], None)
    queue.group.connection.execute("PRAGMA query_only = 0")
    assert await queue.lose("somebody else", [other.id], why="connection") == 0
    assert await queue.lose("w", [other.id], why="connection") == 1
    assert await settled(queue, job), "it was told that nothing was done, and says it again"


# --- file


def written_over(path: Path) -> bytes:
    """The file with noise where its tables are, as a failing disk would leave it."""
    data = bytearray(path.read_bytes())
    assert len(data) > 40 * 4096
    noise = random.Random(4)
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 2048] = noise.randbytes(2048)
    path.write_bytes(data)
    return bytes(data)


async def test_a_corrupt_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.enqueue([mail("x" * 1_000, unique_key=f"k{n}") for n in range(200)])
    path = tmp_path / "queue.db"
    data = written_over(path)
    with pytest.raises(AtlasError) as caught:
        async with opened(tmp_path):
            raise AssertionError("it was opened")
    assert caught.value.code == "job.store"
    assert str(path) in caught.value.message
    assert "malformed" in caught.value.message
    assert f"sqlite3 {path} .recover" in caught.value.hint
    assert path.read_bytes() == data


async def test_what_is_found_corrupt_in_the_midst_is_said_and_spreads_no_further(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as queue:
        await queue.enqueue([mail("x" * 1_000) for _ in range(400)])
        connection = queue.group.connection
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA shrink_memory")
        written_over(tmp_path / "queue.db")
        with pytest.raises(AtlasError) as caught:
            await queue.select(Filter(), 1_000)
        assert caught.value.code == "job.store"
        assert ".recover" in caught.value.hint
        with pytest.raises(AtlasError):
            await claim(queue)


def recovered(program: str, old: Path, new: Path) -> bool:
    saved = subprocess.run([program, str(old), ".recover"], capture_output=True, check=False)
    if saved.returncode == 0:
        subprocess.run([program, str(new)], input=saved.stdout, capture_output=True, check=True)
    return saved.returncode == 0


async def test_a_recovered_file_is_a_queue_again(tmp_path: Path) -> None:
    """What the hint says works."""
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("there is no sqlite3 here")
    (tmp_path / "old").mkdir()
    async with opened(tmp_path / "old") as queue:
        made = await queue.enqueue([mail(unique_key="k"), *[mail("x" * 1_000)] * 50])
    old, new = tmp_path / "old" / "queue.db", tmp_path / "new" / "queue.db"
    new.parent.mkdir()
    if not recovered(program, old, new):
        pytest.skip("this sqlite3 cannot recover")
    async with opened(new.parent) as queue:
        assert await ids_of(queue) == {one.id for one in made}
        (again,) = await queue.enqueue([mail(unique_key="k")])
        assert (again.id, again.outcome) == (made[0].id, "existing")
        assert len(await claim(queue, 100)) == 51


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "queue.db"
    with pytest.raises(AtlasError) as caught:
        connect(path)
    assert caught.value.code == "job.store"
    assert str(path) in caught.value.message
    assert "writable" in caught.value.hint


# --- clock


@pytest.mark.parametrize("jump", [24 * HOUR, -24 * HOUR], ids=["forward", "backward"])
async def test_a_clock_that_jumps_loses_nothing_and_runs_nothing_twice(
    tmp_path: Path, clock: HandClock, jump: int
) -> None:
    rules = QueueRules(
        queues={"slow": QueueLimits(rate=1.0)},
        circuit=CircuitPolicy(minimum_calls=1, open_for=10_000),
        chance=lambda: 0.0,
    )
    async with opened(tmp_path, clock, rules) as queue:
        available, delayed = (one.id for one in await queue.enqueue([mail(), mail(delay=5_000)]))
        (job,) = await claim(queue)
        assert job.id == available
        (waits,) = await queue.enqueue([mail()])
        await queue.enqueue([mail(queue="slow")] * 3)
        assert len(await claim(queue, name="slow")) == 1
        await queue.enqueue([mail(queue="api", target="api")] * 2)
        probe, *_ = await claim(queue, 1, name="api")
        failure = Failure(probe.id, probe.token, "ConnectionError", verdict="target")
        await queue.exchange([failure], None)

        clock.set_wall(clock.wall() + jump / 1000)
        done = await queue.maintain()
        assert done.lost == 0, "leases are on the monotonic clock"
        told = await queue.extend("w", [Held(id=job.id, token=job.token)], LEASE)
        assert told.lost == ()
        (given,) = await claim(queue, 1)
        assert given.id in {waits.id, delayed} - ({delayed} if jump < 0 else set())
        if jump < 0:
            assert await claim(queue, name="api") == [], "its breaker is open for a while yet"
        # A limit that was reached is reached for a moment longer, not for a day.
        clock.wind(1.1)
        assert len(await claim(queue, name="slow")) == 1
        clock.wind(11.0)
        assert len(await claim(queue, name="api")) >= 1

        if jump < 0:
            assert (await queue.get(delayed)) is not None
            clock.set_wall(clock.wall() - jump / 1000)
        await queue.maintain()
        rest = {one.id for one in await claim(queue)} | {given.id}
        assert rest == {delayed, waits.id}
        assert await settled(queue, job), "it was this worker's all the time"
        clock.wind(LEASE / 1000)
        assert (await queue.maintain()).lost == 2 + 2 + 1


async def test_a_lease_outlives_a_jump_and_then_ends_in_its_time(
    queue: SqliteQueue, clock: HandClock
) -> None:
    await queue.enqueue([mail()])
    (job,) = await claim(queue)
    for jump in (-HOUR, 3 * HOUR, -7 * HOUR):
        clock.set_wall(clock.wall() + jump / 1000)
        assert (await queue.maintain()).lost == 0
    clock.wind(LEASE / 1000 - 0.001)
    assert (await queue.maintain()).lost == 0
    clock.wind(0.001)
    assert (await queue.maintain()).lost == 1
    assert not await settled(queue, job)
