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
    Row,
    Rules,
)
from atlasd.errors import AtlasError, nearest
from atlasd.jobs import circuit
from atlasd.jobs.asking import CHUNK, Ask, Body, brief, moment, one_of, whole, wrong_state
from atlasd.jobs.engine import JobEngine, settlements_of
from atlasd.jobs.explaining import AHEAD, Around, explained
from atlasd.jobs.lookout import by_state
from atlasd.jobs.newjob import DEFAULT_QUEUE, arguments, new_jobs
from atlasd.jobs.outcome import options
from atlasd.states import JOB_FINAL, JobState


class JobOperations:
    """Operations on jobs and breakers, as plain values.

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

        limits = self._rules().limits(row.queue)

        async def look(engine: JobEngine) -> Around:
            store = engine.store
            counts = by_state(await store.count()).get(row.queue, {})
            running = counts.get(JobState.RUNNING)
            breakers = {one.target: one for one in await store.breakers()}
            of_key: Sequence[Row] = ()
            if limits.key_concurrency and row.fair_key:
                which = Filter(queue=row.queue, fair_key=row.fair_key, states=(JobState.RUNNING,))
                of_key = await store.select(which, limits.key_concurrency)
            workers = engine.lookout.workers(row.queue)
            return Around(
                now=await store.now(), paused=row.queue in await store.paused(),
                breaker=breakers.get(row.target) if row.target else None, limits=limits,
                running=running.jobs if running is not None else 0, running_of_key=len(of_key),
                workers=len(workers),
                others=len(engine.sessions) + len(engine.lookout.visitors) - len(workers),
                ahead=await store.ahead(row.id, AHEAD),
            )  # fmt: skip

        reason, detail = explained(row, await self._ask(look))
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
        said_of = settlements_of(said)
        name = f"http/{actor}/{worker}"
        ask = None
        if limit:
            ask = ClaimAsk(
                worker=name, queues=queues or (DEFAULT_QUEUE,), limit=limit,
                lease=self._rules().lease(), wait=round(wait_seconds * 1000),
            )  # fmt: skip

        async def work(engine: JobEngine) -> Body:
            engine.lookout.visited(name, ask.queues if ask is not None else ())
            settlements = [await engine.followed(one) for one in said_of]
            held, jobs = await engine.store.exchange(settlements, ask)
            engine.measures.returned(settlements, held, await engine.store.now())
            engine.measures.lent(jobs, engine.lease())
            engine.due_in(engine.lease() if jobs else 1)
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
            name = f"http/{actor}/{worker}"
            engine.lookout.visited(name, ())
            found = await engine.store.extend(name, leases, engine.lease())
            engine.due_in(engine.lease())
            return {"lost": list(found.lost), "cancel": list(found.cancel)}

        return await self._ask(work)

    # --- circuit breakers of targets

    async def breakers(self, *, actor: str) -> Body:
        """`breaker.list`."""
        del actor

        async def look(engine: JobEngine) -> tuple[int, Sequence[BreakerRow]]:
            return await engine.store.now(), await engine.store.breakers()

        now, rows = await self._ask(look)
        return {"breakers": [_breaker(row, now) for row in rows]}

    async def breaker_set(self, *, target: str, state: str, new: bool, actor: str) -> Body:
        """`breaker.set`."""
        del actor

        async def work(engine: JobEngine) -> Body:
            known = await _targets(engine, target)
            if target not in known and not new:
                raise AtlasError(
                    "breaker.unknown", f"no job has the target {target!r}, as far as is known",
                    hint=nearest(target, sorted(known)) or "--new forces a breaker that is not "
                    "needed yet",
                )  # fmt: skip
            return _breaker(await engine.store.set_breaker(target, state), await engine.store.now())

        return await self._ask(work)

    async def breaker(self, *, target: str, actor: str) -> Body:
        """`breaker.show`."""
        del actor

        async def look(engine: JobEngine) -> Body:
            now = await engine.store.now()
            rows = {row.target: row for row in await engine.store.breakers()}
            known = await _targets(engine, target)
            if target not in known:
                raise AtlasError(
                    "breaker.unknown", f"no breaker {target!r}",
                    hint=nearest(target, sorted(known)) or "a target has one once a job needs it",
                )  # fmt: skip
            return _breaker(rows.get(target, BreakerRow(target)), now)

        return await self._ask(look)

    # --- beneath

    async def _select(self, which: Filter, limit: int) -> Sequence[Row]:
        return await self._ask(lambda engine: engine.store.select(which, limit))

    async def _one(self, job: int) -> Row:
        return await one_of(self._ask, job)


async def _targets(engine: JobEngine, asked: str) -> set[str]:
    """What is known to be called by jobs: by breakers, by jobs that were claimed, or wait."""
    known = {row.target for row in await engine.store.breakers()}
    known = known.union(*engine.measures.targets.values())
    if asked not in known:
        if await engine.store.select(Filter(target=asked), 1):
            known.add(asked)
        waiting = Filter(states=(JobState.AVAILABLE, JobState.SCHEDULED))
        known |= {row.target for row in await engine.store.select(waiting, CHUNK)}
    return known - {""}


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
