"""`atlasctl queue …`: how queues stand; pause, resume and purge them."""

import sys
from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit
from atlasd.errors import AtlasError

STATES = ("available", "running", "scheduled", "completed", "cancelled", "dead")


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
            one["name"] + (" (paused)" if one["paused"] else ""), one["verdict"],
            *(str(one[state]) for state in ("available", "running", "scheduled", "dead")),
            "-" if one["oldest_seconds"] is None else style.duration(one["oldest_seconds"]),
            str(one["completed"]), str(one["workers"]),
            "strict" if one["strict"] else style.duration(one["aging_seconds"]),
        )
        for one in body["queues"]
    ]  # fmt: skip
    titles = (
        "QUEUE", "HEALTH", "AVAILABLE", "RUNNING", "SCHEDULED", "DEAD", "OLDEST", "COMPLETED",
        "WORKERS", "AGING",
    )  # fmt: skip
    print(style.table(titles, rows, right=frozenset(titles[2:])), end="")
    for one in body["queues"]:
        if one["verdict"] != "ok":
            print(f"{one['name']} is {one['verdict']}: {one['verdict_reason']}")


@queue.command()
@common
@click.argument("queue")
@pass_session
def show(session: Session, queue: str) -> None:
    """Show a queue: how it does, what waits, who works it and within which limits."""
    body = session.client().call("queue.show", queue=queue)
    if session.as_json:
        emit(body)
        return
    for label, text in _lines(body):
        print(f"{label:12} {text}".rstrip())


def _lines(body: dict[str, Any]) -> list[tuple[str, str]]:
    since = f", for {style.since(body['verdict_since'])}" if body["verdict_since"] else ""
    lines = [
        (body["name"], f"{style.word(body['verdict'])}{since}: {body['verdict_reason']}"),
        ("jobs", ", ".join(f"{body[state]} {state}" for state in STATES)),
    ]
    if body["oldest_seconds"] is not None:
        lines.append(("oldest", f"waits for {style.duration(body['oldest_seconds'])}"))
    lines.append(
        (
            "a minute",
            f"{body['finished_per_minute']} finished, {body['failed_per_minute']} failed runs",
        )
    )
    lines += [("worker" if n == 0 else "", _worker(one))
              for n, one in enumerate(body["workers_asking"])] or [
        ("worker", "none asks this host for jobs of it")
    ]  # fmt: skip
    limits = [
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in body["limits"].items()
        if value is not None and name != "max_wait_seconds"
    ]
    lines.append(("limits", ", ".join(limits) or "none"))
    if body["open_breakers"]:
        lines.append(("open", f"the breakers of {', '.join(body['open_breakers'])}"))
    lines.append(("priority", _bounds(body["wait_bounds"])))
    lines.append(("survives", body["survives"]))
    return lines


def _worker(one: dict[str, Any]) -> str:
    if one["held"] is None:
        return f"{one['worker']} (by HTTP)"
    at_once = style.count(one["concurrency"], "job")
    return f"{one['worker']}: {at_once} at once, holds {one['held']}"


def _bounds(bounds: list[float | None]) -> str:
    if None in bounds:
        return "strict: jobs of a priority above 0 may wait for ever behind more urgent ones"
    told = [f"{n}: {style.duration(bounds[n] or 0.0)}" for n in (1, 5, 9)]
    return f"fresh urgent work delays a job at most, by its priority: {', '.join(told)}"


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
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_session
def purge(
    session: Session,
    /,
    queue: str,
    state: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete jobs of a queue that do not run."""
    client = session.client(timeout=600.0)
    asked: dict[str, Any] = {"queue": queue, "state": list(state)}
    if not dry_run and not yes:
        if not sys.stdin.isatty():
            raise AtlasError(
                "usage", f"nobody is there to be asked whether jobs of {queue} are to be deleted",
                hint="say --yes; --dry-run only counts",
            )  # fmt: skip
        found = client.call("queue.purge", dry_run=True, **asked)["jobs"]
        question = f"Delete {style.count(found, 'job')} of {queue} for good?"
        if not found or not click.confirm(question, err=True):
            print("nothing was deleted")
            return
    touched(session, client.call("queue.purge", dry_run=dry_run, **asked), "deleted")


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
