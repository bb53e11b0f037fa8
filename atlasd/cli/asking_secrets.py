"""Asking the daemon about secrets, or without one a process that has the engine under its lock."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from atlasd.cli.session import Session
from atlasd.errors import AtlasError

TIMEOUT = 120.0
"""Seconds that a secret backend may keep an answer waiting."""


def ask(session: Session, operation: str, /, **fields: Any) -> dict[str, Any]:
    """The answer of the daemon; where none runs, of the same engine in a process of its own."""
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    try:
        answer: dict[str, Any] = session.client(timeout=TIMEOUT).call(operation, **given)
    except AtlasError as error:
        if not _is_absent(session, error) and not _is_powerless(session, operation, error):
            raise
    else:
        return answer
    (answer,) = _without_daemon(session, operation, given)
    return answer


def lines(session: Session, operation: str, /, **fields: Any) -> Iterator[dict[str, Any]]:
    """The same for an operation that answers in lines: each as it comes."""
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    try:
        stream = session.client(timeout=TIMEOUT).stream(operation, **given)
    except AtlasError as error:
        if not _is_absent(session, error):
            raise
        yield from _without_daemon(session, operation, given)
        return
    try:
        with stream:
            yield from stream
    except AtlasError as error:
        if not _is_powerless(session, operation, error):
            raise
        yield from _without_daemon(session, operation, given)


def value_from(file: str | None, what: str, *, exact: bool = False) -> bytes:
    """A value from a file, the input, or a person at a terminal, who isn't shown it.

    From the input, one newline at the end is what `echo` has added, and is left off unless `exact`.
    """
    if file not in (None, "-"):
        try:
            with open(str(file), "rb") as source:  # noqa: PTH123  pathlib would be loaded for it
                return _some(source.read(), str(file))
        except OSError as fault:
            raise AtlasError("usage", f"{file} cannot be read: {fault.strerror}") from None
    if sys.stdin.isatty() and file is None:
        value: str = click.prompt(what, hide_input=True, confirmation_prompt=True, err=True)
        return _some(value.encode(), "it")
    raw = sys.stdin.buffer.read()
    return _some(raw if exact or not raw.endswith(b"\n") else raw[:-1], "the input")


def _some(value: bytes, where: str) -> bytes:
    if not value:
        raise AtlasError("secret.invalid", f"{where} is empty: that is no secret")
    return value


def _is_absent(session: Session, error: AtlasError) -> bool:
    """Whether no daemon is there; one that hung up in the middle has perhaps done it."""
    absent = error.code == "core.unreachable" and "socket" in error.details
    return absent and session.socket is None


def _is_powerless(session: Session, operation: str, error: AtlasError) -> bool:
    """Whether a daemon that runs as another user may not write its keys, and we may."""
    keys = operation in ("secret.keygen", "secret.rotate-keys")
    refused = error.details.get("reason") == "not writable"
    return keys and refused and session.socket is None and os.geteuid() == 0


def _without_daemon(
    session: Session, operation: str, given: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    import subprocess

    words = [sys.executable, "-m", "atlasd", "secret", operation]
    words += ["--root", session.root] if session.root else []
    # The request goes through a pipe: values have no business in the list of processes.
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(given).encode())
        process.stdin.close()
        for raw in process.stdout:
            try:
                body = json.loads(raw)
            except ValueError:
                break
            if "error" in body and isinstance(body["error"], dict):
                error = body["error"]
                raise AtlasError(
                    error["code"], error["message"], hint=error["hint"], details=error["details"]
                )
            yield body
    if process.returncode != 0:
        raise AtlasError(
            "internal",
            f"`atlasd secret {operation}` has failed with exit code {process.returncode}",
            hint="what it wrote to standard error says more",
        )
