"""What `atlasctl status` shows of all services."""

from typing import Any

from atlasd.cli import style
from atlasd.cli.session import Session

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


def show(session: Session) -> None:
    """Ask for the status and print it: a table, or what the daemon said, in JSON."""
    client = session.client()
    if session.as_json:
        # As the daemon wrote it: decoding it just to encode it again would be waste.
        print(client.text("status"))
        return
    services = client.call("status")["services"]
    print(render(services) if services else "no services are configured\n", end="")


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
