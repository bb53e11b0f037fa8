"""What core does when it is asked about jobs: one method an operation."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atlasd.contracts.queue import (
    BreakerRow,
    ClaimAsk,
    Claimed,
    Filter,
    Held,
    QueueLimits,
    Row,
    Rules,
)
from atlasd.errors import AtlasError, nearest
from atlasd.jobs import circuit
from atlasd.jobs.asking import CHUNK, Ask, Body, brief, moment, one_of, whole, wrong_state
from atlasd.jobs.engine import LEASE, JobEngine, settlements_of
from atlasd.jobs.newjob import DEFAULT_QUEUE, arguments, new_jobs
from atlasd.jobs.outcome import options
from atlasd.states import JOB_FINAL, JobState


class JobOperations:
    """Operations on jobs, queues and breakers, as plain values.

    See `atlasd.core.operations.ServiceOperations` for the manner.
    """

    def __init__(self, ask: Ask, rules: Callable[[], Rules]) -> None:
        self._ask = ask
        self._rules = rules

    # --- jobs

    async def enqueue(self, *, jobs: Sequence[Mapping[str, Any]], key: str, actor: str) -> Body:
        """`job.enqueue`."""
        del actor
        made = new_jobs(list(jobs))

        async def work(engine: JobEngine) -> Body:
            found = await engine.enqueue(made, idempotency_key=key)
            return {"jobs": [one._asdict() for one in found]}

        return await self._ask(work)

    async def list(
        self,
        *,
        id: tuple[int, ...],
        queue: str | None,
        kind: str | None,
        state: tuple[str, ...],
        fair_key: str | None,
        target: str | None,
        tag: str | None,
        after: int,
        limit: int,
        actor: str,
    ) -> Body:
        """`job.list`."""
        del actor
        which = Filter(
            ids=id, queue=queue or "", kind=kind or "", fair_key=fair_key or "",
            target=target or "", tag=tag or "", after=after,
            states=tuple(JobState(one) for one in state),
        )  # fmt: skip
        rows = await self._select(which, limit)
        return {"jobs": [brief(row) for row in rows]}

    async def show(self, *, id: int, actor: str) -> Body:
        """`job.show`."""
        del actor
        return whole(await self._one(id))

    async def explain(self, *, id: int, actor: str) -> Body:
        """`job.explain`: the one reason why it does not run, or what it does."""
        del actor
        row = await self._one(id)

        async def look(engine: JobEngine) -> tuple[Any, ...]:
            store = engine.store
            return (
                await store.now(),
                await store.paused(),
                {one.target: one for one in await store.breakers()},
                await store.count(),
                len([s for s in engine.sessions.values() if not s.draining]),
            )

        now, paused, breakers, counts, workers = await self._ask(look)
        running = sum(
            one.jobs for one in counts if one.queue == row.queue and one.state is JobState.RUNNING
        )
        reason, detail = explained(
            row,
            now=now,
            paused=row.queue in paused,
            breaker=breakers.get(row.target),
            limits=self._rules().limits(row.queue),
            running=running,
            workers=workers,
        )
        return {"id": row.id, "state": row.state.value, "reason": reason, "detail": detail}

    async def cancel(self, *, id: int, actor: str) -> Body:
        """`job.cancel`."""
        row = await self._one(id)
        if row.state in JOB_FINAL:
            raise wrong_state(row, "cancelled", "only a job that waits or runs can be")
        del actor
        await self._ask(
            lambda engine: engine.store.cancel(Filter(ids=(id,)), reason="user", limit=1)
        )
        return whole(await self._one(id))

    async def retry(self, *, id: int, args: Mapping[str, Any] | None, actor: str) -> Body:
        """`job.retry`."""
        del actor
        row = await self._one(id)
        if row.state not in JOB_FINAL:
            raise wrong_state(row, "requeued", "it has not ended")
        text = arguments(args, "args") if args is not None else ""
        await self._ask(lambda engine: engine.store.requeue(Filter(ids=(id,)), args=text, limit=1))
        return whole(await self._one(id))

    # --- workers that speak HTTP

    async def work(
        self,
        *,
        worker: str,
        queues: tuple[str, ...],
        limit: int,
        wait_seconds: float,
        finish: Sequence[Sequence[Any]],
        fail: Sequence[Mapping[str, Any]],
        release: Sequence[Sequence[Any]],
        actor: str,
    ) -> Body:
        """`job.work`: settle, and claim; the lease is all that holds what was claimed."""
        said: dict[str, Any] = {
            "finish": [list(one) for one in finish],
            "fail": [dict(one) for one in fail],
            "release": [list(one) for one in release],
        }
        settlements = settlements_of(said)
        ask = None
        if limit:
            ask = ClaimAsk(
                worker=f"http/{actor}/{worker}", queues=queues or (DEFAULT_QUEUE,), limit=limit,
                lease=LEASE, wait=round(wait_seconds * 1000),
            )  # fmt: skip

        async def work(engine: JobEngine) -> Body:
            held, jobs = await engine.store.exchange(settlements, ask)
            engine.measures.returned(settlements, held, await engine.store.now())
            engine.measures.lent(jobs, LEASE)
            engine.due_in(LEASE if jobs else 1)
            lost = [one.id for one, kept in zip(settlements, held, strict=True) if not kept]
            if lost and ask is None and len(lost) == len(settlements):
                raise AtlasError(
                    "job.lease_lost",
                    f"the lease of job {', '.join(map(str, lost))} has ended: nothing was done",
                    hint="stop working on it; it is or will be somebody else's",
                    details={"lost": lost},
                )
            return {"jobs": [_given(job) for job in jobs], "lost": lost}

        return await self._ask(work)

    async def beat(self, *, worker: str, held: Sequence[Sequence[int]], actor: str) -> Body:
        """`job.beat`."""
        leases = [Held(id=one[0], token=one[1]) for one in held]

        async def work(engine: JobEngine) -> Body:
            found = await engine.store.extend(f"http/{actor}/{worker}", leases, LEASE)
            engine.due_in(LEASE)
            return {"lost": list(found.lost), "cancel": list(found.cancel)}

        return await self._ask(work)

    # --- queues

    async def queues(self, *, actor: str) -> Body:
        """`queue.list`."""
        del actor

        async def look(engine: JobEngine) -> tuple[Any, ...]:
            store = engine.store
            return await store.now(), await store.count(), await store.paused(), store.durable

        now, counts, paused, durable = await self._ask(look)
        found: dict[str, Body] = {}
        for name in sorted({*paused, *(one.queue for one in counts)}):
            limits = self._rules().limits(name)
            found[name] = {
                "name": name, "paused": name in paused, "oldest_seconds": None,
                "aging_seconds": limits.aging / 1000.0, "strict": limits.strict,
                **{state.value: 0 for state in JobState},
            }  # fmt: skip
        for one in counts:
            found[one.queue][one.state.value] = one.jobs
            if one.state is JobState.AVAILABLE and one.oldest:
                found[one.queue]["oldest_seconds"] = max(0.0, (now - one.oldest) / 1000.0)
        return {"queues": list(found.values()), "survives": durable}

    async def pause(self, *, queue: str, actor: str) -> Body:
        """`queue.pause`."""
        del actor
        await self._ask(lambda engine: engine.store.pause(queue, paused=True))
        return {"queue": queue, "paused": True}

    async def resume(self, *, queue: str, actor: str) -> Body:
        """`queue.resume`."""
        del actor
        await self._ask(lambda engine: engine.store.pause(queue, paused=False))
        return {"queue": queue, "paused": False}

    async def purge(self, *, queue: str, state: tuple[str, ...], dry_run: bool, actor: str) -> Body:
        """`queue.purge`."""
        del actor
        states = tuple(JobState(one) for one in state) or (
            JobState.SCHEDULED, JobState.AVAILABLE,
        )  # fmt: skip
        return await self._purge(Filter(queue=queue, states=states), dry_run=dry_run)

    # --- circuit breakers of targets

    async def breakers(self, *, actor: str) -> Body:
        """`breaker.list`."""
        del actor

        async def look(engine: JobEngine) -> tuple[int, Sequence[BreakerRow]]:
            return await engine.store.now(), await engine.store.breakers()

        now, rows = await self._ask(look)
        return {"breakers": [_breaker(row, now) for row in rows]}

    async def breaker_set(self, *, target: str, state: str, actor: str) -> Body:
        """`breaker.set`."""
        del actor

        async def work(engine: JobEngine) -> Body:
            known = [row.target for row in await engine.store.breakers()]
            if target not in known and state == circuit.CLOSED:
                raise AtlasError(
                    "breaker.unknown", f"no breaker {target!r}", hint=nearest(target, known)
                )
            return _breaker(await engine.store.set_breaker(target, state), await engine.store.now())

        return await self._ask(work)

    # --- beneath

    async def _select(self, which: Filter, limit: int) -> Sequence[Row]:
        return await self._ask(lambda engine: engine.store.select(which, limit))

    async def _one(self, job: int) -> Row:
        return await one_of(self._ask, job)

    async def _delete(self, ids: tuple[int, ...]) -> None:
        await self._ask(lambda engine: engine.store.purge(Filter(ids=ids), limit=len(ids)))

    async def _purge(self, which: Filter, *, dry_run: bool) -> Body:
        done, after = 0, 0
        while True:
            rows = await self._select(_after(which, after), CHUNK)
            if rows and not dry_run:
                await self._delete(tuple(row.id for row in rows))
            done += len(rows)
            if len(rows) < CHUNK:
                return {"jobs": done, "dry_run": dry_run}
            after = rows[-1].id


def explained(
    row: Row,
    *,
    now: int,
    paused: bool,
    breaker: BreakerRow | None,
    limits: QueueLimits,
    running: int,
    workers: int,
) -> tuple[str, str]:
    """Why a job is where it is: a word, and a sentence. The first that holds is the one reason."""
    if row.state in JOB_FINAL:
        return row.reason or row.state.value, f"it has ended: {row.state.value}" + (
            f" ({row.reason})" if row.reason else ""
        )
    if row.state is JobState.RUNNING:
        asked = "; it is asked to end" if row.cancel_requested else ""
        return "running", f"worker {row.worker} holds it, attempt {row.attempt}{asked}"
    if row.state is JobState.SCHEDULED:
        wait = max(0, row.run_at - now) / 1000.0
        if row.attempt:
            return "retrying", f"attempt {row.attempt} failed; the next is due in {wait:.0f} s"
        return "scheduled", f"it is due in {wait:.0f} s"
    if paused:
        return "paused", f"the queue {row.queue} is paused: `atlasctl queue resume {row.queue}`"
    if breaker is not None and circuit.is_shut(breaker):
        until = (
            f", for {max(0, breaker.open_until - now) / 1000.0:.0f} s more"
            if breaker.state == circuit.OPEN
            else " by an operator"
        )
        return "breaker", f"the breaker of {row.target} is open{until}"
    if breaker is not None and breaker.state == circuit.HALF_OPEN:
        return "breaker", f"the breaker of {row.target} is half open: one probe at a time"
    if limits.concurrency and running >= limits.concurrency:
        return "concurrency", f"{running} jobs of {row.queue} run, which is all that may"
    if limits.rate or limits.key_rate:
        return "rate", f"jobs of {row.queue} are let out at {limits.rate or limits.key_rate:g}/s"
    if not workers:
        return "no_worker", "no worker is connected"
    return "waiting", "it has its turn as soon as a worker is free"


def _after(which: Filter, after: int) -> Filter:
    from dataclasses import replace

    return replace(which, after=after)


def _given(job: Claimed) -> Body:
    return {
        "id": job.id, "token": job.token, "attempt": job.attempt, "queue": job.queue,
        "kind": job.kind, "args": json.loads(job.args), "max_attempts": job.max_attempts,
        "lease_until": moment(job.lease_until), "run_at": moment(job.run_at),
        "options": dict(options(job.options)),
    }  # fmt: skip


def _breaker(row: BreakerRow, now: int) -> Body:
    calls = [0, 0, 0]
    for counts in json.loads(row.buckets).values():
        calls = [a + b for a, b in zip(calls, counts, strict=True)]
    opens = max(0.0, (row.open_until - now) / 1000.0) if row.state == circuit.OPEN else None
    return {
        "target": row.target, "state": row.state, "since": moment(row.changed_at),
        "half_open_in_seconds": opens, "trips": row.trips, "calls": calls[0],
        "failures": calls[1], "slow": calls[2],
    }  # fmt: skip
