"""`atlasctl why`."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.events import sentence
from atlasd.cli.options import common, complete_services, pass_session
from atlasd.cli.session import Session, emit


@click.command()
@common
@click.option(
    "--events",
    "show_events",
    is_flag=True,
    help="Show the crashes and the events behind the story too.",
)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="At most the last N past events.",
)
@click.argument("service", shell_complete=complete_services)
@pass_session
def why(session: Session, service: str, show_events: bool, lines: int) -> None:
    """Tell in plain words how SERVICE came to be as it is, and what can be done."""
    body = session.client().call("service.why", service=service, limit=lines)
    if session.as_json:
        emit(body)
        return
    for told in story(body, show_events=show_events):
        print(told)


def story(body: dict[str, Any], *, show_events: bool) -> list[str]:
    """The answer as lines for a person."""
    lines = list(body["story"])
    for crash in body["crashes"] if show_events else ():
        times = "once" if crash["count"] == 1 else f"{crash['count']} times"
        what = crash["detail"] or crash["reason"]
        lines += ["", f"Crashed {times} ({what}), last at {crash['last']}:"]
        facts = []
        if crash["uptime_seconds"] is not None:
            facts.append(f"after {style.duration(crash['uptime_seconds'])}")
        if crash["memory_bytes"] is not None:
            facts.append(f"with {style.size(crash['memory_bytes'])} of memory")
        if crash["cpu_seconds"] is not None:
            facts.append(f"{crash['cpu_seconds']:.1f}s of CPU time")
        if crash["oom"]:
            facts.append("killed by the kernel for want of memory")
        if facts:
            lines.append(f"  {', '.join(facts)}")
        lines += [f"  | {output}" for output in crash["output"]]
    if show_events and body["events"]:
        lines += ["", *(sentence(event) for event in body["events"])]
    if body["next"]:
        lines += ["", *(f"Next: {step}" for step in body["next"])]
    return lines
