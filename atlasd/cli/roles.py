"""`atlasd`: runs the roles of the daemon, and checks a configuration without running anything."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from atlasd import __version__
from atlasd.cli import importing
from atlasd.cli.options import F, run
from atlasd.cli.session import emit
from atlasd.cli.style import count
from atlasd.errors import EXIT_CONFIG, EXIT_OK, AtlasError
from atlasd.paths import Paths, find


class Problem(Protocol):
    """Something that is wrong with a configuration; its text is `file:line:column: what`."""

    @property
    def warning(self) -> bool:
        """Whether it is only a warning."""

    def to_wire(self) -> dict[str, object]:
        """As JSON-able material."""


class Daemon(Protocol):
    """What the composition does for the commands, which themselves know nothing of it."""

    def main(
        self,
        role: str,
        *,
        paths: Paths,
        config_file: Path | None,
        env: str | None,
        overrides: Sequence[str] = (),
    ) -> int:
        """Run a role until told to stop; the exit code."""

    def check(
        self, *, paths: Paths, env: str | None, overrides: Sequence[str] = ()
    ) -> Sequence[Problem]:
        """Everything that is wrong with the configuration, errors first.

        Raises `AtlasError` for what is no matter of single settings: a file that is missing.
        """

    def configuration(
        self,
        operation: str,
        request: Mapping[str, object],
        *,
        paths: Paths,
        env: str | None,
        overrides: Sequence[str] = (),
    ) -> Mapping[str, object]:
        """The answer to an operation on the configuration, from the files alone."""

    def secrets(
        self,
        operation: str,
        request: Mapping[str, object],
        *,
        paths: Paths,
        env: str | None,
        tell: Callable[[Mapping[str, object]], object],
    ) -> None:
        """Perform an operation on secrets; `tell` is handed each body of the answer."""

    @property
    def take_over(self) -> importing.TakeOver:
        """Takes over existing files."""


def _places(command: F) -> F:
    for option in (
        click.option(
            "--env", metavar="NAME", help="The environment; else `host.environment` decides."
        ),
        click.option(
            "--root",
            metavar="DIR",
            help="Put everything under DIR: etc, state, run and log (else ATLASD_ROOT).",
        ),
        click.option(
            "--config",
            metavar="FILE",
            type=click.Path(dir_okay=False),
            help="The main configuration file, in place of the one in etc.",
        ),
        click.option(
            "--set",
            "overrides",
            metavar="KEY=VALUE",
            multiple=True,
            help="A setting that beats all files and variables, as log.level=debug; repeatable.",
        ),
    ):
        command = option(command)
    return command


_ROLES = {
    "run": "Run all roles: services as a process of its own, the others in this one.",
    "core": "Run the role that owns what is wanted, and serves the control socket.",
    "monitoring": "Run the role that carries out checks and reports them.",
    "api": "Run the role that answers HTTP: health and metrics.",
}


def program(daemon: Daemon) -> click.Group:
    """The commands of `atlasd`."""

    @click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
    @click.version_option(__version__, prog_name="atlasd", message="%(prog)s %(version)s")
    def atlasd() -> None:
        """Keep an application running around the clock; `atlasctl` drives what runs."""

    for name, summary in _ROLES.items():
        atlasd.command(name, help=summary)(_places(_role(name, daemon)))

    @atlasd.command()
    @click.option("--root", metavar="DIR", help="As for the other roles.")
    def services(root: str | None) -> None:
        """Run the role that holds the processes."""
        # Its real options are its own: __main__ hands the command line over before click is
        # loaded. This stands here so that --help lists it.
        del root

    @atlasd.command()
    def version() -> None:
        """Show the version."""
        print(f"atlasd {__version__}")

    @atlasd.command()
    @_places
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    def check(
        config: str | None,
        root: str | None,
        env: str | None,
        overrides: tuple[str, ...],
        as_json: bool,
    ) -> int:
        """Say everything that is wrong with the configuration; change nothing.

        Exit code 0 when it is valid, 78 when it is not.
        """
        paths = find(root=root, config=config)
        try:
            problems = daemon.check(paths=paths, env=env, overrides=overrides)
        except AtlasError as error:
            if as_json:
                emit({"valid": False, "problems": [], **error.to_wire()})
            raise
        return _tell(paths.config_file, problems, as_json=as_json)

    @atlasd.command(hidden=True)
    @click.argument("operation")
    @_places
    def config(
        operation: str,
        config: str | None,
        root: str | None,
        env: str | None,
        overrides: tuple[str, ...],
    ) -> int:
        """Perform an operation of `atlasctl config` without a daemon; the request comes as JSON."""
        try:
            request = json.load(sys.stdin)
            answer = daemon.configuration(
                operation,
                request,
                paths=find(root=root, config=config),
                env=env,
                overrides=overrides,
            )
        except AtlasError as error:
            print(json.dumps(error.to_wire()))
            return error.kind.exit
        print(json.dumps(answer))
        return EXIT_OK

    @atlasd.command(hidden=True)
    @click.argument("operation")
    @_places
    def secret(
        operation: str,
        config: str | None,
        root: str | None,
        env: str | None,
        overrides: tuple[str, ...],
    ) -> int:
        """Perform an operation of `atlasctl secret` without a daemon; the request comes as JSON."""
        del overrides
        try:
            daemon.secrets(
                operation,
                json.load(sys.stdin),
                paths=find(root=root, config=config),
                env=env,
                tell=lambda body: print(json.dumps(body), flush=True),
            )
        except AtlasError as error:
            print(json.dumps(error.to_wire()))
            return error.kind.exit
        return EXIT_OK

    @atlasd.command(name="import")
    @_places
    @importing.wanted
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    def import_(config: str | None, root: str | None, overrides: object, **given: Any) -> int:
        """Take existing .env, YAML, JSON and INI files over as TOML.

        Every step that loses something is told with its line. The result is read back and held
        against the source before anything is written; nothing is replaced without --force.
        """
        del overrides
        importing.run(daemon.take_over, paths=find(root=root, config=config), **given)
        return EXIT_OK

    return atlasd


def _tell(file: str, problems: Sequence[Problem], *, as_json: bool) -> int:
    errors = [problem for problem in problems if not problem.warning]
    if as_json:
        body = [problem.to_wire() for problem in problems]
        emit({"valid": not errors, "problems": body})
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        if not errors:
            print(f"{file} is valid")
        else:
            told = count(len(errors), "error")
            print(f"atlasd: {told}; mend what is named and check again", file=sys.stderr)
    return EXIT_CONFIG if errors else EXIT_OK


def _role(name: str, daemon: Daemon) -> Callable[..., int]:
    def command(
        config: str | None, root: str | None, env: str | None, overrides: tuple[str, ...]
    ) -> int:
        paths = find(root=root, config=config)
        file = Path(config) if config else None
        return daemon.main(name, paths=paths, config_file=file, env=env, overrides=overrides)

    return command


def main(daemon: Daemon) -> int:
    """The program; gives the exit code."""
    return run(program(daemon), "atlasd")
