"""What core does when it is asked about dead jobs: one method an operation."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from atlasd.contracts.queue import Filter, Row
from atlasd.errors import AtlasError
from atlasd.jobs import records
from atlasd.jobs.asking import CHUNK, Ask, Body, brief, moment, one_of, whole, wrong_state
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.newjob import arguments
from atlasd.states import JobState

IDS = 10_000
"""Requeued jobs that are named in an answer."""
GROUPS = 100
"""Groups that an answer tells apart."""


class DeadOperations:
    """Operations on dead letters, as plain values; see `JobOperations`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def groups(self, *, limit: int, actor: str) -> Body:
        """`dead.groups`."""
        del actor
        groups = await self._ask(lambda engine: engine.store.dead(limit))
        return {
            "groups": [
                {
                    "fingerprint": one.fingerprint, "queue": one.queue, "kind": one.kind,
                    "reason": one.reason, "error": one.error, "jobs": one.jobs,
                    "first": moment(one.first), "last": moment(one.last),
                }
                for one in groups
            ]
        }  # fmt: skip

    async def list(self, *, after: int, limit: int, actor: str, **chosen: Any) -> Body:
        """`dead.list`."""
        del actor
        rows = await self._select(replace(_filter(**chosen), after=after), limit)
        return {
            "jobs": [
                {**brief(row), "fingerprint": row.fingerprint, "error": _last(row)} for row in rows
            ]
        }

    async def edit(self, *, id: int, args: Mapping[str, Any], requeue: bool, actor: str) -> Body:
        """`dead.edit`: other arguments; the job stays dead unless it is requeued."""
        del actor
        row = await one_of(self._ask, id)
        if row.state is not JobState.DEAD:
            raise wrong_state(row, "edited", "only a dead job can be")
        text = arguments(args, "args")

        async def work(engine: JobEngine) -> None:
            which = Filter(ids=(id,), states=(JobState.DEAD,))
            if requeue:
                await engine.store.requeue(which, args=text, limit=1)
            else:
                await engine.store.edit(id, args=text)

        await self._ask(work)
        return whole(await one_of(self._ask, id))

    async def requeue(self, *, limit: int | None, dry_run: bool, actor: str, **chosen: Any) -> Body:
        """`dead.requeue`."""
        del actor

        async def take(engine: JobEngine, ids: tuple[int, ...]) -> Sequence[int]:
            which = Filter(ids=ids, states=(JobState.DEAD,))
            return await engine.store.requeue(which, limit=len(ids))

        return await self._each(_filter(**chosen), None if dry_run else take, limit)

    async def purge(self, *, dry_run: bool, actor: str, **chosen: Any) -> Body:
        """`dead.purge`."""
        del actor

        async def take(engine: JobEngine, ids: tuple[int, ...]) -> Sequence[int]:
            which = Filter(ids=ids, states=(JobState.DEAD,))
            await engine.store.purge(which, limit=len(ids))
            return ids

        return await self._each(_filter(**chosen), None if dry_run else take, None)

    async def export(self, *, actor: str, **chosen: Any) -> AsyncGenerator[bytes, None]:
        """`dead.export`: each as a line, the oldest first."""
        del actor
        which = _filter(**chosen)
        # What cannot be read at all is an error and no empty stream.
        first = await self._select(which, CHUNK)
        return self._lines(which, first)

    async def import_(
        self, *, jobs: Sequence[object], first_line: int, dry_run: bool, actor: str
    ) -> Body:
        """`dead.import`: all or, with `job.invalid` and the line that is wrong, none."""
        del actor
        rows = [records.row_of(one, f"line {first_line + index}") for index, one in enumerate(jobs)]
        said = [dict(one) for one in jobs if isinstance(one, Mapping)]
        ids = tuple(one["id"] for one in said if one.get("id"))
        here = {}
        if ids:
            here = {row.id: row for row in await self._select(Filter(ids=ids), len(ids))}
        fresh = [
            row
            for row, one in zip(rows, said, strict=True)
            if one.get("id") not in here or not records.same(one, here[one["id"]])
        ]
        taken = len(fresh)
        if fresh and not dry_run:
            made = await self._ask(lambda engine: engine.store.restore(fresh))
            taken = sum(1 for id in made if id)
        return {"jobs": taken, "known": len(rows) - taken, "dry_run": dry_run}

    # --- beneath

    async def _select(self, which: Filter, limit: int) -> Sequence[Row]:
        return await self._ask(lambda engine: engine.store.select(which, limit))

    async def _chunks(self, which: Filter, limit: int | None) -> AsyncIterator[Sequence[Row]]:
        left = limit if limit is not None else 1 << 60
        while left > 0:
            chunk = min(left, CHUNK)
            rows = await self._select(which, chunk)
            if rows:
                yield rows
            left -= len(rows)
            if len(rows) < chunk:
                return
            which = replace(which, after=rows[-1].id)

    async def _each(
        self,
        which: Filter,
        take: Callable[[JobEngine, tuple[int, ...]], Awaitable[Sequence[int]]] | None,
        limit: int | None,
    ) -> Body:
        """Do something to each job that is meant; only count them without `take`."""
        done = 0
        ids: list[int] = []
        groups: dict[tuple[str, str, str], Body] = {}
        async for rows in self._chunks(which, limit):
            taken = {row.id for row in rows}
            if take is not None:
                chunk = tuple(taken)
                taken = set(await self._ask(lambda engine, chunk=chunk: take(engine, chunk)))  # type: ignore[misc]
                ids += sorted(taken)[: IDS - len(ids)]
            done += len(taken)
            for row in rows:
                if row.id in taken:
                    _note(groups, row)
        largest = sorted(groups.values(), key=lambda one: -one["jobs"])[:GROUPS]
        return {"jobs": done, "dry_run": take is None, "ids": ids, "groups": largest}

    async def _lines(self, which: Filter, rows: Sequence[Row]) -> AsyncGenerator[bytes, None]:
        while rows:
            for row in rows:
                yield records.line_of(row)
            if len(rows) < CHUNK:
                return
            rows = await self._select(replace(which, after=rows[-1].id), CHUNK)


def _filter(
    *,
    ids: tuple[int, ...],
    queue: str | None,
    kind: str | None,
    fingerprint: str | None,
    target: str | None,
    tag: str | None,
    since: datetime | None,
    before: datetime | None,
) -> Filter:
    if since is not None and before is not None and since >= before:
        raise AtlasError(
            "request.invalid", "since: nothing can have died since then and before the other time",
            hint="`since` is the earlier one",
        )  # fmt: skip
    return Filter(
        ids=ids, queue=queue or "", kind=kind or "", fingerprint=fingerprint or "",
        target=target or "", tag=tag or "", finalized_since=_ms(since),
        finalized_before=_ms(before), states=(JobState.DEAD,),
    )  # fmt: skip


def _ms(when: datetime | None) -> int:
    return 0 if when is None else max(1, round(when.timestamp() * 1000))


def _note(groups: dict[tuple[str, str, str], Body], row: Row) -> None:
    key = (row.fingerprint, row.queue, row.kind)
    group = groups.get(key)
    if group is None:
        group = groups[key] = {
            "fingerprint": row.fingerprint, "queue": row.queue, "kind": row.kind, "jobs": 0,
            "error": _last(row),
        }  # fmt: skip
    group["jobs"] += 1


def _last(row: Row) -> str:
    known = json.loads(row.errors) if row.errors else ()
    if not known:
        return row.reason
    error, message = known[-1]["error"], known[-1]["message"]
    return f"{error}: {message}" if message else str(error)
