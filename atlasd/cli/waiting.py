"""Waits for what becomes of an operation, by the stream of events, and tells it as it happens."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click

from atlasd.cli.options import F
from atlasd.cli.outcome import Detail, Goal, Result, Verdict, judge, left_alone
from atlasd.cli.style import duration
from atlasd.control.client import Client, LineStream
from atlasd.errors import AtlasError

# Events are what is waited for. Should one be lost, a look at the state now and then finds out.
_LOOK_AGAIN = 2.0
_TOGETHER = 0.01
_UNSEEN = Verdict(Result.PENDING, "")


def waits(command: F) -> F:
    """Add `--no-wait` and `--timeout` to a command that waits for its outcome."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.0),
            default=120.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for the outcome.",
        ),
        click.option(
            "--no-wait", is_flag=True, help="Return as soon as the daemon has taken it on."
        ),
    ):
        command = option(command)
    return command


@dataclass(kw_only=True, slots=True)
class Ask:
    """One instance of which something is wanted."""

    service: str
    index: int
    goal: Goal
    before: Detail | None
    verdict: Verdict = _UNSEEN
    seconds: float = 0.0
    shown: str = ""
    """What was last told of it."""

    @property
    def name(self) -> str:
        """The instance as it is written everywhere: `web/0`."""
        return f"{self.service}/{self.index}"


def instances_of(client: Client, service: str) -> dict[int, Detail]:
    """The instances of a service by index; none when there is no such service."""
    try:
        body = client.call("service", service=service)
    except AtlasError as error:
        if error.code == "service.unknown":
            return {}
        raise
    return {instance["index"]: instance for instance in body["instances"]}


def open_events(client: Client) -> LineStream:
    """New events from now on; to be opened before anything is asked, so that none is missed."""
    return client.stream("events", follow=True, limit=0)


def wait(
    client: Client,
    events: LineStream,
    asks: Iterable[Ask],
    *,
    timeout: float,
    say: Callable[[str], object] | None,
) -> None:
    """Watch until each ask is done or has failed, or `timeout` seconds are over.

    Verdicts are left in the asks; `say` is told of each change of state.
    """
    began = time.monotonic()
    asks = list(asks)
    pending = asks
    look_at = {ask.service for ask in pending}
    while True:
        for service in look_at:
            now = instances_of(client, service)
            for ask in pending:
                if ask.service == service:
                    _consider(ask, now.get(ask.index), began, say)
            _consider_roll([ask for ask in asks if ask.service == service], now)
        pending = [ask for ask in pending if ask.verdict.result is Result.PENDING]
        left = began + timeout - time.monotonic()
        if not pending or left <= 0:
            return
        look_at = _touched(events, min(left, _LOOK_AGAIN)) or {ask.service for ask in pending}


def _touched(events: LineStream, timeout: float) -> set[str]:
    """The services that the next events are about; empty: look at all of them."""
    touched: set[str] = set()
    try:
        while True:
            # What comes in a bunch is looked at once.
            event = events.read(_TOGETHER if touched else timeout)
            if event is None:
                raise AtlasError(
                    "core.unreachable",
                    "core ended the stream of events before the outcome was known",
                    hint="`atlasctl status` shows how things are",
                )
            if event["kind"] == "events-lost":
                return set()
            service = event.get("service")
            if isinstance(service, str):
                touched.add(service)
    except TimeoutError:
        return touched


def _consider(
    ask: Ask, now: Detail | None, began: float, say: Callable[[str], object] | None
) -> None:
    ask.verdict = judge(ask.goal, ask.before, now)
    ask.seconds = round(time.monotonic() - began, 3)
    # The first look shows how things were: only a change, or the end, is news.
    news = ask.verdict.text
    if say is not None and news != ask.shown:
        first = not ask.shown
        if not first or ask.verdict.result is not Result.PENDING:
            say(f"{ask.name} {news}")
        ask.shown = news or " "


def _consider_roll(asks: list[Ask], now: dict[int, Detail]) -> None:
    # Instances are restarted one by one, and when one fails the others are left as they are.
    if any(ask.goal is Goal.RESTARTED and ask.verdict.result is Result.FAILED for ask in asks):
        for ask in asks:
            waits = ask.goal is Goal.RESTARTED and ask.verdict.result is Result.PENDING
            if waits and left_alone(ask.before, now.get(ask.index)):
                ask.verdict = Verdict(Result.FAILED, "left as it was")


def summary(service: str, done: str, asks: list[Ask]) -> str:
    """One line about a service whose asks were all met."""
    return f"{service}: {done} in {duration(max(ask.seconds for ask in asks))}"


def as_json(asks: list[Ask]) -> list[dict[str, Any]]:
    """The asks as `--json` shows them."""
    return [
        {
            "index": ask.index,
            "result": ask.verdict.result.value,
            "detail": ask.verdict.text,
            "seconds": ask.seconds,
        }
        for ask in asks
    ]


def failure(service: str, verb: str, asks: list[Ask], timeout: float) -> AtlasError | None:
    """What is to be said when not every ask was met, else None."""
    failed = [ask for ask in asks if ask.verdict.result is Result.FAILED]
    late = [ask for ask in asks if ask.verdict.result is Result.PENDING]
    if failed:
        what = "; ".join(f"{ask.name}: {ask.verdict.text}" for ask in failed[:3])
        return AtlasError(
            "service.failed",
            f"{service} could not be {verb}: {what}",
            hint=f"`atlasctl why {service}` tells how it came to this",
        )
    if late:
        what = "; ".join(f"{ask.name} is {ask.verdict.text}" for ask in late[:3])
        return AtlasError(
            "service.timeout",
            f"{service} was not {verb} within {timeout:g} s: {what}",
            hint=f"it goes on; see `atlasctl status {service}`, or wait longer with --timeout",
        )
    return None


def tell(line: str) -> None:
    """Print a line at once: whoever reads it may be waiting for it."""
    print(line, flush=True)


def nothing(line: str) -> None:
    """Say nothing, for `--json`."""
    del line


def complain(error: AtlasError) -> None:
    """Print one service's error among several."""
    print(f"atlasctl: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"atlasctl: {error.hint}", file=sys.stderr)
