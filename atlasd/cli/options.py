"""The options of all commands, and how click's own errors become atlasd's."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from atlasd.cli.session import Session, guarded
from atlasd.errors import AtlasError

F = TypeVar("F", bound=Callable[..., object])

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


def run(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a click command by atlasd's rules of failing; the exit code."""
    session = Session()

    def work() -> int:
        try:
            code = command.main(
                list(arguments) if arguments is not None else None,
                prog_name=program,
                standalone_mode=False,
                obj=session,
            )
        except click.UsageError as error:
            raise _usage(error, program) from None
        except click.ClickException as error:
            raise AtlasError("usage", error.format_message()) from None
        except click.Abort:
            raise KeyboardInterrupt from None
        return code if isinstance(code, int) else 0

    return guarded(program, session, work)


def _usage(error: click.UsageError, program: str) -> AtlasError:
    path = error.ctx.command_path if error.ctx is not None else program
    message = error.format_message()
    return AtlasError(
        "usage",
        message[:1].lower() + message[1:].rstrip("."),
        hint=getattr(error, "hint", "") or f"see `{path} --help`",
    )
