"""`atlasctl job …`: enqueue jobs, see, watch and explain them, cancel and retry them."""

import json
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.job_watch import depth, outcome, step
from atlasd.cli.job_watch import watch as follow
from atlasd.cli.moments import moment
from atlasd.cli.options import common, pass_session
from atlasd.cli.pushing import as_object, push_lines, push_one
from atlasd.cli.session import Session, emit, options
from atlasd.errors import AtlasError

STATES = ("scheduled", "available", "running", "completed", "cancelled", "dead")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def job() -> None:
    """Enqueue, see, watch, explain, cancel and retry jobs."""


@job.command()
@common
@click.argument("kind", required=False)
@click.argument("args", required=False)
@click.option("--args", "given", metavar="JSON", help="The same; - reads standard input.")
@click.option(
    "--lines",
    metavar="FILE",
    help="One job for each line of JSON: its arguments, or without KIND the whole job. - is "
    "standard input.",
)
@click.option("--queue", metavar="NAME", help="Its queue (default: default).")
@click.option("--delay", metavar="DURATION", help="Not before so long: 5m.")
@click.option("--at", "run_at", metavar="TIME", help="Not before then: 2026-11-23T17:44.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 (the most urgent) to 9.")
@click.option("--max-attempts", type=click.IntRange(1, 1000), help="Dead after so many failures.")
@click.option("--timeout", metavar="DURATION", help="A run that takes longer is stopped.")
@click.option("--expires-in", metavar="DURATION", help="Cancelled if nobody began it by then.")
@click.option("--unique", metavar="KEY", help="Not while another job has this key.")
@click.option(
    "--scope",
    metavar="SCOPE",
    help="How long it has the key: until_finished (default), until_claimed, window:1h.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(("return_existing", "reject", "replace_args", "move_run_at")),
    help="What becomes of it when another job has the key.",
)
@click.option("--target", metavar="NAME", help="What its circuit breaker belongs to.")
@click.option("--fair-key", metavar="NAME", help="Whose share of the queue it takes.")
@click.option("--tag", "tags", multiple=True, metavar="NAME", help="A tag; repeatable.")
@click.option("--then", multiple=True, metavar="JSON", help="A job that comes after; repeatable.")
@click.option("--key", default="", metavar="KEY", help="Idempotency key of this very request.")
@pass_session
def push(
    session: Session,
    /,
    kind: str | None,
    args: str | None,
    given: str | None,
    lines: str | None,
    key: str,
    **asked: Any,
) -> None:
    """Enqueue a job of KIND; ARGS is a JSON object, as '{"to": "ops@example.org"}'."""
    if args is not None and given is not None:
        raise AtlasError("usage", "the arguments are given twice", hint="leave --args out")
    said = _said(asked)
    text = args if args is not None else given
    if lines is not None:
        if text is not None:
            raise AtlasError("usage", "--lines has the arguments", hint="leave ARGS out")
        if kind is None and said:
            raise AtlasError(
                "usage", "without KIND each line is a whole job",
                hint=f"say KIND, or write {', '.join(said)} into the lines",
            )  # fmt: skip
        push_lines(session, lines, None if kind is None else {"kind": kind, **said}, key)
        return
    if kind is None:
        raise AtlasError("usage", "which kind of job?", hint="atlasctl job push KIND '{…}'")
    push_one(session, {"kind": kind, "args": as_object(text), **said}, key)


def _said(asked: dict[str, Any]) -> dict[str, Any]:
    """The job's options for the wire."""
    said = options(**asked)
    if "run_at" in said:
        said["run_at"] = moment(said["run_at"], "--at")
    for name in ("tags", "then"):
        if name in said:
            said[name] = list(said[name])
    if "then" in said:
        said["then"] = [as_object(one) for one in said["then"]]
    scope, conflict = said.pop("scope", None), said.pop("on_conflict", None)
    if (scope or conflict) and "unique" not in said:
        raise AtlasError("usage", "--scope and --on-conflict belong to --unique KEY")
    if scope or conflict:
        said["unique"] = {"key": said["unique"]} | options(scope=scope, on_conflict=conflict)
    return said


@job.command()
@common
@click.argument("id", type=click.IntRange(min=1), required=False)
@click.option("--queue", metavar="NAME", help="A queue in place of a job, until it is empty.")
@pass_session
def watch(session: Session, id: int | None, queue: str | None) -> int:
    """Follow a job until it has ended: exit code 0 if it is completed, else 1."""
    if (id is None) == (queue is None):
        raise AtlasError("usage", "what is to be watched?", hint="an ID, or --queue NAME")
    if queue is not None:
        follow(session, "queue.watch", depth, queue=queue)
        return 0
    return outcome(follow(session, "job.watch", step, id=id))


@job.command(name="list")
@common
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--kind", metavar="NAME", help="Only of this kind.")
@click.option("--state", multiple=True, type=click.Choice(STATES), help="Only in this state.")
@click.option("--fair-key", metavar="NAME", help="Only of this share.")
@click.option("--target", metavar="NAME", help="Only for this target.")
@click.option("--tag", metavar="NAME", help="Only with this tag.")
@click.option(
    "--after", type=click.IntRange(min=0), default=0, metavar="ID", help="Only with a larger id."
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, help="At most this many (default: 100)."
)
@pass_session
def list_(session: Session, /, **asked: Any) -> None:
    """List jobs by id."""
    body = session.client().call("job.list", **{k: v for k, v in asked.items() if v})
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            str(one["id"]), one["queue"], one["kind"], one["state"],
            f"{one['attempt']}/{one['max_attempts']}", style.since(one["created"]), one["reason"],
        )
        for one in body["jobs"]
    ]  # fmt: skip
    titles = ("ID", "QUEUE", "KIND", "STATE", "ATTEMPT", "CREATED", "REASON")
    print(style.table(titles, rows, right=frozenset(("ID", "ATTEMPT", "CREATED"))), end="")
    if len(rows) == asked["limit"]:
        print(f"there may be more: --after {body['jobs'][-1]['id']}")


@job.command()
@common
@click.argument("id", type=click.IntRange(min=1))
@pass_session
def show(session: Session, id: int) -> None:
    """Show all that is known of a job."""
    tell(session, session.client().call("job.show", id=id))


@job.command()
@common
@click.argument("id", type=click.IntRange(min=1))
@pass_session
def explain(session: Session, id: int) -> None:
    """Tell the one reason why a job does not run, or what it does."""
    body = session.client().call("job.explain", id=id)
    if session.as_json:
        emit(body)
        return
    print(f"job {body['id']} is {body['state']} ({body['reason']}): {body['detail']}")


@job.command()
@common
@click.argument("id", type=click.IntRange(min=1))
@pass_session
def cancel(session: Session, id: int) -> None:
    """Cancel a job; one that runs is asked to stop."""
    body = session.client().call("job.cancel", id=id)
    if session.as_json:
        emit(body)
        return
    asked = " and asked to stop" if body["cancel_requested"] else ""
    print(f"job {id} is {body['state']}{asked}")


@job.command()
@common
@click.argument("id", type=click.IntRange(min=1))
@click.option("--args", metavar="JSON", help="Arguments in place of its own.")
@pass_session
def retry(session: Session, id: int, args: str | None) -> None:
    """Make a job that has ended available again, with a fresh budget of attempts."""
    fields: dict[str, Any] = {"id": id}
    if args is not None:
        fields["args"] = as_object(args)
    body = session.client().call("job.retry", **fields)
    if session.as_json:
        emit(body)
        return
    print(f"job {id} is {body['state']} again")


def tell(session: Session, body: dict[str, Any]) -> None:
    """Print all that is known of a job."""
    if session.as_json:
        emit(body)
        return
    print(f"job {body['id']}: {body['kind']} in {body['queue']}, {body['state']}"
          + (f" ({body['reason']})" if body["reason"] else ""))  # fmt: skip
    print(f"  arguments  {json.dumps(body['args'], ensure_ascii=False)}")
    print(f"  attempt    {body['attempt']} of {body['max_attempts']}, priority {body['priority']}")
    for label, key in (("created", "created"), ("run at", "run_at"), ("ended", "finalized")):
        if body[key]:
            print(f"  {label:10} {body[key]}")
    for label, key in (
        ("worker", "worker"), ("target", "target"), ("fair key", "fair_key"),
        ("unique", "unique_key"), ("options", "options"), ("result", "result"),
        ("progress", "progress"),
    ):  # fmt: skip
        if body[key]:
            value = body[key] if isinstance(body[key], str) else json.dumps(body[key])
            print(f"  {label:10} {value}")
    for error in body["errors"]:
        print(f"  failed     {error['at']} attempt {error['attempt']}: {error['error']}: "
              f"{error['message']}")  # fmt: skip
        if error["frames"]:
            print(f"             in {' > '.join(error['frames'])}")
        if error["generation"]:
            print(f"             under configuration {error['generation']}")
