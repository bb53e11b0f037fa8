"""What core does when it is asked about queues: one method an operation."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from atlasd.contracts.queue import BreakerRow, Filter, QueueCount, QueueLimits, Rules
from atlasd.errors import AtlasError, nearest
from atlasd.jobs import circuit
from atlasd.jobs.asking import CHUNK, Ask, Body
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.lookout import by_state
from atlasd.jobs.sessions import Session, Visitor
from atlasd.jobs.verdict import FRESH, QueueHealth
from atlasd.states import JobState

WATCH = 1.0
"""Seconds between two looks at a queue that is watched."""


class _Known(NamedTuple):
    """What the engine's loop told of queues."""

    now: int
    counts: Mapping[str, Mapping[JobState, QueueCount]]
    paused: frozenset[str]
    durable: str
    health: Mapping[str, QueueHealth]
    workers: Mapping[str, Sequence[Session | Visitor]]
    rates: Mapping[str, tuple[int, int]]
    shut: Mapping[str, tuple[str, ...]]


class QueueOperations:
    """Operations on queues, as plain values; see `JobOperations`."""

    def __init__(
        self, ask: Ask, rules: Callable[[], Rules], named: Callable[[], Sequence[str]] = tuple
    ) -> None:
        """`named` gives the queues that the configuration names."""
        self._ask = ask
        self._rules = rules
        self._named = named

    async def list(self, *, actor: str) -> Body:
        """`queue.list`."""
        del actor
        known = await self._ask(_look)
        return {
            "queues": [self._brief(name, known) for name in sorted(_names(known))],
            "survives": known.durable,
        }

    async def show(self, *, queue: str, actor: str) -> Body:
        """`queue.show`."""
        del actor
        return self._whole(queue, await self._ask(_look))

    async def watch(self, *, queue: str, follow: bool, actor: str) -> AsyncGenerator[Body, None]:
        """`queue.watch`: the queue now and, with `follow`, as it changes until nothing waits."""
        del actor
        return self._steps(queue, self._whole(queue, await self._ask(_look)), follow=follow)

    async def _steps(self, queue: str, body: Body, *, follow: bool) -> AsyncGenerator[Body, None]:
        while True:
            yield body
            seen = body
            while body == seen or not _differs(body, seen):
                if not follow or not (body["available"] or body["running"]):
                    return
                await asyncio.sleep(WATCH)
                body = self._whole(queue, await self._ask(_look), strict=False)

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
        done, after = 0, 0
        while True:
            which = Filter(queue=queue, states=states, after=after)
            rows = await self._ask(lambda engine: engine.store.select(which, CHUNK))  # noqa: B023  awaited here
            ids = tuple(row.id for row in rows)
            if ids and not dry_run:
                # A worker may have taken one since: only what is as it was is deleted.
                gone = Filter(ids=ids, states=states)
                await self._ask(lambda engine: engine.store.purge(gone, limit=len(ids)))  # noqa: B023
            done += len(rows)
            if len(rows) < CHUNK:
                return {"jobs": done, "dry_run": dry_run}
            after = rows[-1].id

    # --- beneath

    def _brief(self, name: str, known: _Known) -> Body:
        states = known.counts.get(name, {})
        limits = self._rules().limits(name)
        health = known.health.get(name, FRESH if states else _EMPTY)
        available = states.get(JobState.AVAILABLE)
        oldest = available.oldest if available is not None else 0
        return {
            "name": name, "paused": name in known.paused,
            "oldest_seconds": max(0.0, (known.now - oldest) / 1000.0) if oldest else None,
            "aging_seconds": limits.aging / 1000.0, "strict": limits.strict,
            **{state.value: states[state].jobs if state in states else 0 for state in JobState},
            "verdict": health.word, "verdict_reason": health.reason,
            "workers": len(known.workers.get(name, ())),
        }  # fmt: skip

    def _whole(self, name: str, known: _Known, *, strict: bool = True) -> Body:
        names = {*_names(known), *self._named()}
        if name not in names and strict:
            raise AtlasError(
                "queue.unknown", f"there is no queue {name!r}",
                hint=nearest(name, sorted(names)) or "a queue is there once it has a job",
            )  # fmt: skip
        limits = self._rules().limits(name)
        finished, failed = known.rates.get(name, (0, 0))
        health = known.health.get(name)
        return {
            **self._brief(name, known),
            "verdict_since": datetime.fromtimestamp(health.since, tz=UTC) if health else None,
            "finished_per_minute": finished, "failed_per_minute": failed,
            "workers_asking": [_worker(one) for one in known.workers.get(name, ())],
            "limits": _limits(limits),
            "wait_bounds": [
                None if limits.strict and priority else priority * limits.aging / 1000.0
                for priority in range(10)
            ],
            "open_breakers": list(known.shut.get(name, ())),
            "survives": known.durable,
        }  # fmt: skip


_EMPTY = QueueHealth(word="ok", reason="no job waits", since=0.0)


async def _look(engine: JobEngine) -> _Known:
    store, lookout, measures = engine.store, engine.lookout, engine.measures
    await lookout.refresh()
    counts = by_state(await store.count())
    paused = await store.paused()
    breakers: Sequence[BreakerRow] = await store.breakers()
    shut = {row.target for row in breakers if circuit.is_shut(row)}
    names = {*counts, *paused, *lookout.asked()}
    return _Known(
        now=await store.now(),
        counts=counts,
        paused=paused,
        durable=store.durable,
        health=dict(lookout.found),
        workers={name: lookout.workers(name) for name in names},
        rates={name: measures.per_minute(name) for name in names},
        shut={name: tuple(sorted(shut & measures.targets.get(name, set()))) for name in names},
    )


def _names(known: _Known) -> set[str]:
    return {*known.counts, *known.paused, *known.workers}


def _worker(one: Session | Visitor) -> Body:
    if isinstance(one, Visitor):
        return {"worker": one.said, "concurrency": None, "held": None}
    return {"worker": one.said, "concurrency": one.concurrency, "held": len(one.held)}


def _limits(limits: QueueLimits) -> dict[str, Any]:
    return {
        "size": limits.size or None, "concurrency": limits.concurrency or None,
        "key_concurrency": limits.key_concurrency or None, "rate": limits.rate or None,
        "key_rate": limits.key_rate or None, "max_wait_seconds": limits.max_wait / 1000.0,
    }  # fmt: skip


def _differs(one: Body, other: Body) -> bool:
    """Whether anything changed but the time."""
    keys = (*(state.value for state in JobState), "paused", "verdict", "workers")
    return any(one[key] != other[key] for key in keys)
