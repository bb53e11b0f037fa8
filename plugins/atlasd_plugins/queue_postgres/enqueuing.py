"""New jobs on their way into the PostgreSQL queue: gathered, so that many take one statement."""

import json
from collections.abc import Sequence
from typing import Any

from atlasd.contracts.queue import Enqueued, JobState, NewJob, Rules
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.lanes import Lanes, Numbers
from atlasd_plugins.queue_postgres.link import Statement, Transaction

COPY_FROM = 32
"""Jobs from which on COPY is quicker than a statement with all of them, an extra trip included."""

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Enqueuing:
    """The new jobs of one transaction. Their lanes are known and their numbers reserved."""

    def __init__(self, lanes: Lanes, numbers: Numbers, rules: Rules) -> None:
        self._lanes = lanes
        self._numbers = numbers
        self._rules = rules
        self._plain: list[tuple[int, int, NewJob]] = []
        """Number, lane and job of those without a unique key."""
        self.fresh: dict[int, list[int]] = {}
        """Of each lane how many of them are available, and the least rank."""

    # --- when the database decides what is due

    def rows(self, jobs: Sequence[NewJob]) -> list[list[Any]]:
        """What `sql.ENQUEUE` takes of them, in order."""
        rank, by_key = self._rules.rank, self._lanes.by_key
        return [
            [
                number, by_key[job.queue, job.fair_key, job.target].id,
                rank(job.queue, job.priority, 0), job.run_at, job.delay, job.priority,
                job.max_attempts, job.unique_key or None, job.unique_until, job.expires_in,
                job.kind, job.args, job.options,
            ]
            for number, job in zip(self._numbers.take(len(jobs)), jobs, strict=True)
        ]  # fmt: skip

    # --- in a transaction whose moment is known

    async def add(self, turn: Transaction, jobs: Sequence[NewJob], now: int) -> list[Enqueued]:
        """What becomes of them; those without a unique key are written by `write` or `rest`."""
        done: list[Enqueued] = []
        by_key = self._lanes.by_key
        keyed = [job for job in jobs if job.unique_key]
        if keyed:
            inserted = await self._insert_keyed(turn, keyed, now)
        numbers = iter(self._numbers.take(len(jobs) - len(keyed)))
        for job in jobs:
            if job.unique_key:
                done.append(inserted.pop(0))
                continue
            number = next(numbers)
            lane = by_key[job.queue, job.fair_key, job.target].id
            self._plain.append((number, lane, job))
            done.append(Enqueued(number, self._note(job, lane, now)))
        return done

    def _note(self, job: NewJob, lane: int, now: int) -> JobState:
        run_at = job.run_at or now + job.delay
        if run_at > now:
            return JobState.SCHEDULED
        rank = self._rules.rank(job.queue, job.priority, run_at)
        seen = self.fresh.get(lane)
        if seen is None:
            self.fresh[lane] = [1, rank]
        else:
            seen[0] += 1
            seen[1] = min(seen[1], rank)
        return JobState.AVAILABLE

    async def write(self, turn: Transaction, now: int) -> None:
        """Write them by COPY, if they are worth it."""
        if len(self._plain) < COPY_FROM:
            return
        rank = self._rules.rank
        lines = []
        for number, lane, job in self._plain:
            run_at = job.run_at or now + job.delay
            state = "scheduled" if run_at > now else "available"
            expires = now + job.expires_in if job.expires_in else "\\N"
            texts = f"{job.kind}\t{job.args}\t{job.options}"
            if "\\" in texts or "\n" in texts or "\r" in texts or texts.count("\t") > 2:
                texts = "\t".join(
                    one.translate(_ESCAPES) for one in (job.kind, job.args, job.options)
                )
            until = now + job.unique_until if job.unique_until > 0 else job.unique_until
            lines.append(
                f"{number}\t{lane}\t{state}\t{rank(job.queue, job.priority, run_at)}\t{run_at}\t"
                f"{now}\t{job.priority}\t{job.max_attempts}\t{until}\t{expires}\t{texts}\n"
            )
        self._plain.clear()
        await turn.copy(sql.COPY, "".join(lines))

    def rest(self, now: int) -> list[Statement]:
        """The statement that writes what `write` has left."""
        if not self._plain:
            return []
        rank = self._rules.rank
        rows = [
            [
                number, lane, rank(job.queue, job.priority, 0), job.run_at, job.delay,
                job.priority, job.max_attempts, None, job.unique_until, job.expires_in, job.kind,
                job.args, job.options,
            ]
            for number, lane, job in self._plain
        ]  # fmt: skip
        self._plain.clear()
        return [(sql.ENQUEUE, (json.dumps(rows), str(now)))]

    # --- unique keys

    async def _insert_keyed(
        self, turn: Transaction, jobs: Sequence[NewJob], now: int
    ) -> list[Enqueued]:
        rows = self.rows(jobs)
        answer = await turn.rows(sql.ENQUEUE, json.dumps(rows), str(now))
        new = {number for number, _ in answer}
        done = []
        for row, job in zip(rows, jobs, strict=True):
            lane = row[1]
            if row[0] in new:
                done.append(Enqueued(row[0], self._note(job, lane, now)))
            else:
                done.append(await self._taken(turn, row, job, now))
        return done

    async def _taken(self, turn: Transaction, row: list[Any], job: NewJob, now: int) -> Enqueued:
        """What stands for a job whose key another one has, or had until a moment ago."""
        while True:
            found = await turn.rows(sql.BY_UNIQUE, job.unique_key)
            if found:
                if not 0 < found[0][2] <= now:
                    return await self._conflict(turn, job, found[0], now)
                await turn.rows(sql.FREE_UNIQUE, str(found[0][0]))
            if await turn.rows(sql.ENQUEUE, json.dumps([row]), str(now)):
                return Enqueued(row[0], self._note(job, row[1], now))

    async def _conflict(
        self, turn: Transaction, job: NewJob, other: tuple[Any, ...], now: int
    ) -> Enqueued:
        number, word, _, queue, priority = other
        state = JobState(word)
        waits = state in (JobState.SCHEDULED, JobState.AVAILABLE)
        if job.on_conflict == "reject":
            return Enqueued(number, state, "rejected")
        if job.on_conflict == "replace_args" and waits:
            await turn.rows(sql.REPLACE_ARGS, job.args, job.options, str(number))
            return Enqueued(number, state, "replaced")
        if job.on_conflict == "move_run_at" and waits:
            run_at = job.run_at or now + job.delay
            state = JobState.SCHEDULED if run_at > now else JobState.AVAILABLE
            rank = self._rules.rank(queue, priority, run_at)
            await turn.rows(sql.MOVE_RUN_AT, state.value, str(run_at), str(rank), str(number))
            return Enqueued(number, state, "moved")
        return Enqueued(number, state, "existing")
