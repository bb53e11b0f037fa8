"""`atlasctl start|stop|restart|reload|pause|signal|scale`: operations on services."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import click

from atlasd.cli import style, waiting
from atlasd.cli.changes import reload_lines
from atlasd.cli.options import common, complete_services, pass_session
from atlasd.cli.outcome import Goal
from atlasd.cli.session import Session, emit, options, split_target
from atlasd.control.client import Client
from atlasd.errors import AtlasError


class Verb(NamedTuple):
    """An operation on services in the words that a person is told."""

    name: str
    operation: str
    doing: str
    done: str
    goal: Goal | None
    """None: nothing is waited for."""
    idle: str
    """What is said when no instance is concerned."""
    after: str = ""
    """What to know about it, with `{service}`."""


_START = Verb("start", "service.start", "starting", "started", Goal.STARTED, "runs already")
_STOP = Verb(
    "stop",
    "service.stop",
    "stopping",
    "stopped",
    Goal.STOPPED,
    "is stopped already",
    "it stays down until `atlasctl start {service}`",
)
_RESTART = Verb(
    "restart",
    "service.restart",
    "restarting",
    "restarted",
    Goal.RESTARTED,
    "has no instance to restart",
)
_RELOAD = Verb(
    "reload",
    "service.reload",
    "reloading",
    "reloaded",
    Goal.RELOADED,
    "has no running instance to reload",
)
_PAUSE = Verb(
    "pause",
    "service.pause",
    "leaving alone",
    "paused",
    None,
    "is paused",
    "what ends is not restarted until `atlasctl start {service}`",
)
_SIGNAL = Verb(
    "signal", "service.signal", "signalling", "signalled", None, "has no running instance"
)

# States in which there is nothing left to do for an instance.
_ALREADY = {Goal.STARTED: ("running",), Goal.STOPPED: ("stopped", "exited", "failed")}

_several = click.argument(
    "services",
    nargs=-1,
    metavar="SERVICE[/INSTANCE]...",
    shell_complete=complete_services,
)
_all = click.option("--all", "everything", is_flag=True, help="All services.")


@click.command()
@common
@_all
@waiting.waits
@_several
@pass_session
def start(session: Session, /, **given: Any) -> int:
    """Start services and wait until they run.

    A failed service is tried anew, with its failures forgotten.
    """
    return _carry_out(session, _START, **given)


@click.command()
@common
@_all
@waiting.waits
@_several
@pass_session
def stop(session: Session, /, **given: Any) -> int:
    """Stop services and wait until nothing of them is left.

    A stopped service stays down, also over a restart of the daemon, until it is started.
    """
    return _carry_out(session, _STOP, **given)


@click.command()
@common
@_all
@waiting.waits
@_several
@pass_session
def restart(session: Session, /, **given: Any) -> int:
    """Stop and start services, and wait until they run again."""
    return _carry_out(session, _RESTART, **given)


@click.command()
@common
@_all
@waiting.waits
@_several
@pass_session
def reload(session: Session, /, **given: Any) -> int:
    """Have services read their own configuration again; nothing is ever restarted.

    Without SERVICE, atlasd reads its own configuration again and takes over all that needs no
    restart; `atlasctl plan` shows what is left, `atlasctl apply` does it.
    """
    if not given["services"] and not given["everything"]:
        return _reload_atlasd(session)
    return _carry_out(session, _RELOAD, **given)


@click.command()
@common
@_all
@click.argument("services", nargs=-1, metavar="SERVICE...", shell_complete=complete_services)
@pass_session
def pause(session: Session, /, **given: Any) -> int:
    """Leave services as they are: what runs goes on, what ends is not restarted."""
    return _carry_out(session, _PAUSE, no_wait=True, timeout=0.0, **given)


@click.command()
@common
@_all
@click.argument("signal_", metavar="SIGNAL")
@_several
@pass_session
def signal(session: Session, /, signal_: str, **given: Any) -> int:
    """Send SIGNAL (HUP, SIGUSR1 or a number) to the main process of services."""
    return _carry_out(
        session, _SIGNAL, no_wait=True, timeout=0.0, extra={"signal": signal_.upper()}, **given
    )


@click.command()
@common
@waiting.waits
@click.argument("wishes", nargs=-1, required=True, metavar="SERVICE=NUMBER...")
@pass_session
def scale(session: Session, wishes: tuple[str, ...], no_wait: bool, timeout: float) -> int:
    """Change how many instances of services run: `atlasctl scale web=4 worker=2`."""
    wanted = [_wish(wish) for wish in wishes]
    client = session.client()
    say = waiting.nothing if session.as_json else waiting.tell
    report = _Report(session, "scaled", timeout)
    with waiting.open_events(client) as events:
        for service, number in wanted:
            try:
                before = waiting.instances_of(client, service)
                answer = client.call("service.scale", service=service, instances=number)
            except AtlasError as error:
                report.refused(service, error)
                continue
            actions = answer["actions"]
            told = style.count(number, "instance")
            say(f"{service}: {'scaling to' if actions else 'has'} {told}")
            asks = [
                waiting.Ask(
                    service=service,
                    index=action["instance"],
                    goal=Goal.STOPPED if action["action"] == "stop" else Goal.STARTED,
                    before=before.get(action["instance"]),
                )
                for action in actions
                if action["action"] in ("start", "stop")
            ]
            report.asked(service, asks)
        if not no_wait:
            waiting.wait(client, events, report.asks(), timeout=timeout, say=say)
    return report.finish(waited=not no_wait)


def _wish(wish: str) -> tuple[str, int]:
    service, equals, number = wish.partition("=")
    if not equals or not service or not (number.isascii() and number.isdecimal()):
        raise AtlasError(
            "usage", f"{wish!r} does not say how many of what", hint="write SERVICE=NUMBER: web=4"
        )
    return service, int(number)


def _reload_atlasd(session: Session) -> int:
    answer = session.client(timeout=90.0).call("config.reload")
    if session.as_json:
        emit(answer)
    else:
        print("\n".join(reload_lines(answer)))
    return 0


def _carry_out(
    session: Session,
    verb: Verb,
    *,
    services: tuple[str, ...],
    everything: bool,
    no_wait: bool,
    timeout: float,
    extra: dict[str, str] | None = None,
) -> int:
    client = session.client()
    targets = _targets(client, verb, services, everything=everything)
    say = waiting.nothing if session.as_json else waiting.tell
    report = _Report(session, verb.done, timeout)
    waited = verb.goal is not None and not no_wait
    # Opened first: what happens between the request and the first look is not missed.
    events = waiting.open_events(client) if waited else None
    try:
        for service, instance in targets:
            try:
                before = waiting.instances_of(client, service) if waited else {}
                fields = options(instance=instance, **(extra or {}))
                accepted = client.call(verb.operation, service=service, **fields)
            except AtlasError as error:
                report.refused(service, error)
                continue
            affected = accepted["affected"]
            idle = verb.goal in _ALREADY and all(
                index in before and before[index]["state"] in _ALREADY[verb.goal]
                for index in affected
            )
            say(_announcement(verb, service, affected, idle=idle))
            asks = [
                waiting.Ask(
                    service=service,
                    index=index,
                    goal=verb.goal or Goal.STARTED,
                    before=before.get(index),
                )
                for index in affected
                if not idle
            ]
            report.asked(service, asks)
        if events is not None:
            waiting.wait(client, events, report.asks(), timeout=timeout, say=say)
    finally:
        if events is not None:
            events.close()
    return report.finish(waited=waited)


def _targets(
    client: Client, verb: Verb, services: tuple[str, ...], *, everything: bool
) -> list[tuple[str, int | None]]:
    if everything and services:
        raise AtlasError(
            "usage", "--all and names of services exclude each other", hint="leave one out"
        )
    if everything:
        return [(service["name"], None) for service in client.call("status")["services"]]
    if not services:
        raise AtlasError(
            "usage",
            f"which service is to be {verb.done}?",
            hint=f"`atlasctl {verb.name} SERVICE...`, or --all; `atlasctl status` lists them",
        )
    return [split_target(target) for target in services]


def _announcement(verb: Verb, service: str, affected: list[int], *, idle: bool) -> str:
    if verb.goal is not None and (idle or not affected):
        return f"{service}: {verb.idle}"
    told = style.count(len(affected), "instance")
    line = f"{service}: {verb.doing if verb.goal else verb.done} {told}"
    return f"{line}; {verb.after.format(service=service)}" if verb.after else line


class _Report:
    """What came of each service, told at the end."""

    def __init__(self, session: Session, done: str, timeout: float) -> None:
        self._session = session
        self._done = done
        self._timeout = timeout
        self._asks: dict[str, list[waiting.Ask]] = {}
        self._errors: list[tuple[str, AtlasError]] = []

    def asked(self, service: str, asks: list[waiting.Ask]) -> None:
        """The daemon took it on."""
        self._asks.setdefault(service, []).extend(asks)

    def refused(self, service: str, error: AtlasError) -> None:
        """The daemon said no, or is not there: then it's no use to go on."""
        if error.code == "core.unreachable":
            raise error
        self._errors.append((service, error))

    def asks(self) -> Iterable[waiting.Ask]:
        """All of them."""
        return [ask for asks in self._asks.values() for ask in asks]

    def finish(self, *, waited: bool) -> int:
        """Print what is left to say; the exit code."""
        for service, asks in self._asks.items():
            if not waited or not asks:
                continue
            error = waiting.failure(service, self._done, asks, self._timeout)
            if error is not None:
                self._errors.append((service, error))
            elif not self._session.as_json:
                waiting.tell(waiting.summary(service, self._done, asks))
        if self._session.as_json:
            emit({"services": self._as_json(waited=waited)})
        for _, error in self._errors:
            waiting.complain(error)
        return self._errors[0][1].kind.exit if self._errors else 0

    def _as_json(self, *, waited: bool) -> list[dict[str, Any]]:
        errors = dict(self._errors)
        shown: list[dict[str, Any]] = []
        for service in {**self._asks, **errors}:
            asks = self._asks.get(service, [])
            error = errors.get(service)
            row: dict[str, Any] = {
                "service": service,
                "result": "failed" if error else self._done if waited else "accepted",
                "affected": [ask.index for ask in asks],
            }
            if waited:
                row["instances"] = waiting.as_json(asks)
            if error:
                row.update(error.to_wire())
            shown.append(row)
        return shown
