"""`atlasctl breaker …`: the circuit breakers of what jobs call."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit

_new = click.option("--new", is_flag=True, help="Also where no job is known to call it yet.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
def breaker() -> None:
    """See and force the circuit breakers of what jobs call."""


@breaker.command(name="list")
@common
@pass_session
def list_(session: Session) -> None:
    """List the breakers, and what they counted within the last minute."""
    body = session.client().call("breaker.list")
    if session.as_json:
        emit(body)
        return
    rows = [_row(one) for one in body["breakers"]]
    titles = ("TARGET", "STATE", "CALLS", "FAILURES", "SLOW", "TRIPS", "PROBE IN")
    print(style.table(titles, rows, right=frozenset(titles[2:])), end="")


@breaker.command()
@common
@click.argument("target")
@pass_session
def show(session: Session, target: str) -> None:
    """Show one breaker, and what follows from its state."""
    _tell(session, session.client().call("breaker.show", target=target))


@breaker.command(name="open")
@common
@click.argument("target")
@_new
@pass_session
def open_(session: Session, target: str, new: bool) -> None:
    """Hold every job of a target until the breaker is closed by hand."""
    _set(session, target, "forced_open", new=new)


@breaker.command()
@common
@click.argument("target")
@pass_session
def close(session: Session, target: str) -> None:
    """Give a breaker back to its rules, closed, with nothing counted."""
    _set(session, target, "closed")


@breaker.command()
@common
@click.argument("target")
@pass_session
def reset(session: Session, target: str) -> None:
    """Do the same as `close`: forget what was counted, and begin anew."""
    _set(session, target, "closed")


@breaker.command()
@common
@click.argument("target")
@click.option("--count", is_flag=True, help="Go on counting, for the metrics.")
@_new
@pass_session
def disable(session: Session, target: str, count: bool, new: bool) -> None:
    """Let jobs of a target through whatever happens."""
    _set(session, target, "metrics_only" if count else "disabled", new=new)


MEANINGS = {
    "closed": "its jobs are run",
    "open": "its jobs wait; a probe is let through when the time is over",
    "half_open": "probes are let through, one at a time unless configured otherwise",
    "forced_open": "its jobs wait until `atlasctl breaker close {target}`",
    "disabled": "its jobs are run whatever happens, until `atlasctl breaker close {target}`",
    "metrics_only": "its jobs are run whatever happens, and counted, until `atlasctl breaker "
    "close {target}`",
}


def _set(session: Session, target: str, state: str, *, new: bool = False) -> None:
    _tell(session, session.client().call("breaker.set", target=target, state=state, new=new))


def _tell(session: Session, body: dict[str, Any]) -> None:
    if session.as_json:
        emit(body)
        return
    target, state = body["target"], body["state"]
    print(f"the breaker of {target} is {state}: {MEANINGS[state].format(target=target)}")
    if body["half_open_in_seconds"] is not None:
        print(f"  a probe comes in {style.duration(body['half_open_in_seconds'])}, after "
              f"{style.count(body['trips'], 'trip')} in a row")  # fmt: skip
    if body["calls"]:
        print(f"  within the last minute {style.count(body['calls'], 'call')}: "
              f"{body['failures']} failed, {body['slow']} were slow")  # fmt: skip


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    probe = one["half_open_in_seconds"]
    return (
        one["target"], one["state"], str(one["calls"]), str(one["failures"]), str(one["slow"]),
        str(one["trips"]), "-" if probe is None else style.duration(probe),
    )  # fmt: skip
