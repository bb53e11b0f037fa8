"""`atlasctl queue …`: how queues stand; pause, resume and purge them."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def queue() -> None:
    """See, pause, resume and purge queues of jobs."""


@queue.command(name="list")
@common
@pass_session
def list_(session: Session) -> None:
    """List the queues and how many jobs of each are in which state."""
    body = session.client().call("queue.list")
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            one["name"] + (" (paused)" if one["paused"] else ""),
            *(str(one[state]) for state in ("available", "running", "scheduled", "dead")),
            "-" if one["oldest_seconds"] is None else style.duration(one["oldest_seconds"]),
            str(one["completed"]),
            "strict" if one["strict"] else style.duration(one["aging_seconds"]),
        )
        for one in body["queues"]
    ]  # fmt: skip
    titles = (
        "QUEUE", "AVAILABLE", "RUNNING", "SCHEDULED", "DEAD", "OLDEST", "COMPLETED", "AGING",
    )  # fmt: skip
    print(style.table(titles, rows, right=frozenset(titles[1:])), end="")


@queue.command()
@common
@click.argument("queue")
@pass_session
def pause(session: Session, queue: str) -> None:
    """Have nothing more claimed from a queue; what runs goes on."""
    _paused(session, session.client().call("queue.pause", queue=queue))


@queue.command()
@common
@click.argument("queue")
@pass_session
def resume(session: Session, queue: str) -> None:
    """Have jobs of a queue claimed again."""
    _paused(session, session.client().call("queue.resume", queue=queue))


@queue.command()
@common
@click.argument("queue")
@click.option(
    "--state", multiple=True,
    type=click.Choice(("scheduled", "available", "completed", "cancelled", "dead")),
    help="Jobs in this state (default: those that wait).",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only count them.")
@pass_session
def purge(session: Session, queue: str, state: tuple[str, ...], dry_run: bool) -> None:
    """Delete jobs of a queue that do not run."""
    touched(
        session,
        session.client().call("queue.purge", queue=queue, state=list(state), dry_run=dry_run),
        "deleted",
    )


def touched(session: Session, body: dict[str, Any], done: str) -> None:
    """Say how many jobs something was done to."""
    if session.as_json:
        emit(body)
        return
    jobs = style.count(body["jobs"], "job")
    print(f"{jobs} would be {done}" if body["dry_run"] else f"{jobs} {done}")


def _paused(session: Session, body: dict[str, Any]) -> None:
    if session.as_json:
        emit(body)
        return
    print(f"{body['queue']} is {'paused' if body['paused'] else 'worked again'}")
