"""`atlasctl plugins`: what was found and admitted, and a start for a plugin of one's own."""

import os
import re
from pathlib import Path
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit
from atlasd.errors import AtlasError, nearest
from atlasd.paths import find

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@click.group(invoke_without_command=True)
@common
@click.pass_context
def plugins(ctx: click.Context) -> None:
    """List the plugins that were found, or write a new one."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@plugins.command("list")
@common
@pass_session
def list_(session: Session) -> None:
    """Show every plugin: where it is from, what it offers, or why it was refused."""
    body = session.client().call("plugins")
    if session.as_json:
        emit(body)
        return
    print(render(body["plugins"]), end="")


def render(found: list[dict[str, Any]]) -> str:
    """The table, and a line for each plugin that has something to explain."""
    rows = []
    for plugin in found:
        offers = ", ".join(f"{offer['kind']} {offer['name']}" for offer in plugin["offers"])
        rows.append(
            (
                plugin["name"],
                plugin["state"],
                plugin["version"],
                offers,
                str(plugin["failures"] or ""),
                plugin["origin"],
            )
        )
    text = style.table(("PLUGIN", "STATE", "VERSION", "OFFERS", "FAILURES", "ORIGIN"), rows)
    reasons = [f"{p['name']}: {p['reason']}\n" for p in found if p["reason"]]
    return text + "".join(reasons)


@plugins.command()
@common
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Write it there instead of the daemon's plugins.d.",
)
@click.argument("kind")
@click.argument("name")
@pass_session
def new(session: Session, kind: str, name: str, folder: str | None) -> None:
    """Write a drop-in plugin of KIND that works as it stands; no daemon is needed.

    KIND is one of check, subscriber, operation, collector, component, config_source,
    secret_backend. The daemon takes it in when it is started the next time.
    """
    from atlasd.cli.templates import TEMPLATES, drop_in

    kind = kind.replace("-", "_")
    if kind not in TEMPLATES:
        raise AtlasError(
            "plugin.unknown",
            f"there is no kind of plugin called {kind!r}",
            hint=nearest(kind, tuple(TEMPLATES)),
        )
    if not _NAME.fullmatch(name):
        raise AtlasError(
            "usage",
            f"{name!r} is no name for a plugin",
            hint="use small letters, digits and underscores, a letter first",
        )
    path = Path(folder or find(root=session.root).plugins_dir) / f"{name}.py"
    _write(path, drop_in(kind, name))
    if session.as_json:
        emit({"kind": kind, "name": name, "path": str(path)})
        return
    print(f"wrote {path}")
    print("edit it, restart the daemon, then see `atlasctl plugins`")


def _write(path: Path, text: str) -> None:
    try:
        # Others may read a plugin and never write it, or the daemon refuses it: whatever the mask.
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise AtlasError(
            "plugin.exists", f"{path} exists", hint="take another name, or remove it"
        ) from None
    except OSError as fault:
        raise AtlasError(
            "daemon.directory",
            f"{path} cannot be written: {fault.strerror}",
            hint="run it as the daemon's user, or give another folder with --dir",
        ) from fault
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o644)
        file.write(text)
