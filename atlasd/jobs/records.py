"""Dead jobs as lines of JSON, to be kept in a file or taken to another host; pure.

All that a dead job is goes with it: arguments, attempts, errors, its group. It comes back under
another id, and without what it no longer has as a dead job: its worker, its lease, a unique key.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from atlasd.contracts.queue import Row
from atlasd.errors import AtlasError, nearest
from atlasd.jobs.newjob import new_job
from atlasd.jobs.outcome import ERRORS_KEPT, MESSAGE, fingerprint, options
from atlasd.states import JobState

Record = dict[str, Any]

REASONS = ("exhausted", "buried", "worker_lost")
_TIMES = ("created", "run_at", "died")
_COUNTS = ("id", "attempt", "lost_count", "token")
_TEXTS = ("reason", "fingerprint", "requeued_from")
_JOB = ("kind", "queue", "args", "priority", "max_attempts", "fair_key", "target")
_KEYS = (*_JOB, *_TIMES, *_COUNTS, *_TEXTS, "errors", "options")
_ERROR_KEYS = ("at", "attempt", "error", "message", "frames", "generation")
_LARGEST = 2**53


def record_of(row: Row) -> Record:
    """A dead job, as a line of an export has it."""
    return {
        "id": row.id, "queue": row.queue, "kind": row.kind, "args": json.loads(row.args),
        "priority": row.priority, "max_attempts": row.max_attempts, "fair_key": row.fair_key,
        "target": row.target, "attempt": row.attempt, "lost_count": row.lost_count,
        "token": row.token, "created": _text(row.created_at), "run_at": _text(row.run_at),
        "died": _text(row.finalized_at), "reason": row.reason, "fingerprint": row.fingerprint,
        "requeued_from": row.requeued_from,
        "errors": [
            {**one, "at": _text(one["at"])} for one in json.loads(row.errors or "[]")
        ],
        "options": dict(options(row.options)),
    }  # fmt: skip


def line_of(row: Row) -> bytes:
    """The same as a line of a file."""
    return json.dumps(record_of(row), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def row_of(record: object, where: str) -> Row:
    """The job that a line describes; raises `job.invalid` with `where` and the key that is wrong.

    Its unique key is made of the line itself, so that a line which is taken in twice is known.
    """
    if not isinstance(record, Mapping):
        raise _invalid(where, "expected a job as `atlasctl dead export` writes it")
    for key in record:
        if key not in _KEYS:
            raise _invalid(f"{where}.{key}", "unknown key", nearest(str(key), _KEYS))
    job = new_job({key: record[key] for key in _JOB if key in record}, where)
    created, run_at, died = (_time(record, key, where) for key in _TIMES)
    _, attempt, lost_count, token = (_count(record, key, where) for key in _COUNTS)
    reason, print_, requeued_from = (_said(record, key, where) for key in _TEXTS)
    if reason not in REASONS:
        raise _invalid(f"{where}.reason", f"expected one of {', '.join(REASONS)}")
    if requeued_from and requeued_from not in tuple(JobState):
        raise _invalid(f"{where}.requeued_from", "expected a job's state")
    errors = _errors(record.get("errors", []), f"{where}.errors")
    if not print_:
        last = errors[-1] if errors else {"error": reason, "message": ""}
        print_ = fingerprint(
            job.kind, last["error"], tuple(last.get("frames", ())), last["message"]
        )
    known = record.get("options", {})
    if not isinstance(known, Mapping):
        raise _invalid(f"{where}.options", "expected an object")
    return Row(
        id=0, state=JobState.DEAD, queue=job.queue, kind=job.kind, args=job.args,
        priority=job.priority, run_at=run_at, rank_at=run_at, created_at=created, attempt=attempt,
        max_attempts=job.max_attempts, token=token, lost_count=lost_count, lease_until=0, worker="",
        unique_key=f"import:{_digest(record)}", unique_until=0, expires_at=0, fair_key=job.fair_key,
        target=job.target, cancel_requested=False, finalized_at=died, reason=reason,
        fingerprint=print_, errors=_compact(errors) if errors else "", result="", progress="",
        options=_compact(known) if known else "", requeued_from=requeued_from,
    )  # fmt: skip


def same(record: Mapping[str, Any], row: Row) -> bool:
    """Whether a line was written of this very job, which is still as it was."""
    theirs = record_of(row)
    return all(theirs[key] == record.get(key) for key in ("id", "kind", "created", "died"))


def _errors(said: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(said, list):
        raise _invalid(where, "expected a list")
    found = []
    for index, one in enumerate(said[-ERRORS_KEPT:]):
        here = f"{where}[{index}]"
        if not isinstance(one, Mapping):
            raise _invalid(here, "expected an object { at, attempt, error, message, frames }")
        for key in one:
            if key not in _ERROR_KEYS:
                raise _invalid(f"{here}.{key}", "unknown key", nearest(str(key), _ERROR_KEYS))
        entry: dict[str, Any] = {
            "at": _time(one, "at", here),
            "attempt": _count(one, "attempt", here),
            "error": _said(one, "error", here),
            "message": _said(one, "message", here)[:MESSAGE],
        }
        frames = one.get("frames", [])
        if not isinstance(frames, list) or not all(isinstance(frame, str) for frame in frames):
            raise _invalid(f"{here}.frames", "expected a list of texts")
        if frames:
            entry["frames"] = frames[-10:]
        if one.get("generation"):
            entry["generation"] = _count(one, "generation", here)
        found.append(entry)
    return found


def _time(said: Mapping[str, Any], key: str, where: str) -> int:
    value = said.get(key)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or moment.tzinfo is None:
            raise ValueError
        milliseconds = round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise _invalid(
            f"{where}.{key}", "expected a time with its zone, as 2026-11-23T17:44:43Z"
        ) from None
    if not 0 < milliseconds < _LARGEST:
        raise _invalid(f"{where}.{key}", "expected a time since 1970")
    return milliseconds


def _count(said: Mapping[str, Any], key: str, where: str) -> int:
    value = said.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise _invalid(f"{where}.{key}", "expected a whole number")
    return value


def _said(said: Mapping[str, Any], key: str, where: str) -> str:
    value = said.get(key, "")
    if not isinstance(value, str) or len(value) > 10_000:
        raise _invalid(f"{where}.{key}", "expected a text of at most 10000 characters")
    return value


def _text(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000.0, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _compact(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise AtlasError("job.invalid", f"a number that JSON does not have: {math.nan}") from None


def _invalid(where: str, words: str, hint: str = "") -> AtlasError:
    return AtlasError("job.invalid", f"{where}: {words}", hint=hint, details={"key": where})
