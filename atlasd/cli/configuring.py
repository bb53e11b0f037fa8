"""`atlasctl config …`: what is configured, where it comes from, and how it takes over."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.changes import change_lines, reload_lines
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit, options


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


@config.command()
@common
@click.option("--defaults", is_flag=True, help="Also show what nobody has set.")
@click.option("--origin", is_flag=True, help="Show where each setting stands.")
@pass_session
def show(session: Session, defaults: bool, origin: bool) -> None:
    """Show the configuration that is in force, as TOML.

    Secrets are shown as references; what stands under a name such as `password` is not shown.
    """
    body = session.client().call("config.show", **options(defaults=defaults))
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
    body = session.client().call("config.explain", key=key)
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
    body = session.client().call("config.explain", key=key)
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
    body = session.client(timeout=90.0).call("config.reload", **options(dry_run=dry_run))
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
    body = session.client().call("config.history")
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
    body = session.client(timeout=90.0).call(
        "config.rollback", **options(generation=generation, force=force)
    )
    if session.as_json:
        emit(body)
        return
    print(f"generation {body['restored']} is back, as generation {body['generation']}")
    print("\n".join(reload_lines(body)))


def explained(body: Mapping[str, Any]) -> list[str]:
    """What is known of a setting, as a person reads it."""
    lines = [f"{body['key']} = {toml_value(body['value'])}"]

    def say(title: str, text: str) -> None:
        if text:
            lines.append(f"  {title:10}{text}")

    layer = f" ({body['layer']})" if body["layer"] else ""
    say("from", f"{body['where']}{layer}" if body["set"] else "its default: nobody has set it")
    for shadow in body["shadows"]:
        layer = f" ({shadow['layer']})" if shadow["layer"] else ""
        value = "" if shadow["value"] is None else f": {toml_value(shadow['value'])}"
        say("shadows", f"{shadow['where']}{layer}{value}")
    if body["set"] and body["default"] is not None:
        say("default", toml_value(body["default"]))
    say("takes", body["expected"])
    say("meaning", body["description"])
    say("a change", body["effect"])
    return lines


def toml(table: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """Settings as TOML for reading; where each stands, if `places` knows it, is a comment."""
    lines: list[str] = []
    _table(table, "", places, lines)
    return "\n".join(lines).lstrip("\n") + ("\n" if lines else "")


def _table(
    table: Mapping[str, Any], above: str, places: Mapping[str, str], lines: list[str]
) -> None:
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if above and (plain or not table):
        lines += ["", f"[{above}]"]
    for key, value in plain.items():
        place = places.get(_below(above, key))
        line = f"{_key(key)} = {toml_value(value)}"
        lines.append(f"{line}  # {place}" if place else line)
    for key, value in table.items():
        if isinstance(value, dict):
            _table(value, _below(above, key), places, lines)


def _below(above: str, key: str) -> str:
    return f"{above}.{_key(key)}" if above else _key(key)


def toml_value(value: Any) -> str:
    """A value of an answer as TOML writes it on one line."""
    if value is None:
        return "(nothing)"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    plain = key and all(char.isascii() and (char.isalnum() or char in "_-") for char in key)
    return key if plain else json.dumps(key, ensure_ascii=False)
