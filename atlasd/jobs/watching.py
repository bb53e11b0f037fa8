"""Jobs and queues, watched: what becomes of them, as it happens."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from atlasd.contracts.queue import Row
from atlasd.jobs.asking import Ask, Body, brief, one_of, whole
from atlasd.jobs.engine import JobEngine
from atlasd.states import JOB_FINAL

LOOK = 1.0
"""Seconds after which a job is looked at though nothing was heard of it: other hosts settle jobs
too, and progress comes with heartbeats."""


class Watching:
    """Streams of what becomes of jobs."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def job(self, *, id: int, follow: bool, actor: str) -> AsyncGenerator[Body, None]:
        """`job.watch`: the job now and, with `follow`, after each change until it has ended."""
        del actor
        return self._steps(await one_of(self._ask, id), follow=follow)

    async def _steps(self, row: Row, *, follow: bool) -> AsyncGenerator[Body, None]:
        while True:
            yield _step(row)
            if not follow or row.state in JOB_FINAL:
                return
            changed = await self._changed(row)
            if changed is None:
                yield {**_step(row), "gone": True}
                return
            row = changed

    async def _changed(self, row: Row) -> Row | None:
        """The job when it is no longer as it was; None when it is no longer there."""
        while True:
            now = await self._ask(lambda engine: _change(engine, row.id))
            if now is None or not _same(now, row):
                return now


async def _change(engine: JobEngine, id: int) -> Row | None:
    """The job after the next thing that is heard of it, or after a while."""
    heard = engine.listen(id)
    try:
        async with asyncio.timeout(LOOK):
            await heard.wait()
    except TimeoutError:
        pass
    finally:
        engine.forget(id, heard)
    return await engine.store.get(id)


def _same(one: Row, other: Row) -> bool:
    return (
        (one.state, one.attempt, one.token, one.progress, one.run_at, one.cancel_requested)
        == (
            other.state, other.attempt, other.token, other.progress, other.run_at,
            other.cancel_requested,
        )
    )  # fmt: skip


def _step(row: Row) -> Body:
    known: Mapping[str, Any] = whole(row)
    errors = known["errors"]
    return {
        **brief(row),
        "progress": known["progress"],
        "result": known["result"],
        "cancel_requested": row.cancel_requested,
        "error": errors[-1] if errors else None,
    }
