"""`atlasctl job …`: enqueue jobs, see them, explain them, cancel and retry them."""

import json
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit
from atlasd.errors import AtlasError

STATES = ("scheduled", "available", "running", "completed", "cancelled", "dead")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def job() -> None:
    """Enqueue, see, explain, cancel and retry jobs."""


@job.command()
@common
@click.argument("kind")
@click.argument("args", required=False)
@click.option("--queue", metavar="NAME", help="Its queue (default: default).")
@click.option("--delay", metavar="DURATION", help="Not before so long: 5m.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 (the most urgent) to 9.")
@click.option("--max-attempts", type=click.IntRange(1, 1000), help="Dead after so many failures.")
@click.option("--unique", metavar="KEY", help="Not while another job has this key.")
@click.option("--target", metavar="NAME", help="What its circuit breaker belongs to.")
@click.option("--key", default="", metavar="KEY", help="Idempotency key of this very request.")
@pass_session
def push(session: Session, /, kind: str, args: str | None, key: str, **options: Any) -> None:
    """Enqueue one job of KIND; ARGS is a JSON object, as '{"to": "ops@example.org"}'."""
    said = {name: value for name, value in options.items() if value is not None}
    body = session.client().call(
        "job.enqueue", jobs=[{"kind": kind, "args": as_object(args), **said}], key=key
    )
    (made,) = body["jobs"]
    if made["outcome"] == "rejected":
        raise AtlasError("job.rejected", f"job {made['id']} ({made['state']}) has the unique key")
    if session.as_json:
        emit(made)
        return
    what = "" if made["outcome"] == "created" else f" ({made['outcome']})"
    print(f"job {made['id']} is {made['state']}{what}")


@job.command(name="list")
@common
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--kind", metavar="NAME", help="Only of this kind.")
@click.option("--state", multiple=True, type=click.Choice(STATES), help="Only in this state.")
@click.option("--tag", metavar="NAME", help="Only with this tag.")
@click.option("--after", type=int, default=0, metavar="ID", help="Only with a larger id.")
@click.option("--limit", type=int, default=100, help="At most this many (default: 100).")
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
@click.argument("id", type=int)
@pass_session
def show(session: Session, id: int) -> None:
    """Show all that is known of a job."""
    tell(session, session.client().call("job.show", id=id))


@job.command()
@common
@click.argument("id", type=int)
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
@click.argument("id", type=int)
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
@click.argument("id", type=int)
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


def as_object(text: str | None) -> dict[str, Any]:
    """Arguments that were given as JSON. Raises `AtlasError` `usage`."""
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        said = f"the arguments are no JSON: {error}"
        raise AtlasError("usage", said, hint="""write '{"name": "value"}'""") from None
    if not isinstance(found, dict):
        raise AtlasError("usage", "the arguments are no JSON object", hint="write { … } around")
    return found


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
