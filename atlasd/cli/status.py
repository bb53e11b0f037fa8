"""`atlasctl status`."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, complete_services, pass_session
from atlasd.cli.overview import render, show
from atlasd.cli.session import Session, emit


@click.command()
@common
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=complete_services)
@pass_session
def status(session: Session, services: tuple[str, ...]) -> None:
    """Show what every service is wanted to be, and what each instance is.

    With SERVICE, show these only, in more detail.
    """
    if not services:
        show(session)
        return
    client = session.client()
    found = [client.call("service", service=name) for name in services]
    if session.as_json:
        emit({"services": found})
        return
    print(render(found), end="")
    for service in found:
        for line in _more(service):
            print(line)


def _more(service: dict[str, Any]) -> list[str]:
    """What the table has no room for, a line each."""
    lines = []
    name = service["name"]
    if service["command"]:
        lines.append(f"{name}: runs {' '.join(service['command'])}")
    if service["waiting_for"]:
        lines.append(f"{name}: waits for {', '.join(service['waiting_for'])}")
    for instance in service["instances"]:
        where = f"{name}/{instance['index']}"
        if instance["detail"]:
            lines.append(f"{where}: {instance['detail']}")
        if instance["status_text"]:
            lines.append(f"{where}: says {instance['status_text']!r}")
        if instance["next_start_in"]:
            lines.append(f"{where}: next try in {style.duration(instance['next_start_in'])}")
        if instance["outdated"]:
            names = ", ".join(instance["outdated"])
            lines.append(f"{where}: has an older {names}; `atlasctl restart {name}` renews that")
        if instance["leftovers"]:
            pids = ", ".join(map(str, instance["leftovers"]))
            lines.append(f"{where}: processes that would not die: {pids}")
        if instance["crash_loop"]:
            lines.append(f"{where}: keeps crashing; `atlasctl why {name}` tells more")
    return lines
