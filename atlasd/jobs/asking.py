"""What the operations on jobs share: the way to the engine, and a job as a plain body."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from atlasd.contracts.queue import Row
from atlasd.errors import AtlasError
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.outcome import options

T = TypeVar("T")
Body = dict[str, Any]

CHUNK = 1000
"""Jobs that one transaction of a bulk operation touches."""


class Ask(Protocol):
    """The way into the engine's loop."""

    async def __call__(self, work: Callable[[JobEngine], Awaitable[T]], /) -> T:
        """What `work` gives there. Raises `job.store` while there is no engine."""


async def one_of(ask: Ask, job: int) -> Row:
    """A job. Raises `job.unknown`."""
    row = await ask(lambda engine: engine.store.get(job))
    if row is None:
        raise AtlasError(
            "job.unknown",
            f"there is no job {job}",
            hint="it may have ended and been forgotten: `atlasctl job list`",
        )
    return row


def wrong_state(row: Row, wanted: str, why: str) -> AtlasError:
    """The error of somebody who wants what a job's state does not allow."""
    return AtlasError(
        "job.state", f"job {row.id} is {row.state.value} and cannot be {wanted}: {why}",
        hint=f"`atlasctl job explain {row.id}` tells more",
    )  # fmt: skip


def moment(milliseconds: int) -> datetime | None:
    """A time of the store's; None for never."""
    return datetime.fromtimestamp(milliseconds / 1000.0, tz=UTC) if milliseconds else None


def brief(row: Row) -> Body:
    """A job in brief."""
    return {
        "id": row.id, "state": row.state.value, "queue": row.queue, "kind": row.kind,
        "priority": row.priority, "attempt": row.attempt, "max_attempts": row.max_attempts,
        "run_at": moment(row.run_at), "created": moment(row.created_at),
        "finalized": moment(row.finalized_at), "reason": row.reason,
    }  # fmt: skip


def whole(row: Row) -> Body:
    """A job with all that is known."""
    known = options(row.options)
    return {
        **brief(row),
        "args": json.loads(row.args), "token": row.token, "lost_count": row.lost_count,
        "worker": row.worker, "fair_key": row.fair_key, "target": row.target,
        "unique_key": row.unique_key, "expires": moment(row.expires_at),
        "cancel_requested": row.cancel_requested, "fingerprint": row.fingerprint,
        "errors": [
            {**one, "at": moment(one["at"])} for one in json.loads(row.errors or "[]")
        ],
        "result": json.loads(row.result) if row.result else None,
        "progress": json.loads(row.progress) if row.progress else None,
        "options": dict(known), "requeued_from": row.requeued_from,
    }  # fmt: skip
