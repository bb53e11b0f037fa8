"""`atlasctl plan` and `atlasctl apply`."""

from typing import Any

import click

from atlasd.cli import style, waiting
from atlasd.cli.options import common, pass_session
from atlasd.cli.outcome import Goal
from atlasd.cli.session import Session, emit
from atlasd.errors import AtlasError

_GOALS = {
    "start": Goal.STARTED,
    "restart": Goal.RESTARTED,
    "stop": Goal.STOPPED,
    "deliver": Goal.DELIVERED,
}


@click.command()
@common
@pass_session
def plan(session: Session) -> None:
    """Show what `apply` would do to which instance, and why; change nothing."""
    body = session.client().call("plan")
    if session.as_json:
        emit(body)
        return
    print("\n".join(lines(body)))


@click.command()
@common
@waiting.waits
@pass_session
def apply(session: Session, no_wait: bool, timeout: float) -> int:
    """Read the configuration anew, do what the plan says, and wait for the outcome.

    An invalid configuration changes nothing.
    """
    client = session.client()
    say = waiting.nothing if session.as_json else waiting.tell
    with waiting.open_events(client) as events:
        # Who runs now is needed to tell a new run of an instance from the one before it.
        named = {action["service"] for action in client.call("plan")["actions"]}
        before = {service: waiting.instances_of(client, service) for service in named}
        body = client.call("apply")
        for line in lines(body):
            say(line)
        asks = [
            waiting.Ask(
                service=action["service"],
                index=action["instance"],
                goal=_GOALS[action["action"]],
                before=before.get(action["service"], {}).get(action["instance"]),
            )
            for action in body["actions"]
            if action["action"] in _GOALS
        ]
        if not no_wait and asks:
            waiting.wait(client, events, asks, timeout=timeout, say=say)
    return _finish(session, body, asks, timeout, waited=not no_wait)


def _finish(
    session: Session,
    body: dict[str, Any],
    asks: list[waiting.Ask],
    timeout: float,
    *,
    waited: bool,
) -> int:
    errors: list[AtlasError] = []
    if waited:
        for service in dict.fromkeys(ask.service for ask in asks):
            of_service = [ask for ask in asks if ask.service == service]
            error = waiting.failure(service, "brought to its plan", of_service, timeout)
            if error is not None:
                errors.append(error)
    if session.as_json:
        rows = [{"service": a.service, **waiting.as_json([a])[0]} for a in asks] if waited else []
        emit({**body, "outcomes": rows})
    elif waited and asks and not errors:
        waiting.tell(f"applied in {style.duration(max(ask.seconds for ask in asks))}")
    for error in errors:
        waiting.complain(error)
    return errors[0].kind.exit if errors else 0


def lines(body: dict[str, Any]) -> list[str]:
    """A plan as a person reads it: a line for each step, and one for all that stays."""
    told = []
    for action in body["actions"]:
        name = f"{action['service']}/{action['instance']}"
        told.append(f"{action['action']:8}{name}: {action['detail'] or action['reason']}")
    told += [f"also    {note}" for note in body["notes"]]
    unchanged = style.count(body["unchanged"], "instance")
    if not told:
        return [f"nothing to do: {unchanged} as configured"]
    return [*told, f"{style.count(len(body['actions']), 'step')}, {unchanged} unchanged"]
