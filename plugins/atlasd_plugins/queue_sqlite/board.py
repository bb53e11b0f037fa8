"""What the SQLite queue keeps in memory: it is the only writer, so its counts are exact."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from atlasd.contracts.queue import BreakerRow, JobState, Lane, NewJob, Turns
from atlasd_plugins.queue_sqlite import sql


class Lease:
    """A running job."""

    __slots__ = ("cancel", "epoch", "lane", "plain", "token", "until", "worker")

    def __init__(
        self, token: int, worker: str, lane: Lane, until: float, epoch: int, plain: int
    ) -> None:
        """`epoch` is that of its target's breaker when it was claimed; `plain`: 1 without a key."""
        self.token = token
        self.worker = worker
        self.lane = lane
        self.until = until
        """Milliseconds on the monotonic clock: the wall clock may jump."""
        self.epoch = epoch
        self.plain = plain
        self.cancel = False


class Spec(NamedTuple):
    """What jobs of one kind have in common."""

    kind: str
    priority: int
    max_attempts: int


class Board:
    """Lanes, leases, breakers and counts, as the last commit left them."""

    def __init__(self) -> None:
        self.lanes: dict[int, Lane] = {}
        self.by_key: dict[tuple[str, str, str], Lane] = {}
        self.active: dict[str, dict[int, Lane]] = {}
        """Lanes with available jobs, by queue."""
        self.specs: dict[int, Spec] = {}
        self.spec_ids: dict[Spec, int] = {}
        self.leases: dict[int, Lease] = {}
        self.running: dict[str, int] = {}
        """Running jobs by `queue`, `queue/fair_key` and `target:NAME`."""
        self.counts: dict[tuple[str, JobState], int] = {}
        self.breakers: dict[str, BreakerRow] = {}
        self.paused: frozenset[str] = frozenset()
        self.turns = Turns()
        self.next_id = 1
        self.next_lane = 1

    @classmethod
    def load(
        cls,
        connection: sqlite3.Connection,
        monotonic: float,
        lease_time: int,
        before: "Board | None" = None,
    ) -> "Board":
        """The board of a database; every lease starts anew, at `monotonic` milliseconds.

        Its worker has `lease_time` milliseconds to come back to the store that was opened anew.
        After a transaction that was taken back, leases are as the board `before` it had them.
        """
        board = cls()
        for number, queue, fair_key, target in connection.execute(
            "SELECT id, queue, fair_key, target FROM lanes"
        ):
            board._enter(Lane(id=number, queue=queue, fair_key=fair_key, target=target))
        for number, *spec in connection.execute(
            "SELECT id, kind, priority, max_attempts FROM specs"
        ):
            board._know(number, Spec(*spec))
        for query in sql.COUNTS:
            for lane_id, state, count in connection.execute(query):
                lane = board.lanes[lane_id]
                board.move(lane, None, JobState(state), count)
        for row in connection.execute("SELECT * FROM breakers"):
            board.breakers[row[0]] = BreakerRow(*row)
        for job, token, lane_id, plain, cancel in connection.execute(sql.RUNNING):
            lane = board.lanes[lane_id]
            lease = Lease(token, "", lane, monotonic + lease_time, -1, plain)
            old = before.leases.get(job) if before is not None else None
            if old is not None and old.token == token:
                lease.worker, lease.until, lease.epoch = old.worker, old.until, old.epoch
            lease.cancel = bool(cancel)
            board.lease(job, lane, lease)
            board.move(lane, None, JobState.RUNNING)
        board.paused = frozenset(q for (q,) in connection.execute("SELECT queue FROM paused"))
        known = dict(connection.execute("SELECT key, value FROM turns"))
        board.turns = Turns(virtual=known.pop("", 0.0), rates=known)
        (last,) = connection.execute("SELECT max(id) FROM jobs").fetchone()
        (high,) = connection.execute(
            "SELECT coalesce((SELECT value FROM meta WHERE key = 'last_id'), 0)"
        ).fetchone()
        board.next_id = max(last or 0, high) + 1
        return board

    def lane_of(self, job: NewJob, connection: sqlite3.Connection) -> Lane:
        """The lane of a new job, made if there is none yet."""
        key = (job.queue, job.fair_key, job.target)
        lane = self.by_key.get(key)
        if lane is None:
            lane = Lane(
                id=self.next_lane, queue=job.queue, fair_key=job.fair_key, target=job.target
            )
            connection.execute("INSERT INTO lanes VALUES (?, ?, ?, ?)", (lane.id, *key))
            self._enter(lane)
        return lane

    def spec_of(self, job: NewJob, connection: sqlite3.Connection) -> int:
        """The spec of a new job, made if there is none yet."""
        spec = Spec(job.kind, job.priority, job.max_attempts)
        number = self.spec_ids.get(spec)
        if number is None:
            number = len(self.specs) + 1
            connection.execute("INSERT INTO specs VALUES (?, ?, ?, ?)", (number, *spec))
            self._know(number, spec)
        return number

    def _know(self, number: int, spec: Spec) -> None:
        self.specs[number] = spec
        self.spec_ids[spec] = number

    def _enter(self, lane: Lane) -> None:
        self.lanes[lane.id] = lane
        self.by_key[lane.queue, lane.fair_key, lane.target] = lane
        self.next_lane = max(self.next_lane, lane.id + 1)

    def move(
        self, lane: Lane, old: JobState | None, new: JobState | None, count: int = 1, head: int = 0
    ) -> None:
        """Count `count` jobs of a lane from one state to another; `head` is the least new rank."""
        counts, queue = self.counts, lane.queue
        if old is not None:
            counts[queue, old] -= count
            if old is JobState.AVAILABLE:
                lane.available -= count
                lane.head = 0  # not known any longer
                if not lane.available:
                    del self.active[queue][lane.id]
        if new is not None:
            counts[queue, new] = counts.get((queue, new), 0) + count
            if new is JobState.AVAILABLE:
                if not lane.available:
                    self.active.setdefault(queue, {})[lane.id] = lane
                    lane.head = head
                elif lane.head:
                    lane.head = min(lane.head, head) if head else 0
                lane.available += count

    def waiting(self, queue: str) -> int:
        """Jobs of a queue that are scheduled or available."""
        counts = self.counts
        return counts.get((queue, JobState.SCHEDULED), 0) + counts.get(
            (queue, JobState.AVAILABLE), 0
        )

    def begin(self, lane: Lane, count: int) -> None:
        """Count so many more running jobs of a lane; their leases are noted beside it."""
        for key in _keys(lane):
            self.running[key] = self.running.get(key, 0) + count

    def lease(self, job: int, lane: Lane, lease: Lease) -> None:
        """Note that a job runs."""
        self.leases[job] = lease
        self.begin(lane, 1)

    def let_go(self, job: int) -> tuple[Lease, Lane]:
        """Note that a job runs no longer."""
        lease = self.leases.pop(job)
        self.begin(lease.lane, -1)
        return lease, lease.lane

    def holds(self, job: int, token: int) -> bool:
        """Whether this token is the one that the job is held by."""
        lease = self.leases.get(job)
        return lease is not None and lease.token == token

    def with_jobs(self, queues: Iterable[str]) -> Sequence[Lane]:
        """Lanes of these queues in which jobs are available."""
        active = self.active
        return [lane for queue in queues if queue in active for lane in active[queue].values()]


def _keys(lane: Lane) -> tuple[str, ...]:
    if not lane.fair_key and not lane.target:
        return (lane.queue,)
    keys = (lane.queue, f"{lane.queue}/{lane.fair_key}")
    return (*keys, f"target:{lane.target}") if lane.target else keys
