"""`atlasctl job watch`: what becomes of a job, or of a queue, as it happens."""

import json
import sys
from collections.abc import Callable
from typing import Any

from atlasd.cli import style
from atlasd.cli.session import Session
from atlasd.errors import EXIT_FAILED, EXIT_OK


def watch(
    session: Session, operation: str, sentence: Callable[[dict[str, Any]], str], **asked: Any
) -> dict[str, Any]:
    """Print each line of a stream as a sentence, or as it came for `--json`; the last one."""
    last: dict[str, Any] = {}
    with session.client().stream(operation, follow=True, **asked) as stream:
        for line in stream:
            last = line
            text = json.dumps(line) if session.as_json else sentence(line)
            print(text, flush=True)
    return last


def outcome(last: dict[str, Any]) -> int:
    """Exit code for how a job ended."""
    return EXIT_OK if last.get("state") == "completed" else EXIT_FAILED


def step(one: dict[str, Any]) -> str:
    """A job in a line: where it stands, its progress, what went wrong, what came of it."""
    if one["gone"]:
        return f"job {one['id']} was deleted; it was {one['state']}"
    parts = [f"job {one['id']} is {style.word(one['state'], stream=sys.stdout)}"]
    if one["attempt"]:
        parts.append(f"attempt {one['attempt']} of {one['max_attempts']}")
    if one["reason"]:
        parts.append(one["reason"])
    if one["state"] == "running" and one["progress"] is not None:
        parts.append(f"progress {json.dumps(one['progress'], ensure_ascii=False)}")
    if one["state"] == "running" and one["cancel_requested"]:
        parts.append("asked to end")
    if one["state"] in ("scheduled", "dead") and one["error"] is not None:
        parts.append(f"{one['error']['error']}: {one['error']['message']}")
    if one["state"] == "scheduled" and one["run_at"]:
        parts.append(f"due at {one['run_at']}")
    if one["state"] == "completed" and one["result"] is not None:
        parts.append(f"result {json.dumps(one['result'], ensure_ascii=False)}")
    return "; ".join(parts)


def depth(one: dict[str, Any]) -> str:
    """A queue in a line."""
    words = ("available", "running", "scheduled", "completed", "dead")
    counts = ", ".join(f"{one[word]} {word}" for word in words)
    paused = "paused; " if one["paused"] else ""
    return f"{one['name']}: {paused}{counts}; {one['verdict']}: {one['verdict_reason']}"
