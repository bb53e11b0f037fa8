"""`atlasctl settings …`: what applications are configured with, and where each setting is from."""

import json
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit, options


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def settings() -> None:
    """See and explain the settings that applications are given."""


@settings.command(name="list")
@common
@pass_session
def list_(session: Session) -> None:
    """List the sets of settings, and which services are given them."""
    body = session.client().call("settings.list")
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            one["name"], str(one["settings"]), str(one["secrets"]), one["validated_by"] or "-",
            ", ".join(one["services"]) or "-",
        )
        for one in body["sets"]
    ]  # fmt: skip
    titles = ("SET", "SETTINGS", "SECRETS", "SCHEMA", "SERVICES")
    print(style.table(titles, rows, right=frozenset(("SETTINGS", "SECRETS"))), end="")


@settings.command()
@common
@click.argument("name")
@pass_session
def show(session: Session, name: str) -> None:
    """Show a set of settings with the place of each; secrets are shown as references."""
    body = session.client().call("settings.show", name=name)
    if session.as_json:
        emit(body)
        return
    users = ", ".join(body["services"]) or "no service"
    print(f"# {name} in {body['environment']}, given to {users}")
    rows = [(one["key"], text(one["value"]), one["where"]) for one in body["settings"]]
    print(style.table(("KEY", "VALUE", "WHERE"), rows), end="")


@settings.command()
@common
@click.argument("name")
@click.argument("key")
@pass_session
def explain(session: Session, name: str, key: str) -> None:
    """Tell where a setting comes from, what it beats, and by which variables it is told."""
    body = session.client().call("settings.explain", name=name, key=key)
    if session.as_json:
        emit(body)
        return
    print(f"{body['set']}: {body['key']} = {text(body['value'])}")
    if body["default"]:
        print("  nobody has set it: it is the default of the application's model")
    else:
        print(f"  stands in {body['where']}")
    for place in body["shadows"]:
        print(f"  beats     {place}")
    if body["expected"]:
        print(f"  expected  {body['expected']}")
    if body["secret"]:
        print("  there is a secret in it, which is not shown")
    if body["variables"]:
        print(f"  variables {', '.join(body['variables'])}")


@settings.command()
@common
@click.argument("name")
@click.argument("left", metavar="ENV1")
@click.argument("right", metavar="ENV2")
@pass_session
def diff(session: Session, name: str, left: str, right: str) -> None:
    """Tell what two environments have different in a set, as the files are now."""
    body = session.client().call("settings.diff", name=name, left=left, right=right)
    if session.as_json:
        emit(body)
        return
    if not body["changes"]:
        print(f"{name} is the same in {left} and {right}")
        return
    for change in body["changes"]:
        print(change["key"])
        for env, side in ((left, "left"), (right, "right")):
            where = change[f"{side}_where"]
            said = f"{text(change[side])}  ({where})" if where else "not set"
            print(f"  {env:12} {said}")


@settings.command()
@common
@click.argument("service")
@click.argument("file", required=False)
@click.option("--reveal", is_flag=True, help="Show secrets; entered in the audit log.")
@pass_session
def render(session: Session, service: str, file: str | None, reveal: bool) -> None:
    """Print what a service is given: its variables, or its rendered files (or one FILE)."""
    operation = "settings.reveal" if reveal else "settings.render"
    body = session.client().call(operation, service=service, **options(file=file))
    if session.as_json:
        emit(body)
        return
    for name, value in body["variables"].items():
        print(f"{name}={value}")
    for one in body["files"]:
        if len(body["files"]) > 1:
            print(f"# --- {one['path']} ({one['format']}), told in {one['variable']}")
        print(one["content"], end="")


def text(value: Any) -> str:
    """A value on one line."""
    return json.dumps(value, ensure_ascii=False)
