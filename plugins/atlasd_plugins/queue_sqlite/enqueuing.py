"""New jobs on their way into the SQLite queue: gathered, so that many take one statement."""

import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atlasd.contracts.queue import Enqueued, JobState, NewJob, Rules
from atlasd.errors import AtlasError
from atlasd_plugins.queue_sqlite import sql

if TYPE_CHECKING:
    from atlasd_plugins.queue_sqlite.round import Round


IDEMPOTENCY = 86_400_000
"""Milliseconds that the answer to an idempotency key is remembered."""


def once(turn: "Round", jobs: Sequence[NewJob], key: str) -> Sequence[Enqueued]:
    """Enqueue jobs, or give the answer that this idempotency key had before."""
    known = turn.connection.execute(
        "SELECT answer FROM idempotency WHERE key = ? AND created_at > ?",
        (key, turn.now - IDEMPOTENCY),
    ).fetchone()
    if known is not None:
        return [Enqueued(i, JobState(s), o) for i, s, o in json.loads(known[0])]
    found = turn.enqueuing.add(jobs, turn.rules)
    turn.write().execute(
        "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?)", (key, json.dumps(found), turn.now)
    )
    return found


class Enqueuing:
    """The new jobs of one transaction."""

    def __init__(self, turn: "Round") -> None:
        self._turn = turn
        self._rows: list[Any] = []
        self._payloads: list[Any] = []

    def add(self, jobs: Sequence[NewJob], rules: Rules, *, bounded: bool = True) -> list[Enqueued]:
        """Enqueue them all; raises `job.queue_full` before the first, if `bounded`."""
        if bounded:
            self._room(jobs, rules)
        turn, board = self._turn, self._turn.board
        now = turn.now
        done: list[Enqueued] = []
        rows, payloads = self._rows, self._payloads
        heads: dict[int, list[Any]] = {}
        like: tuple[Any, ...] | None = None
        queue = kind = ""
        lane, state, same, rank, seen = 0, JobState.AVAILABLE, _NONE, 0, []
        for job in jobs:
            # Most jobs of a batch differ in their arguments alone: the rest is worked out once.
            if job[3:] != like or job[0] != queue or job[1] != kind:
                queue, kind, like = job[0], job[1], job[3:]
                run_at = job.run_at or now + job.delay
                found = board.by_key.get((queue, job.fair_key, job.target))
                found = found or board.lane_of(job, turn.write())
                rank = rules.rank(queue, job.priority, run_at)
                state = JobState.SCHEDULED if run_at > now else JobState.AVAILABLE
                until = job.unique_until
                lane = found.id
                same = (
                    lane, board.spec_of(job, turn.write()), str(state), rank, run_at,
                    now + job.expires_in if job.expires_in else None, job.unique_key or None,
                    now + until if until > 0 else until,
                )  # fmt: skip
                seen = heads.setdefault(lane, [found, 0, 0, 0])
            if job.unique_key:
                answer = self._taken(job, same[4], state, rules)
                if answer is not None:
                    done.append(answer)
                    continue
            number = board.next_id
            board.next_id = number + 1
            rows += (number, *same)
            payloads += (number, now, job.args, job.options)
            if job.unique_key:
                self.flush()
            done.append(Enqueued(number, state))
            if state is JobState.SCHEDULED:
                seen[1] += 1
            else:
                seen[2] += 1
                seen[3] = min(seen[3], rank) if seen[3] else rank
        for touched, scheduled, available, head in heads.values():
            if scheduled:
                board.move(touched, None, JobState.SCHEDULED, scheduled)
            if available:
                board.move(touched, None, JobState.AVAILABLE, available, head=head)
        return done

    def flush(self) -> None:
        """Write the rows."""
        if self._rows:
            connection = self._turn.write()
            _insert(connection, sql.INSERT, 9, self._rows)
            _insert(connection, sql.INSERT_PAYLOAD, 4, self._payloads)
            # The same lists: `add` holds on to them.
            self._rows.clear()
            self._payloads.clear()

    def _room(self, jobs: Sequence[NewJob], rules: Rules) -> None:
        wanted: dict[str, int] = {}
        for job in jobs:
            wanted[job.queue] = wanted.get(job.queue, 0) + 1
        for queue, count in wanted.items():
            size = rules.limits(queue).size
            waiting = self._turn.board.waiting(queue)
            if size and waiting + count > size:
                raise AtlasError(
                    "job.queue_full",
                    f"the queue {queue} has {waiting} of at most {size} waiting jobs: "
                    f"{count} more are not taken",
                    hint="enqueue later, add workers, or raise the queue's `size`",
                    details={"queue": queue, "waiting": waiting, "size": size},
                )

    def _taken(self, job: NewJob, run_at: int, state: JobState, rules: Rules) -> Enqueued | None:
        """What stands for a job whose key another one has; None when the key is free."""
        turn = self._turn
        turn.flush()
        found = turn.connection.execute(sql.BY_UNIQUE, (job.unique_key,)).fetchone()
        if found is None:
            return None
        number, word, lane_id, until, spec = found
        if 0 < until <= turn.now:
            turn.write().execute(sql.FREE_UNIQUE, (number,))
            return None
        other = JobState(word)
        waits = other in (JobState.SCHEDULED, JobState.AVAILABLE)
        if job.on_conflict == "reject":
            return Enqueued(number, other, "rejected")
        if job.on_conflict == "replace_args" and waits:
            turn.write().execute(sql.REPLACE_ARGS, (job.args, job.options, number))
            return Enqueued(number, other, "replaced")
        if job.on_conflict == "move_run_at" and waits:
            lane = turn.board.lanes[lane_id]
            rank = rules.rank(lane.queue, turn.board.specs[spec].priority, run_at)
            turn.write().execute(sql.MOVE_RUN_AT, (state.value, run_at, rank, number))
            turn.board.move(lane, other, state, head=rank)
            return Enqueued(number, state, "moved")
        return Enqueued(number, other, "existing")


_NONE: tuple[Any, ...] = ()
_GROUPS = (256, 16, 1)
"""Rows of one INSERT. With many a row costs half of what it costs alone, since the statement is
entered once; a few fixed sizes keep their prepared statements."""


def _insert(connection: sqlite3.Connection, head: str, width: int, values: list[Any]) -> None:
    """Insert rows of `width` values each, given one after the other."""
    row = f"({', '.join('?' * width)})"
    at = 0
    for group in _GROUPS:
        step = group * width
        if len(values) - at >= step:
            statement = head + ", ".join([row] * group)
            for start in range(at, len(values) - step + 1, step):
                connection.execute(statement, values[start : start + step])
                at = start + step
