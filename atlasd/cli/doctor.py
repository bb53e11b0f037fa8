"""`atlasctl doctor`."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit


@click.command()
@common
@pass_session
def doctor(session: Session) -> None:
    """Show what this host offers atlasd, and what is reduced where something is missing."""
    body = session.client().call("doctor")
    if session.as_json:
        emit(body)
        return
    print("\n".join(lines(body)))


def lines(body: dict[str, Any]) -> list[str]:
    """The capabilities as a person reads them, and a last line that counts what is missing."""
    told = []
    missing = 0
    width = max((len(c["name"]) for c in body["capabilities"]), default=0)
    for capability in body["capabilities"]:
        there = capability["available"]
        missing += not there
        mark = style.word("pass" if there else "warn")
        told.append(f"{mark}  {capability['name']:{width}}  {capability['detail']}".rstrip())
        if not there:
            if capability["reduced"]:
                told.append(f"      reduced: {capability['reduced']}")
            if capability["hint"]:
                told.append(f"      to have it: {capability['hint']}")
    told.append(
        f"{style.count(missing, 'thing is', 'things are')} missing; atlasd works without"
        if missing
        else "nothing is missing"
    )
    return told
