"""`atlasctl dead …`: jobs that were given up, by what killed them."""

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from atlasd.cli import jsonlines, style
from atlasd.cli.dripping import Drip
from atlasd.cli.jobs import tell
from atlasd.cli.moments import moment, part, per_second
from atlasd.cli.options import F, common, pass_session
from atlasd.cli.progress import progress
from atlasd.cli.pushing import as_object
from atlasd.cli.session import Session, emit, options
from atlasd.errors import AtlasError

PATIENCE = 30.0
"""Seconds that the outcomes of the last requeued jobs are waited for."""


def _chosen(command: F) -> F:
    for option in (
        click.option("--before", metavar="TIME", help="Only those that died before."),
        click.option("--since", metavar="TIME", help="Only those that died since: 2h (ago)."),
        click.option("--tag", metavar="NAME", help="Only with this tag."),
        click.option("--target", metavar="NAME", help="Only for this target."),
        click.option("--fingerprint", metavar="GROUP", help="Only of this group."),
        click.option("--kind", metavar="NAME", help="Only of this kind."),
        click.option("--queue", metavar="NAME", help="Only of this queue."),
    ):
        command = option(command)
    return command


def _all(command: F) -> F:
    return click.option("--all", "everything", is_flag=True, help="Every dead job.")(command)


_ids = click.argument("ids", type=click.IntRange(min=1), nargs=-1, metavar="[ID]…")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say how many of which group.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def dead() -> None:
    """See, edit, requeue, purge, export and import jobs that were given up."""


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
    if not body["groups"]:
        print("no job is dead")
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


@dead.command(name="list")
@common
@_chosen
@click.option("--after", type=int, default=0, metavar="ID", help="Only with a larger id.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, help="At most so many.")
@pass_session
def list_(session: Session, /, after: int, limit: int, **chosen: Any) -> None:
    """List dead jobs by id."""
    body = session.client().call("dead.list", after=after, limit=limit, **_fields(chosen))
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            str(one["id"]), one["queue"], one["kind"], one["fingerprint"],
            f"{one['attempt']}/{one['max_attempts']}", style.since(one["finalized"]),
            one["reason"], one["error"],
        )
        for one in body["jobs"]
    ]  # fmt: skip
    titles = ("ID", "QUEUE", "KIND", "GROUP", "ATTEMPT", "DIED", "REASON", "ERROR")
    print(style.table(titles, rows, right=frozenset(("ID", "ATTEMPT", "DIED"))), end="")
    if len(rows) == limit:
        print(f"there may be more: --after {body['jobs'][-1]['id']}")


@dead.command()
@common
@click.argument("id", type=click.IntRange(min=1))
@pass_session
def show(session: Session, id: int) -> None:
    """Show a dead job: its arguments, its attempts and each of its failures."""
    body = session.client().call("job.show", id=id)
    if body["state"] != "dead":
        raise AtlasError(
            "job.state", f"job {id} is {body['state']}, not dead",
            hint=f"`atlasctl job show {id}` shows it",
        )  # fmt: skip
    tell(session, body)


@dead.command()
@common
@click.argument("id", type=click.IntRange(min=1))
@click.option("--args", metavar="JSON", help="The new arguments; without it $EDITOR is opened.")
@click.option("--requeue", is_flag=True, help="Make it available at once.")
@pass_session
def edit(session: Session, id: int, args: str | None, requeue: bool) -> None:
    """Give a dead job other arguments; it stays dead, unless it is requeued."""
    client = session.client()
    if args is None:
        body = client.call("job.show", id=id)
        if body["state"] != "dead":
            raise AtlasError(
                "job.state", f"job {id} is {body['state']}: only a dead job can be edited",
                hint=f"`atlasctl job explain {id}` tells more",
            )  # fmt: skip
        args = _in_editor(body["args"])
        if args is None:
            print(f"job {id} is left as it was", file=sys.stderr)
            return
    body = client.call("dead.edit", id=id, args=as_object(args), requeue=requeue)
    if session.as_json:
        emit(body)
        return
    print(f"job {id} has new arguments and is {body['state']}")


@dead.command()
@common
@_ids
@_chosen
@_all
@_dry_run
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the oldest ids.")
@click.option("--rate", metavar="N/s", help="So many a second: 5/s, 30/m.")
@click.option(
    "--stop-on-fail", metavar="PART", help="Stop when this part of them has failed again: 20%."
)
@pass_session
def requeue(
    session: Session,
    /,
    ids: tuple[int, ...],
    everything: bool,
    dry_run: bool,
    limit: int | None,
    rate: str | None,
    stop_on_fail: str | None,
    **chosen: Any,
) -> None:
    """Make dead jobs available again, with a fresh budget of attempts.

    With --rate or --stop-on-fail they are requeued a few at a time, as long as this command runs;
    --stop-on-fail alone means 5/s. The same command again goes on where it ended.
    """
    fields = _some(ids, chosen, everything=everything)
    if dry_run or (rate is None and stop_on_fail is None):
        body = session.client(timeout=600.0).call(
            "dead.requeue", limit=limit, dry_run=dry_run, **fields
        )
        _touched(session, body, "requeued")
        return
    # What dies again meanwhile is not taken a second time.
    fields.setdefault("before", datetime.now(UTC).isoformat())
    total = session.client().call("dead.requeue", dry_run=True, limit=limit, **fields)["jobs"]
    with progress("requeued", total) as shown:
        drip = Drip(
            session.client(), fields, rate=per_second(rate or "5/s"),
            stop_at=part(stop_on_fail) if stop_on_fail is not None else None, say=shown.at,
        )  # fmt: skip
        try:
            drip.run(limit)
            if stop_on_fail is not None:
                drip.settle(PATIENCE)
        except (KeyboardInterrupt, AtlasError):
            shown.clear()
            left = total - drip.requeued
            print(f"{drip.requeued} requeued, {left} dead still; go on with: {_again(fields)}",
                  file=sys.stderr)  # fmt: skip
            raise
    if drip.stopped:
        raise drip.error(_again(fields))
    if session.as_json:
        emit(
            {"jobs": drip.requeued, "finished": drip.finished, "failed": drip.failed}
            if stop_on_fail is not None
            else {"jobs": drip.requeued}
        )
        return
    known = f": {drip.known()}" if stop_on_fail is not None else ""
    print(f"{style.count(drip.requeued, 'job')} requeued{known}")


@dead.command()
@common
@_ids
@_chosen
@_all
@_dry_run
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_session
def purge(
    session: Session,
    /,
    ids: tuple[int, ...],
    everything: bool,
    dry_run: bool,
    yes: bool,
    **chosen: Any,
) -> None:
    """Delete dead jobs for good."""
    fields = _some(ids, chosen, everything=everything)
    client = session.client(timeout=600.0)
    if not dry_run and not yes:
        if not sys.stdin.isatty():
            raise AtlasError(
                "usage", "nobody is there to be asked whether dead jobs are to be deleted",
                hint="say --yes; --dry-run only counts, `atlasctl dead export` keeps a copy",
            )  # fmt: skip
        found = client.call("dead.purge", dry_run=True, **fields)
        print(_groups_of(found), end="")
        jobs = style.count(found["jobs"], "dead job")
        if not found["jobs"] or not click.confirm(f"Delete {jobs} for good?", err=True):
            print("nothing was deleted")
            return
    _touched(session, client.call("dead.purge", dry_run=dry_run, **fields), "deleted")


@dead.command()
@common
@_ids
@_chosen
@click.option("-o", "--output", metavar="FILE", help="Write to a new file (default: the output).")
@pass_session
def export(session: Session, /, ids: tuple[int, ...], output: str | None, **chosen: Any) -> None:
    """Write dead jobs as lines of JSON, with all that is known of them; they stay dead."""
    fields = _fields(chosen) | options(ids=ids)
    count = 0
    with session.client().stream("dead.export", **fields) as stream, progress("exported") as shown:
        if output is None:
            for line in stream.raw():
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        try:
            # Arguments may hold what is nobody else's business.
            Path(output).touch(mode=0o600, exist_ok=False)
            with Path(output).open("wb") as file:
                for line in stream.raw():
                    file.write(line)
                    count += 1
                    shown.at(count)
        except OSError as error:
            raise AtlasError(
                "usage", f"{output} cannot be written: {error.strerror}",
                hint="an export is written to a new file only",
            ) from None  # fmt: skip
    if session.as_json:
        emit({"jobs": count, "file": output})
        return
    print(f"{style.count(count, 'dead job')} written to {output}")


@dead.command(name="import")
@common
@click.argument("file")
@_dry_run
@pass_session
def import_(session: Session, file: str, dry_run: bool) -> None:
    """Take dead jobs in from lines of JSON, as `dead export` writes them; - is standard input.

    Every line is looked at before the first job is taken in. They get new ids, stay dead, and keep
    their arguments, attempts and failures. A file that is imported again adds nothing.
    """
    name = "standard input" if file == "-" else file
    with jsonlines.opened(file) as lines:
        found = jsonlines.read(lines, name)
    client = session.client()
    taken = known = 0
    for look in (True, False):
        if look is False and dry_run:
            break
        taken = known = 0
        with progress("looked at" if look else "taken in", len(found)) as shown:
            for piece in jsonlines.pieces(found):
                body = client.call(
                    "dead.import", jobs=[line.body for line in piece],
                    first_line=piece[0].number, dry_run=look,
                )  # fmt: skip
                taken += body["jobs"]
                known += body["known"]
                shown.at(taken + known)
    if session.as_json:
        emit({"jobs": taken, "known": known, "dry_run": dry_run})
        return
    done = "would be taken in" if dry_run else "taken in"
    print(f"{style.count(taken, 'dead job')} {done}, {known} known already")


def _fields(chosen: dict[str, Any]) -> dict[str, Any]:
    given = options(**chosen)
    for name in ("since", "before"):
        if name in given:
            given[name] = moment(given[name], f"--{name}")
    return given


def _some(ids: tuple[int, ...], chosen: dict[str, Any], *, everything: bool) -> dict[str, Any]:
    """The fields of a request that changes jobs: nobody means all of them by saying nothing."""
    fields = _fields(chosen) | options(ids=ids)
    if not fields and not everything:
        raise AtlasError(
            "usage", "which dead jobs?",
            hint="name ids, or a filter as --kind or --fingerprint, or say --all",
        )  # fmt: skip
    if fields and everything:
        raise AtlasError("usage", "--all and a filter: which of them?", hint="leave one out")
    return fields


def _again(fields: dict[str, Any]) -> str:
    words = ["atlasctl dead requeue", *map(str, fields.get("ids", ()))]
    words += [f"--{name} {shlex.quote(str(fields[name]))}" for name in fields if name != "ids"]
    return " ".join(words)


def _in_editor(args: dict[str, Any]) -> str | None:
    """The arguments as the user left them; None when they are as before."""
    before = json.dumps(args, indent=2, ensure_ascii=False) + "\n"
    try:
        after = click.edit(before, extension=".json")
    except click.ClickException as error:
        raise AtlasError(
            "usage", f"no editor: {error.format_message()}", hint="set EDITOR, or give --args JSON"
        ) from None
    return None if after is None or after.strip() == before.strip() else after


def _groups_of(body: dict[str, Any]) -> str:
    rows = [
        (one["fingerprint"], str(one["jobs"]), one["queue"], one["kind"], one["error"])
        for one in body["groups"]
    ]
    titles = ("GROUP", "JOBS", "QUEUE", "KIND", "ERROR")
    return style.table(titles, rows, right=frozenset(("JOBS",))) if rows else ""


def _touched(session: Session, body: dict[str, Any], done: str) -> None:
    if session.as_json:
        emit(body)
        return
    if body["dry_run"]:
        print(_groups_of(body), end="")
    jobs = style.count(body["jobs"], "job")
    print(f"{jobs} would be {done}" if body["dry_run"] else f"{jobs} {done}")
