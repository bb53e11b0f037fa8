"""`atlasctl breaker …`: the circuit breakers of what jobs call."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit


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


@breaker.command(name="open")
@common
@click.argument("target")
@pass_session
def open_(session: Session, target: str) -> None:
    """Hold every job of a target until the breaker is closed by hand."""
    _set(session, target, "forced_open")


@breaker.command()
@common
@click.argument("target")
@pass_session
def close(session: Session, target: str) -> None:
    """Give a breaker back to its rules, closed."""
    _set(session, target, "closed")


@breaker.command()
@common
@click.argument("target")
@click.option("--count", is_flag=True, help="Go on counting, for the metrics.")
@pass_session
def disable(session: Session, target: str, count: bool) -> None:
    """Let jobs of a target through whatever happens."""
    _set(session, target, "metrics_only" if count else "disabled")


def _set(session: Session, target: str, state: str) -> None:
    body = session.client().call("breaker.set", target=target, state=state)
    if session.as_json:
        emit(body)
        return
    print(f"the breaker of {body['target']} is {body['state']}")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    probe = one["half_open_in_seconds"]
    return (
        one["target"], one["state"], str(one["calls"]), str(one["failures"]), str(one["slow"]),
        str(one["trips"]), "-" if probe is None else style.duration(probe),
    )  # fmt: skip
