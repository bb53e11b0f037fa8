"""`atlasctl dead …`: jobs that were given up, by what killed them."""

import click

from atlasd.cli import style
from atlasd.cli.options import F, common, pass_session
from atlasd.cli.queues import touched
from atlasd.cli.session import Session, emit


def _chosen(command: F) -> F:
    for option in (
        click.option("--dry-run", is_flag=True, help="Only count them."),
        click.option("--fingerprint", metavar="GROUP", help="Only of this group."),
        click.option("--kind", metavar="NAME", help="Only of this kind."),
        click.option("--queue", metavar="NAME", help="Only of this queue."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def dead() -> None:
    """See, requeue and purge jobs that were given up."""


@dead.command()
@common
@click.option("--limit", type=click.IntRange(1, 1000), default=50, help="At most so many groups.")
@pass_session
def groups(session: Session, limit: int) -> None:
    """List dead jobs by what killed them, the largest group first."""
    body = session.client().call("dead.groups", limit=limit)
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            one["fingerprint"], str(one["jobs"]), one["queue"], one["kind"], one["reason"],
            style.since(one["last"]), one["error"],
        )
        for one in body["groups"]
    ]  # fmt: skip
    titles = ("GROUP", "JOBS", "QUEUE", "KIND", "REASON", "LAST", "ERROR")
    print(style.table(titles, rows, right=frozenset(("JOBS", "LAST"))), end="")


@dead.command()
@common
@_chosen
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@pass_session
def requeue(
    session: Session,
    queue: str | None,
    kind: str | None,
    fingerprint: str | None,
    limit: int | None,
    dry_run: bool,
) -> None:
    """Make dead jobs available again, with a fresh budget of attempts."""
    body = session.client().call(
        "dead.requeue", queue=queue, kind=kind, fingerprint=fingerprint, limit=limit,
        dry_run=dry_run,
    )  # fmt: skip
    touched(session, body, "requeued")


@dead.command()
@common
@_chosen
@pass_session
def purge(
    session: Session, queue: str | None, kind: str | None, fingerprint: str | None, dry_run: bool
) -> None:
    """Delete dead jobs."""
    body = session.client().call(
        "dead.purge", queue=queue, kind=kind, fingerprint=fingerprint, dry_run=dry_run
    )
    touched(session, body, "deleted")
