"""`atlasctl status`."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.session import Session, common, complete_services, emit, pass_session

_TITLES = (
    "SERVICE",
    "WANTED",
    "STATE",
    "HEALTH",
    "PID",
    "SINCE",
    "RESTARTS",
    "MEMORY",
    "CPU",
    "REASON",
)
_RIGHT = frozenset({"PID", "SINCE", "RESTARTS", "MEMORY", "CPU"})


@click.command()
@common
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=complete_services)
@pass_session
def status(session: Session, services: tuple[str, ...]) -> None:
    """Show what every service is wanted to be, and what each instance is.

    With SERVICE, show these only, in more detail.
    """
    client = session.client()
    if not services:
        if session.as_json:
            # As the daemon wrote it: decoding it just to encode it again would be waste.
            print(client.text("status"))
            return
        shown = client.call("status")["services"]
        if not shown:
            print("no services are configured")
            return
        print(render(shown), end="")
        return
    found = [client.call("service", service=name) for name in services]
    if session.as_json:
        emit({"services": found})
        return
    print(render(found), end="")
    for service in found:
        for line in _more(service):
            print(line)


def render(services: list[dict[str, Any]]) -> str:
    """The table: a row for each instance, and one for a service without any."""
    rows = []
    for service in services:
        instances = service["instances"]
        several = len(instances) > 1
        for instance in instances:
            cpu = instance["cpu_seconds"]
            rows.append(
                (
                    f"{service['name']}/{instance['index']}" if several else service["name"],
                    service["wanted"],
                    instance["state"],
                    instance["health"],
                    str(instance["pid"] or ""),
                    style.since(instance["since"]),
                    str(instance["restarts"]),
                    style.size(instance["memory_bytes"]),
                    "" if cpu is None else f"{cpu:.1f}s",
                    instance["reason"],
                )
            )
        if not instances:
            rows.append((service["name"], service["wanted"], "", service["health"], *[""] * 6))
    return style.table(_TITLES, rows, right=_RIGHT)


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
        if instance["leftovers"]:
            pids = ", ".join(map(str, instance["leftovers"]))
            lines.append(f"{where}: processes that would not die: {pids}")
        if instance["crash_loop"]:
            lines.append(f"{where}: keeps crashing; `atlasctl why {name}` tells more")
    return lines
