"""Asking the daemon about its configuration, or without one a process that reads the files."""

import json
import os
import sys
from typing import Any

from atlasd.cli.session import Session, options
from atlasd.errors import AtlasError

TIMEOUT = 90.0
"""Seconds that reading a configuration, its secrets included, may take."""


def ask(session: Session, operation: str, /, **fields: Any) -> dict[str, Any]:
    """The answer of the daemon; without one, of `atlasd config` on the files themselves.

    A daemon that runs as another user may not write files that we may: then it's done here too.
    """
    given = options(**fields)
    try:
        answer: dict[str, Any] = session.client(timeout=TIMEOUT).call(operation, **given)
    except AtlasError as error:
        # One that hung up in the middle has perhaps done it; only one that isn't there has not.
        absent = error.code == "core.unreachable" and "socket" in error.details
        powerless = error.code == "config.write" and os.geteuid() == 0
        if session.socket or not (absent or powerless):
            raise
        written = _without_daemon(session, operation, given)
        return _taken_over(session, operation, given, written) if powerless else written
    return answer


def _taken_over(
    session: Session, operation: str, given: dict[str, Any], written: dict[str, Any]
) -> dict[str, Any]:
    """The answer as the daemon would have given it, once it has read what was written here."""
    if operation != "config.rollback" and not given.get("reload"):
        return written
    body: dict[str, Any] = session.client(timeout=TIMEOUT).call("config.reload")
    if operation == "config.rollback":
        return {**body, "restored": written["restored"]}
    return {**written, "reloaded": body}


def _without_daemon(session: Session, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    import subprocess

    words = [sys.executable, "-m", "atlasd", "config", operation]
    words += ["--root", session.root] if session.root else []
    # The request goes through a pipe: values have no business in the list of processes.
    done = subprocess.run(
        words,
        input=json.dumps(given).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AtlasError(
            "internal",
            f"`atlasd config {operation}` has failed with exit code {done.returncode}",
            hint="what it wrote to standard error says more",
        ) from None
    if "error" in answer:
        error = answer["error"]
        raise AtlasError(
            error["code"], error["message"], hint=error["hint"], details=error["details"]
        )
    return answer
