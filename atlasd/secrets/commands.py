"""A rotation's commands: they read values from their input, never from their arguments."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME")
"""Variables of the daemon that a command gets: the key of a secret store may be among the rest."""
MOST_OUTPUT = 64 * 1024
"""Bytes that a command may print."""
SHOWN = 300
"""Characters of what it says to standard error that are told."""
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def run(
    command: Sequence[str],
    *,
    given: SecretValue | None,
    hidden: Sequence[SecretValue],
    timeout: float,
    variables: Mapping[str, str],
) -> bytes:
    """What a command prints, given a value on its input.

    Raises `AtlasError("secret.rotation")` when it cannot be run, does not end with 0 within
    `timeout` seconds, or prints too much; none of the `hidden` values is in the message.
    """
    words = " ".join(command)
    env = {name: os.environ[name] for name in KEPT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": SEARCH, **env, **variables},
            start_new_session=True,
        )
    except OSError as error:
        raise _failed(f"{words!r} cannot be run: {error.strerror}") from None
    feeding = asyncio.create_task(_feed(process, given.reveal() if given is not None else b""))
    try:
        async with asyncio.timeout(timeout):
            printed, said = await asyncio.gather(
                _read(process.stdout, MOST_OUTPUT), _read(process.stderr, MOST_OUTPUT)
            )
            code = await process.wait()
    except TimeoutError:
        raise _failed(f"{words!r} did not end within {timeout:g} s") from None
    finally:
        feeding.cancel()
        # It leads a session of its own: whatever it has started ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code != 0:
        ended = f"with exit code {code}" if code > 0 else f"by signal {-code}"
        told = _without(said.decode(errors="replace"), hidden)
        raise _failed(f"{words!r} ended {ended}" + (f": {told}" if told else ""))
    if len(printed) > MOST_OUTPUT:
        raise _failed(f"{words!r} printed more than {MOST_OUTPUT} bytes")
    return printed


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()


async def _read(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """All of a stream; of what is more than `most` bytes only that there is more."""
    assert stream is not None
    found = b""
    while piece := await stream.read(65536):
        if len(found) <= most:
            found += piece[: most + 1 - len(found)]
    return found


def _without(text: str, hidden: Sequence[SecretValue]) -> str:
    """The last line that a command said, if no secret is in it."""
    for value in hidden:
        for form in (value.reveal(), value.reveal().strip()):
            shown = form.decode(errors="replace")
            if shown:
                text = text.replace(shown, "[secret]")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1][:SHOWN] if lines else ""


def _failed(message: str) -> AtlasError:
    return AtlasError("secret.rotation", message)
