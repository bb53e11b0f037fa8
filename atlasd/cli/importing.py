"""`atlasd import`, and `atlasctl config import`, which is the same: existing files become TOML."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from atlasd.cli.options import F, common, pass_session
from atlasd.cli.session import Session, emit
from atlasd.paths import Paths

FORMATS = ("env", "yaml", "json", "ini")
DIALECTS = ("bash", "docker", "compose", "systemd")


class TakeOver(Protocol):
    """What the composition does for the command."""

    def __call__(
        self,
        *,
        paths: Paths,
        env: str | None,
        files_wanted: tuple[Path, ...],
        out: Path,
        options: Mapping[str, Any],
        force: bool,
        dry_run: bool,
    ) -> tuple[list[str], dict[str, Any]]:
        """Take over existing files; the report for people and for programs."""


def wanted(command: F) -> F:
    """Add the options that say what is taken over, and how."""
    file = click.Path(dir_okay=False)
    for option in (
        click.argument("files", metavar="PATH…", nargs=-1, required=True, type=file),
        click.option(
            "--out", metavar="PATH", required=True, type=click.Path(),
            help="The TOML file to be written; a folder, for several files.",
        ),
        click.option("--format", "form", type=click.Choice(FORMATS), help="Else by the name."),
        click.option(
            "--dialect", type=click.Choice(DIALECTS), default="bash", show_default=True,
            help="How .env files are read.",
        ),
        click.option(
            "--secrets", type=click.Choice(("move", "keep")), default="move", show_default=True,
            help="What looks like a secret is moved to the store, or stays in the file.",
        ),
        click.option("--name", default="", help="What names of moved secrets begin with."),
        click.option(
            "--schema", metavar="FILE", type=file,
            help="JSON Schema that text is typed by, and variables are led to nested keys by.",
        ),
        click.option("--report", metavar="FILE", type=file, help="Write the report there too."),
        click.option("--force", is_flag=True, help="Replace files and secrets that exist."),
        click.option("--dry-run", is_flag=True, help="Only tell what would be done."),
    ):  # fmt: skip
        command = option(command)
    return command


def run(
    take_over: TakeOver,
    *,
    paths: Paths,
    env: str | None,
    as_json: bool,
    files: Sequence[str],
    out: str,
    form: str | None,
    dialect: str,
    secrets: str,
    name: str,
    schema: str | None,
    report: str | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Take over, and tell what became of it."""
    lines, body = take_over(
        paths=paths,
        env=env,
        files_wanted=tuple(Path(file) for file in files),
        out=Path(out),
        options={
            "format": form or "",
            "dialect": dialect,
            "keep_secrets": secrets == "keep",
            "name": name,
            "schema": Path(schema) if schema else None,
        },
        force=force,
        dry_run=dry_run,
    )
    if report:
        Path(report).write_text("\n".join(lines), encoding="utf-8")
    if as_json:
        emit(body)
    else:
        print("\n".join(lines), end="")


@click.command(name="import")
@common
@wanted
@click.option("--env", metavar="NAME", help="The environment whose store takes the secrets.")
@click.option("--config", metavar="FILE", help="The main configuration file.")
@pass_session
def import_(session: Session, /, env: str | None, config: str | None, **given: Any) -> None:
    """Take existing .env, YAML, JSON and INI files over as TOML; needs no daemon.

    Every step that loses something is told with its line. The result is read back and held against
    the source before anything is written; nothing is replaced without --force. This is
    `atlasd import`.
    """
    words = [sys.executable, "-m", "atlasd", "import"]
    for option, value in (("--root", session.root), ("--env", env), ("--config", config)):
        words += [option, value] if value else []
    words += ["--json"] if session.as_json else []
    words += words_of(given)
    sys.stdout.flush()
    os.execv(sys.executable, words)


def words_of(given: Mapping[str, Any]) -> list[str]:
    """The command line that gives these options."""
    words: list[str] = []
    for name, value in given.items():
        option = f"--{'format' if name == 'form' else name.replace('_', '-')}"
        if name == "files":
            continue
        if value is True:
            words.append(option)
        elif value:
            words += [option, str(value)]
    return [*words, "--", *given["files"]]
