"""`atlasctl events`."""

import sys
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, complete_services, pass_session
from atlasd.cli.session import Session, options


@click.command()
@common
@click.option("-f", "--follow", is_flag=True, help="Go on with new events as they happen.")
@click.option("--since", type=click.IntRange(min=0), metavar="SEQ", help="Only from this one on.")
@click.option("--kind", metavar="KIND", help="Only of this kind: transition, crash, health, …")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="At most the last N past events.",
)
@click.argument("service", required=False, shell_complete=complete_services)
@pass_session
def events(
    session: Session,
    /,
    *,
    service: str | None,
    follow: bool,
    since: int | None,
    kind: str | None,
    lines: int,
) -> None:
    """Show what happened, of all services or of SERVICE; with -f, as it happens."""
    fields = options(follow=follow, service=service, kind=kind, since=since)
    with session.client().stream("events", limit=lines, **fields) as stream:
        if session.as_json:
            for raw in stream.raw():
                sys.stdout.write(raw.decode())
                sys.stdout.flush()
            return
        for event in stream:
            print(sentence(event), flush=True)


def sentence(event: dict[str, Any]) -> str:
    """One event in a line: time, what it is about, what happened, why, and who asked."""
    parts = [event["time"]]
    if event.get("service"):
        index = event.get("instance")
        parts.append(event["service"] if index is None else f"{event['service']}/{index}")
    about = event.get("data") or {}
    parts += [f"{word} {about[word]}" for word in ("queue", "target") if about.get(word)]
    if event.get("new"):
        parts.append(f"{style.word(event.get('old') or '?')} → {style.word(event['new'])}")
    else:
        parts.append(event["kind"])
    reason, detail = event.get("reason"), event.get("detail")
    if reason and detail:
        parts.append(f"{reason}: {detail}")
    elif reason or detail:
        parts.append(str(reason or detail))
    if event.get("pid"):
        parts.append(f"pid {event['pid']}")
    if event.get("actor"):
        parts.append(f"by {event['actor']}")
    return "  ".join(parts)
