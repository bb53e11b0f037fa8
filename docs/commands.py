"""The commands page of the reference: atlasd and atlasctl, as click knows them."""

import inspect
from collections.abc import Iterator
from typing import cast

import click

from atlasd.cli.commands import atlasctl
from atlasd.cli.roles import Daemon, program
from docs.markdown import table


def commands() -> str:
    """Every command of both programs, with its arguments and options."""
    parts = ["# Commands\n", INTRODUCTION]
    for name, command in programs().items():
        depth = "#" * min(len(name.split()) + 1, 3)
        parts += [f"{depth} {name}\n", f"```text\n{usage(command, name)}\n```\n"]
        parts.append(_paragraphs(command))
        if options := _options(command):
            parts.append(table(("option", "meaning"), options))
    return "\n".join(parts)


INTRODUCTION = """`atlasd` is the daemon, `atlasctl` asks it. Exit codes are in {doc}`errors`.
"""


def programs() -> dict[str, click.Command]:
    """Both programs and all their commands, each by the words that call it."""
    # The commands are only described, so no daemon stands behind them.
    atlasd = program(cast("Daemon", None))
    return dict((*below(atlasd, "atlasd"), *below(atlasctl, "atlasctl")))


def below(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all that it contains, each with the words that call it."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            if inner is not None and not inner.hidden:
                yield from below(inner, f"{name} {word}")


def usage(command: click.Command, name: str) -> str:
    """How a command is called, in one line."""
    return " ".join([name, *command.collect_usage_pieces(click.Context(command, info_name=name))])


def _paragraphs(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "").split("\f")[0]
    return text.strip() + "\n"


def _options(command: click.Command) -> list[tuple[str, str]]:
    rows = []
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        metavar = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
        rows.append((names + metavar, option.help or ""))
    return rows
