"""`atlasctl config …`: what is configured, where it comes from, and how it takes over."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from atlasd.cli import importing, style
from atlasd.cli.asking import TIMEOUT, ask
from atlasd.cli.changes import change_lines, reload_lines
from atlasd.cli.options import F, common, pass_session
from atlasd.cli.session import Session, emit
from atlasd.cli.tomltext import explained, toml, toml_value
from atlasd.errors import AtlasError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def config() -> None:
    """See, explain, change and take over the configuration."""


@config.command()
@common
@click.option("--env", metavar="NAME", help="The environment to check for.")
@click.option("--config", "file", metavar="FILE", help="The main configuration file.")
@pass_session
def check(session: Session, env: str | None, file: str | None) -> None:
    """Say everything that is wrong with the files; needs no daemon and changes nothing.

    Exit code 0 when they are valid, 78 when they are not. This is `atlasd check`.
    """
    words = [sys.executable, "-m", "atlasd", "check"]
    for option, value in (("--root", session.root), ("--env", env), ("--config", file)):
        words += [option, value] if value else []
    words += ["--json"] if session.as_json else []
    sys.stdout.flush()
    os.execv(sys.executable, words)


config.add_command(importing.import_)


@config.command()
@common
@click.option("--defaults", is_flag=True, help="Also show what nobody has set.")
@click.option("--origin", is_flag=True, help="Show where each setting stands.")
@pass_session
def show(session: Session, defaults: bool, origin: bool) -> None:
    """Show the configuration that is in force, as TOML.

    Secrets are shown as references; what stands under a name such as `password` is not shown.
    """
    body = ask(session, "config.show", defaults=defaults)
    if session.as_json:
        emit(body)
        return
    places = body["places"] if origin else {}
    chosen = f"{body['environment']} ({body['environment_chosen_by']})"
    print(f"# generation {body['generation']}, environment {chosen}")
    print(toml(body["settings"], places), end="")


@config.command()
@common
@click.argument("key")
@pass_session
def get(session: Session, key: str) -> None:
    """Print the value of a setting: `atlasctl config get services.web.instances`."""
    body = ask(session, "config.explain", key=key)
    if session.as_json:
        emit({"key": body["key"], "value": body["value"], "set": body["set"]})
        return
    value = body["value"]
    if isinstance(value, dict):
        print(toml(value, {}), end="")
    elif isinstance(value, str):
        print(value)
    else:
        print(toml_value(value))


@config.command()
@common
@click.argument("key")
@pass_session
def explain(session: Session, key: str) -> None:
    """Tell where a setting comes from, what it shadows, and what a change of it takes."""
    body = ask(session, "config.explain", key=key)
    if session.as_json:
        emit(body)
        return
    print("\n".join(explained(body)))


@config.command()
@common
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@pass_session
def reload(session: Session, dry_run: bool) -> None:
    """Read the files again and take over all that needs no restart of a service.

    What does waits for `atlasctl apply`. Files with a mistake change nothing.
    """
    body = session.client(timeout=TIMEOUT).call("config.reload", dry_run=dry_run)
    if session.as_json:
        emit(body)
        return
    print("\n".join(reload_lines(body)))


@config.command()
@common
@click.option("--changes", is_flag=True, help="Show every setting that differed.")
@pass_session
def history(session: Session, changes: bool) -> None:
    """List the generations that were in force, the latest first."""
    body = ask(session, "config.history")
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            f"{one['number']}{' *' if one['current'] else ''}",
            style.moment(one["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            one["actor"],
            one["environment"],
            one["state"],
            one["detail"] or one["summary"],
        )
        for one in body["generations"]
    ]
    if not changes:
        print(
            style.table(("GENERATION", "TIME", "BY", "ENVIRONMENT", "STATE", "WHAT"), rows), end=""
        )
        return
    for row, one in zip(rows, body["generations"], strict=True):
        print("  ".join(row))
        for line in change_lines(one["changes"]):
            print(f"    {line}")


@config.command()
@common
@click.argument("generation", type=click.IntRange(min=1), required=False)
@click.option("--force", is_flag=True, help="Also when files were edited since.")
@pass_session
def rollback(session: Session, generation: int | None, force: bool) -> None:
    """Write the files of an earlier GENERATION back and read them; the one before by default.

    All files or none. What is replaced stays as a .bak file beside it.
    """
    body = ask(session, "config.rollback", generation=generation, force=force)
    if session.as_json:
        emit(body)
        return
    print(f"generation {body['restored']} is back, as generation {body['generation']}")
    print("\n".join(reload_lines(body)))


@config.command()
@common
@pass_session
def sources(session: Session) -> None:
    """List the layers of the configuration: a later one beats an earlier one."""
    body = ask(session, "config.sources")
    if session.as_json:
        emit(body)
        return
    print(f"environment {body['environment']}, chosen by {body['environment_chosen_by']}")
    rows = [
        (
            layer["name"],
            layer["origin"],
            f"{layer['source']} ({layer['dialect']})" if layer["dialect"] else layer["source"],
            str(layer["keys"]) if layer["present"] else "absent",
            style.moment(layer["modified"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            if layer["modified"]
            else "",
        )
        for layer in body["layers"]
    ]
    titles = ("LAYER", "FROM", "READ AS", "SETTINGS", "CHANGED")
    print(style.table(titles, rows, right=frozenset({"SETTINGS"})), end="")


@config.command()
@common
@pass_session
def schema(session: Session) -> None:
    """Print the JSON Schema of configuration files, for editors.

    Save it, and begin a file with `#:schema ./atlasd.schema.json`.
    """
    print(json.dumps(ask(session, "config.schema"), indent=2, ensure_ascii=False))


@config.command()
@common
@click.argument("left", metavar="ENV1")
@click.argument("right", metavar="ENV2")
@pass_session
def diff(session: Session, left: str, right: str) -> None:
    """Show what two environments have different, as the files are now."""
    body = ask(session, "config.diff", left=left, right=right)
    if session.as_json:
        emit(body)
        return
    for one in body["differences"]:
        print(one["key"])
        for side in ("left", "right"):
            where = one[f"{side}_where"]
            said = f"{toml_value(one[side])}  ({where})" if where else "not set"
            print(f"  {body[side]}: {said}")
    if not body["differences"]:
        print(f"{left} and {right} are the same")


@config.command()
@common
@click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "json", "yaml", "env"]),
    default="toml",
    show_default=True,
    help="env: lines of NAME=value, named as the daemon reads them.",
)
@click.option("--defaults", is_flag=True, help="Also what nobody has set.")
@click.option("--reveal", is_flag=True, help="With the values of secrets.")
@pass_session
def export(session: Session, form: str, defaults: bool, reveal: bool) -> None:
    """Write the configuration that is in force to standard output.

    Secrets are references, unless --reveal says otherwise; that takes the right to administer.
    """
    operation = "config.reveal" if reveal else "config.export"
    body = ask(session, operation, format=form, defaults=defaults)
    if session.as_json:
        emit(body)
        return
    print(body["text"], end="")


def _file(command: F) -> F:
    for option in (
        click.option(
            "--env",
            metavar="NAME",
            help="Change the file of this environment.",
        ),
        click.option("--file", metavar="FILE", help="The file to be changed, as conf.d/shop.toml."),
    ):
        command = option(command)
    return command


_reload = click.option("--reload", is_flag=True, help="Have the daemon read it at once.")


@config.command("set")
@common
@click.argument("key")
@click.argument("value")
@_file
@_reload
@click.option("--force", is_flag=True, help="Also where another layer has the last word.")
@pass_session
def set_(session: Session, /, key: str, value: str, **given: Any) -> None:
    """Set KEY to VALUE in its file: `atlasctl config set services.web.instances 4`.

    Comments and order stay. The whole configuration is vetted first; a value that is not valid, or
    that another layer would beat, writes nothing.
    """
    _tell(session, ask(session, "config.set", key=key, value=value, **given))


@config.command()
@common
@click.argument("key")
@_file
@_reload
@pass_session
def unset(session: Session, /, key: str, **given: Any) -> None:
    """Remove KEY from its file; what lower layers or the defaults say holds then."""
    _tell(session, ask(session, "config.unset", key=key, **given))


@config.command()
@common
@click.argument("key")
@_file
@click.option("--stdin", is_flag=True, help="Read the value from standard input.")
@pass_session
def encrypt(session: Session, /, key: str, stdin: bool, **given: Any) -> None:
    """Encrypt the value of KEY where it stands in its file.

    With --stdin another value takes its place: the value is never an argument, where others see it.
    The encrypted value is good for this key and environment only.
    """
    value = None
    if stdin:
        value = (
            click.prompt("value", hide_input=True, err=True)
            if sys.stdin.isatty()
            else sys.stdin.read().removesuffix("\n")
        )
        if not value:
            raise AtlasError("usage", "there is no value on standard input", hint="give one")
    _tell(session, ask(session, "config.encrypt", key=key, value=value, **given))


@config.command()
@common
@click.argument("key")
@_file
@pass_session
def decrypt(session: Session, /, key: str, **given: Any) -> None:
    """Put the value of KEY back in plain text where it stands in its file."""
    _tell(session, ask(session, "config.decrypt", key=key, **given))


def _tell(session: Session, body: Mapping[str, Any]) -> None:
    """What became of a change of a file."""
    if session.as_json:
        emit(body)
        return
    for warning in body["warnings"]:
        print(f"atlasctl: warning: {warning}", file=sys.stderr)
    print(f"{body['file']} written")
    if body["reloaded"] is not None:
        print("\n".join(reload_lines(body["reloaded"])))
    else:
        print("\n".join(change_lines(body["changes"]) or ["nothing changes by it"]))
