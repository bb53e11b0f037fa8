"""`atlasctl logs`."""

import json
import sys
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, complete_services, pass_session
from atlasd.cli.session import Session, options, split_target

_COLOURS = ("cyan", "green", "yellow", "bold")


@click.command()
@common
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come.")
@click.option("--since", metavar="TIME", help="Only lines since then: 10m, or an ISO 8601 time.")
@click.option("--grep", metavar="REGEX", help="Only lines in which this regular expression is.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    metavar="N",
    help="At most the last N past lines; default: 100, or all with --since or --grep.",
)
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="One of the streams only.")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=complete_services)
@pass_session
def logs(
    session: Session,
    /,
    *,
    services: tuple[str, ...],
    follow: bool,
    since: str | None,
    grep: str | None,
    lines: int | None,
    stream: str | None,
) -> None:
    """Show the output of services, by default the last hundred lines of all of them.

    With --json, each line is an object: time, service, instance, stream, message.
    """
    if lines is None and since is None and grep is None:
        lines = 100
    fields = options(follow=follow, since=since, grep=grep, stream=stream, lines=lines)
    client = session.client()
    if len(services) == 1:
        service, instance = split_target(services[0])
        if instance is not None:
            fields["instance"] = instance
        records = client.stream("service.logs", service=service, **fields)
    else:
        records = client.stream("logs", service=services, **fields)
    with records:
        if session.as_json:
            for raw in records.raw():
                sys.stdout.write(raw.decode())
                if follow:
                    sys.stdout.flush()
            return
        colours = style.coloured(sys.stdout)
        for raw in records.raw():
            sys.stdout.write(line(json.loads(raw), colours=colours))
            if follow:
                sys.stdout.flush()


def line(record: dict[str, Any], *, colours: bool) -> str:
    """One record as a person reads it: time, instance, message; an error stream's in red."""
    name = f"{record['service']}/{record['instance']}"
    message = record["message"]
    if colours:
        # The same service has the same colour in every run: by its name, not by chance.
        name = style.paint(name, _COLOURS[sum(map(ord, record["service"])) % 4], wanted=True)
        if record["stream"] == "stderr":
            message = style.paint(message, "red", wanted=True)
    return f"{record['time']} {name} {message}\n"
