"""What all commands share: where the daemon is, how to print, and how to fail."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from atlasd import __version__
from atlasd.control.client import Client
from atlasd.errors import EXIT_FAILED, EXIT_USAGE, AtlasError
from atlasd.paths import Paths, find

SYSTEM_SOCKET = "/run/atlasd/control.sock"
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

F = TypeVar("F", bound=Callable[..., object])


@dataclass(kw_only=True, slots=True)
class Session:
    """The options that every command takes, wherever on the line they stand."""

    root: str | None = None
    socket: str | None = None
    as_json: bool = False

    def paths(self) -> Paths:
        """The daemon's folders, by the rule that the daemon follows too."""
        return find(root=self.root)

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
        own = self.paths().control_socket
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


pass_session = click.make_pass_decorator(Session, ensure=True)


def common(command: F) -> F:
    """Add `--json`, `--root` and `--socket` to a command."""
    for option in (
        click.option(
            "--socket",
            metavar="PATH",
            expose_value=False,
            callback=_remember,
            help="The daemon's control socket.",
        ),
        click.option(
            "--root",
            metavar="DIR",
            expose_value=False,
            callback=_remember,
            help="The folder that the daemon was started with (else ATLASD_ROOT).",
        ),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Answer in JSON.",
        ),
    ):
        command = option(command)
    return command


def _remember(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    session = ctx.ensure_object(Session)
    if value and parameter.name:
        setattr(session, parameter.name, value)


def complete_services(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of services for the shell's completion; none when no daemon answers."""
    del parameter
    try:
        status = ctx.ensure_object(Session).client(timeout=1.0).call("status")
    except AtlasError:
        return []
    return [s["name"] for s in status["services"] if s["name"].startswith(incomplete)]


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


def run(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a click command by atlasd's rules of failing; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A log line or a name that the terminal cannot show must not end a command.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    session = Session()
    try:
        code = command.main(
            list(arguments) if arguments is not None else None,
            prog_name=program,
            standalone_mode=False,
            obj=session,
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except AtlasError as error:
        if session.as_json:
            emit(error.to_wire())
        return report(error, program)
    except click.UsageError as error:
        return _usage(error, program)
    except click.ClickException as error:
        return report(AtlasError("usage", error.format_message()), program)
    except (KeyboardInterrupt, click.Abort):
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


def _usage(error: click.UsageError, program: str) -> int:
    path = error.ctx.command_path if error.ctx is not None else program
    hint = getattr(error, "hint", "") or f"see `{path} --help`"
    message = error.format_message()
    message = message[:1].lower() + message[1:].rstrip(".")
    print(f"{program}: {message}", file=sys.stderr)
    print(f"{program}: {hint}", file=sys.stderr)
    return EXIT_USAGE


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
