"""`atlasctl schedule …`: when jobs are enqueued by the clock; look ahead, fire, pause, resume."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def schedule() -> None:
    """See, preview, run, pause and resume the schedules of jobs."""


@schedule.command(name="list")
@common
@pass_session
def list_(session: Session) -> None:
    """List the schedules: when they fire next, and what became of the last time."""
    body = session.client().call("schedule.list")
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            one["name"], one["plan"], one["kind"], one["state"], _when(one["next"]),
            _when(one["last"]), _job(one), one["detail"],
        )
        for one in body["schedules"]
    ]  # fmt: skip
    titles = ("SCHEDULE", "PLAN", "KIND", "STATE", "NEXT", "LAST", "JOB", "")
    print(style.table(titles, rows), end="")


@schedule.command()
@common
@click.argument("name")
@pass_session
def show(session: Session, name: str) -> None:
    """Show a schedule, and what became of its last times."""
    body = session.client().call("schedule.show", name=name)
    if session.as_json:
        emit(body)
        return
    print(f"schedule {name}: {body['plan']}, {body['state']}"
          + (f" ({body['detail']})" if body["detail"] else ""))  # fmt: skip
    print(f"  job        {body['kind']} in {body['queue']}")
    print(f"  next       {_when(body['next'])}")
    print(f"  since      {_when(body['since'])}")
    rules = f"misfire {body['misfire']}, overlap {body['overlap']}"
    for label, key in (("start deadline", "start_deadline_seconds"), ("splay", "splay_seconds")):
        if body[key]:
            rules += f", {label} {style.duration(body[key])}"
    print(f"  rules      {rules}")
    if body["job"]:
        print(f"  last job   {_job(body)}")
    for one in body["slots"]:
        print(f"  {_when(one['slot'])}  " + (f"job {one['job']}" if one["job"] else one["reason"]))


@schedule.command()
@common
@click.argument("name")
@click.option("--count", type=click.IntRange(1, 1000), default=10, help="Runs (default: 10).")
@click.option("--from", "start", metavar="TIME", help="From then, as 2026-03-08 (default: now).")
@pass_session
def preview(session: Session, name: str, count: int, start: str | None) -> None:
    """Tell when a schedule fires, and what changes of the clock do to it."""
    asked: dict[str, Any] = {"name": name, "count": count}
    if start:
        asked["start"] = start
    body = session.client().call("schedule.preview", **asked)
    if session.as_json:
        emit(body)
        return
    rows = [
        (
            one["local"], _when(one["at"]), one["mark"],
            "; ".join(filter(None, (one["words"], _starts(one)))),
        )
        for one in body["runs"]
    ]  # fmt: skip
    print(body["plan"])
    print(style.table(("LOCAL", "UTC", "MARK", ""), rows), end="")
    if not rows:
        print("it never fires again")


@schedule.command()
@common
@click.argument("name")
@pass_session
def run(session: Session, name: str) -> None:
    """Enqueue a schedule's job now, beside its plan."""
    body = session.client().call("schedule.run", name=name)
    if session.as_json:
        emit(body)
        return
    print(f"{name}: job {body['job']} is enqueued")


@schedule.command()
@common
@click.argument("name")
@pass_session
def pause(session: Session, name: str) -> None:
    """Have a schedule fire no more, until it is resumed; also over a restart."""
    _paused(session, session.client().call("schedule.pause", name=name))


@schedule.command()
@common
@click.argument("name")
@pass_session
def resume(session: Session, name: str) -> None:
    """Have a schedule fire again; what was due in between is not made up for."""
    _paused(session, session.client().call("schedule.resume", name=name))


def _paused(session: Session, body: dict[str, Any]) -> None:
    if session.as_json:
        emit(body)
        return
    print(f"{body['name']} is {'paused' if body['paused'] else 'waiting for its next time'}")


def _when(text: str | None) -> str:
    return f"{style.moment(text):%Y-%m-%d %H:%M:%SZ}" if text else "-"


def _job(one: dict[str, Any]) -> str:
    if not one["job"]:
        return "-"
    return f"{one['job']} ({one['job_state'] or 'forgotten'})"


def _starts(one: dict[str, Any]) -> str:
    """When a run begins that is put off."""
    return f"starts {_when(one['starts'])}" if one["starts"] not in (None, one["at"]) else ""
