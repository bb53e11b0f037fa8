"""What all commands share: where the daemon is, how to print, and how to fail."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from atlasd import __version__
from atlasd.control.client import Client
from atlasd.errors import EXIT_FAILED, AtlasError
from atlasd.folders import CONTROL_SOCKET, folders

# No click and no dataclasses here: `atlasctl status` does without either.

SYSTEM_SOCKET = "/run/atlasd/control.sock"
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


class Session:
    """The options that every command takes, wherever on the line they stand."""

    __slots__ = ("as_json", "root", "socket")

    def __init__(self) -> None:
        self.root: str | None = None
        self.socket: str | None = None
        self.as_json = False

    def client(self, *, timeout: float = 30.0) -> Client:
        """A client of the daemon that `--socket`, `--root` and the environment point to."""
        path = self.socket or self._default_socket()
        return Client(
            path,
            timeout=timeout,
            start_hint=self._start_hint(path),
            version_differs=_warn_of_version,
        )

    def _default_socket(self) -> str:
        own = os.path.join(folders(root=self.root).run, CONTROL_SOCKET)  # noqa: PTH118
        if self.root or os.environ.get("ATLASD_ROOT") or os.access(own, os.F_OK):
            return own
        # A member of the group atlasd has no daemon of his own but may operate the host's.
        return SYSTEM_SOCKET if os.access(SYSTEM_SOCKET, os.F_OK) else own

    def _start_hint(self, path: str) -> str:
        if path == SYSTEM_SOCKET:
            return "start it: `systemctl start atlas-core`, or `atlasd run` in a terminal"
        if self.root:
            return f"start it: `atlasd run --root {self.root}`"
        if self.socket:
            return "start it with the same root: `atlasd run --root DIR`; or correct --socket"
        return "start it: `atlasd run`; or say where it is with --root DIR or ATLASD_ROOT"


def emit(body: object) -> None:
    """Print JSON: laid out for a person at a terminal, on one line for a program."""
    if sys.stdout.isatty():
        print(json.dumps(body, indent=2, ensure_ascii=False))
    else:
        print(json.dumps(body))


def report(error: AtlasError, program: str) -> int:
    """Print an error in two lines, what is wrong and what to do next; the exit code."""
    hint = error.hint or f"see `{program} --help`; the daemon's log may say more"
    print(f"{program}: {error.message}", file=sys.stderr)
    print(f"{program}: {hint}", file=sys.stderr)
    return error.kind.exit


def guarded(program: str, session: Session, work: Callable[[], int]) -> int:
    """Do a command's work by atlasd's rules of failing; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A log line or a name that the terminal cannot show must not end a command.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        code = work()
        sys.stdout.flush()
    except AtlasError as error:
        if session.as_json:
            emit(error.to_wire())
        return report(error, program)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has gone, as `head` does; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as fault:
        if os.environ.get("ATLASD_DEBUG"):
            raise
        kind = type(fault).__name__
        print(f"{program}: unexpected error: {kind}: {fault}", file=sys.stderr)
        print(f"{program}: set ATLASD_DEBUG=1 to see where; please report it", file=sys.stderr)
        return EXIT_FAILED
    else:
        return code


def _warn_of_version(version: str) -> None:
    print(
        f"atlasctl: warning: this is atlasctl {__version__}, the daemon is {version}",
        file=sys.stderr,
    )


def split_target(target: str) -> tuple[str, int | None]:
    """Service and instance of `web` or `web/1`. Raises `AtlasError` `usage` for a bad index."""
    name, slash, index = target.partition("/")
    if not slash:
        return name, None
    if not name or not index.isascii() or not index.isdecimal():
        raise AtlasError(
            "usage",
            f"{target!r} names no instance",
            hint="write SERVICE/INDEX, as in web/0",
        )
    return name, int(index)


def options(**fields: Any) -> dict[str, Any]:
    """The fields that were given: None and empty ones are left to the daemon's defaults."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value is not False and value not in ("", ())
    }
