"""What becomes of a job that failed or lost its worker; pure, all times in milliseconds."""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from atlasd.contracts.queue import Failure, Row, Transition
from atlasd.jobs.retry import Retry, delay
from atlasd.states import JobState

ERRORS_KEPT = 20
"""Failures of a job that are remembered, the last ones."""
MESSAGE = 2_000
"""Characters of an error's message that are kept."""
LOST_LIMIT = 5
"""Times that a job may lose its worker before it is taken for what kills them."""
LOST_RETRY = Retry(base=250, factor=4.0, cap=60_000, jitter=0.5)
"""The first job to lose its worker is back within a quarter of a second: most often the worker was
to blame. One that takes worker after worker down waits longer each time."""


def failed(
    row: Row, failure: Failure, now: int, chance: float, *, generation: int = 0
) -> Transition:
    """The next state of a job that failed; the failure remembers the configuration's number."""
    known = options(row.options)
    print_ = fingerprint(row.kind, failure.error, failure.frames, failure.message)
    errors = _with(row.errors, _entry(row, failure, now, generation))
    if row.cancel_requested:
        return Transition(
            state=JobState.CANCELLED, reason="user", errors=errors, fingerprint=print_
        )
    final = {"discard": (JobState.CANCELLED, "discarded"), "bury": (JobState.DEAD, "buried")}
    if failure.verdict in final:
        state, reason = final[failure.verdict]
        return Transition(state=state, reason=reason, errors=errors, fingerprint=print_)
    policy = retry_of(known)
    # A job that lost its worker has used attempts without failing.
    wait = max(delay(policy, max(row.attempt - row.lost_count, 1), chance), failure.retry_after)
    too_late = policy.within and now + wait > row.created_at + policy.within
    if row.attempt >= row.max_attempts or too_late:
        return Transition(
            state=JobState.DEAD, reason="exhausted", errors=errors, fingerprint=print_
        )
    return Transition(
        state=JobState.SCHEDULED, run_at=now + wait, errors=errors, fingerprint=print_
    )


def lost(row: Row, now: int, chance: float, *, why: str, generation: int = 0) -> Transition:
    """The next state of a job whose worker is gone."""
    times = row.lost_count + 1
    said = {
        "lease": "the worker did not prolong its lease",
        "connection": "the worker's connection broke",
    }
    failure = Failure(id=row.id, token=row.token, error="worker_lost", message=said.get(why, why))
    errors = _with(row.errors, _entry(row, failure, now, generation))
    print_ = fingerprint(row.kind, "worker_lost", (), "")
    if row.cancel_requested:
        return Transition(
            state=JobState.CANCELLED, reason="user", errors=errors, fingerprint=print_, lost=True
        )
    if times >= LOST_LIMIT or row.attempt >= row.max_attempts:
        return Transition(
            state=JobState.DEAD, reason="worker_lost", errors=errors, fingerprint=print_, lost=True
        )
    return Transition(
        state=JobState.SCHEDULED,
        run_at=now + delay(LOST_RETRY, times, chance),
        errors=errors,
        fingerprint=print_,
        lost=True,
    )


def fingerprint(kind: str, error: str, frames: tuple[str, ...], message: str) -> str:
    """Equal for failures that a person would call the same.

    It is made of the handler, the type of the error and the innermost frames; without frames of the
    message, numbers and quoted parts left out.
    """
    what = frames[-3:] or (re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"", "…", message)[:200],)
    text = "\n".join((kind, error, *what)).encode(errors="backslashreplace")
    return f"{zlib.crc32(text):08x}{zlib.adler32(text):08x}"


def options(text: str) -> Mapping[str, Any]:
    """What the engine keeps with a job."""
    found = json.loads(text) if text else {}
    assert isinstance(found, dict)
    return found


def retry_of(known: Mapping[str, Any]) -> Retry:
    """The job's own retry policy, or the default one."""
    return Retry(**known["retry"]) if "retry" in known else Retry()


def _entry(row: Row, failure: Failure, now: int, generation: int) -> dict[str, object]:
    entry: dict[str, object] = {
        "at": now,
        "attempt": row.attempt,
        "error": failure.error,
        "message": failure.message[:MESSAGE],
    }
    if failure.frames:
        entry["frames"] = list(failure.frames[-10:])
    if generation:
        entry["generation"] = generation
    return entry


def _with(errors: str, entry: dict[str, object]) -> str:
    kept = json.loads(errors) if errors else []
    # Escaped: a message may hold what no encoding takes, such as half of a surrogate pair.
    return json.dumps([*kept, entry][-ERRORS_KEPT:], separators=(",", ":"))
