"""A click group that loads a command's module when the command is used, and not before."""

import importlib
from typing import NamedTuple

import click

from atlasd.errors import nearest


class Entry(NamedTuple):
    """One command, as far as it is known without loading it."""

    name: str
    module: str
    """Module of `atlasd.cli` in which it stands, under its own name with `_` for `-`."""
    summary: str
    operations: tuple[str, ...] = ()
    """Operations of the control socket that it asks for; tests hold them against the table."""


class LazyGroup(click.Group):
    """A group whose commands are entries of a table."""

    def __init__(
        self,
        name: str | None = None,
        *,
        entries: tuple[Entry, ...] = (),
        **attributes: object,
    ) -> None:
        """`entries` are shown in the help in their order; the rest is click's."""
        super().__init__(name, **attributes)  # type: ignore[arg-type]
        self.entries = {entry.name: entry for entry in entries}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        del ctx
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded; None for an unknown name."""
        del ctx
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"atlasd.cli.{entry.module}")
        command = getattr(module, entry.name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a better sentence for a command that does not exist."""
        if args and args[0] not in self.entries and not args[0].startswith("-"):
            hint = nearest(args[0], tuple(self.entries))
            error = click.UsageError(f"there is no command {args[0]!r}", ctx)
            error.hint = hint  # type: ignore[attr-defined]
            raise error
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table, so that `--help` loads none of them."""
        del ctx
        rows = [(entry.name, entry.summary) for entry in self.entries.values()]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
