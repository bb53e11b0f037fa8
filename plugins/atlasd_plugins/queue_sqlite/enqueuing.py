"""New jobs on their way into the SQLite queue: gathered, so that many take one statement."""

import json
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
        self._rows: list[tuple[Any, ...]] = []

    def add(self, jobs: Sequence[NewJob], rules: Rules, *, bounded: bool = True) -> list[Enqueued]:
        """Enqueue them all; raises `job.queue_full` before the first, if `bounded`."""
        if bounded:
            self._room(jobs, rules)
        turn, board = self._turn, self._turn.board
        now = turn.now
        lane, key, plain = None, ("", "", ""), True
        done: list[Enqueued] = []
        rows = self._rows
        heads: dict[int, list[Any]] = {}
        for job in jobs:
            mine = (job.queue, job.fair_key, job.target)
            if lane is None or mine != key:
                key = mine
                lane = board.by_key.get(mine) or board.lane_of(job, turn.write())
            run_at = job.run_at or now + job.delay
            later = run_at > now
            state = JobState.SCHEDULED if later else JobState.AVAILABLE
            if job.unique_key:
                plain = False
                answer = self._taken(job, run_at, state, rules)
                if answer is not None:
                    done.append(answer)
                    continue
            rank = rules.rank(job.queue, job.priority, run_at)
            number = board.next_id
            board.next_id = number + 1
            until = job.unique_until
            rows.append(
                (
                    number, lane.id, state.value, rank, run_at, job.priority, job.max_attempts,
                    job.unique_key or None, now + until if until > 0 else until,
                    now + job.expires_in if job.expires_in else None, now, job.kind, job.args,
                    job.options,
                )
            )  # fmt: skip
            if not plain:
                self.flush()
            done.append(Enqueued(number, state))
            seen = heads.get(lane.id)
            if seen is None:
                heads[lane.id] = seen = [lane, 0, 0, 0]
            if later:
                seen[1] += 1
            else:
                seen[2] += 1
                seen[3] = min(seen[3], rank) if seen[3] else rank
        for found, scheduled, available, head in heads.values():
            if scheduled:
                board.move(found, None, JobState.SCHEDULED, scheduled)
            if available:
                board.move(found, None, JobState.AVAILABLE, available, head=head)
        return done

    def flush(self) -> None:
        """Write the rows."""
        if self._rows:
            self._turn.write().executemany(sql.INSERT, self._rows)
            self._rows.clear()  # the same list: `add` holds on to it

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
        number, word, lane_id, until, _ = found
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
            rank = rules.rank(job.queue, job.priority, run_at)
            turn.write().execute(sql.MOVE_RUN_AT, (state.value, run_at, rank, number))
            lane = turn.board.lanes[lane_id]
            turn.board.move(lane, other, state, head=rank)
            return Enqueued(number, state, "moved")
        return Enqueued(number, other, "existing")
