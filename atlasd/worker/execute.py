"""Running one job: the handler is called, and what it raises becomes what is said of the job."""

import asyncio
import json
import time
import traceback
from collections.abc import Mapping
from typing import Any

from atlasd.worker.context import Context, entered, left
from atlasd.worker.errors import (
    Bury,
    Discard,
    JobTimeout,
    LeaseLost,
    Outcome,
    Retry,
    Snooze,
    TargetFailed,
)
from atlasd.worker.feed import Feed, Job
from atlasd.worker.registry import Handler

MESSAGE = 2000
"""Characters of an error's message that are sent."""
FRAMES = 10


def run(feed: Feed, job: Job, handlers: Mapping[str, Handler[..., Any]], context: Context) -> None:
    """Run a plain handler to its end, and tell the feed what became of the job."""
    began = time.monotonic()
    token = entered(context)
    try:
        handler = handlers.get(job.kind)
        if handler is None:
            raise unknown(job.kind, handlers)
        result = handler.function(**job.args)
        feed.finished(job, encoded(result), _took(began))
    except BaseException as error:  # noqa: BLE001  whatever a handler does ends only its job
        settle(feed, job, context, error, _took(began))
    finally:
        left(token)


async def run_async(
    feed: Feed, job: Job, handlers: Mapping[str, Handler[..., Any]], context: Context
) -> None:
    """The same for a handler that is a coroutine function."""
    began = time.monotonic()
    token = entered(context)
    try:
        handler = handlers.get(job.kind)
        if handler is None:
            raise unknown(job.kind, handlers)
        result = await handler.function(**job.args)
        feed.finished(job, encoded(result), _took(began))
    except BaseException as error:  # noqa: BLE001
        settle(feed, job, context, error, _took(began))
    finally:
        left(token)


def encoded(result: object) -> str:
    """A handler's result as JSON text; nothing for None."""
    return "" if result is None else json.dumps(result, separators=(",", ":"))


def unknown(kind: str, handlers: Mapping[str, Handler[..., Any]]) -> Exception:
    """What is raised for a kind that this worker has no handler for."""
    known = ", ".join(sorted(handlers)) or "none"
    return LookupError(f"this worker has no handler for {kind!r}; it has: {known}")


def settle(feed: Feed, job: Job, context: Context, error: BaseException, took: int) -> None:
    """Tell the feed what an exception means for the job."""
    if isinstance(error, asyncio.CancelledError) and context.stopped_by is not None:
        error = context.stopped_by
    if context.give_back:
        feed.released(job)  # the attempt isn't counted
    elif context.lost:
        feed.forget(job)  # nothing that is said of it counts any more
    elif isinstance(error, Snooze):
        feed.released(job, max(1, round(error.seconds * 1000)))
    elif isinstance(error, LeaseLost) and context.cancelled:
        feed.failed(job, _body(error, "discard", took))
    else:
        feed.failed(job, _body(error, _verdict(error), took))


def _verdict(error: BaseException) -> str:
    if isinstance(error, Discard):
        return "discard"
    if isinstance(error, Bury):
        return "bury"
    return "target" if isinstance(error, TargetFailed) else "retry"


def _body(error: BaseException, verdict: str, took: int) -> dict[str, Any]:
    kind = "timeout" if isinstance(error, JobTimeout) else type(error).__name__
    if isinstance(error, Outcome) and error.kind:
        kind = error.kind
    body: dict[str, Any] = {
        "error": kind,
        "message": _said(error),
        "frames": _frames(error),
        "verdict": verdict,
        "took": took,
    }
    if isinstance(error, Retry) and error.after:
        body["retry_after"] = round(error.after * 1000)
    return body


def _said(error: BaseException) -> str:
    try:
        # A file's name may hold bytes that have no character: they are shown, not sent.
        return str(error)[:MESSAGE].encode(errors="backslashreplace").decode()
    except Exception:  # noqa: BLE001  an exception whose text cannot be made
        return ""


def _frames(error: BaseException) -> list[str]:
    """Where it happened, the innermost last, without the worker's own frames and line numbers."""
    found = [
        f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_name}"
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if not frame.f_globals.get("__name__", "").startswith("atlasd.worker")
    ]
    return found[-FRAMES:]


def _took(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
