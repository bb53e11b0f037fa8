"""`atlasctl health` and `atlasctl checks`."""

from typing import Any

import click

from atlasd.cli import style
from atlasd.cli.options import common, complete_services, pass_session
from atlasd.cli.session import Session, emit
from atlasd.errors import EXIT_OK, EXIT_UNHEALTHY


@click.command()
@common
@click.argument("service", required=False, shell_complete=complete_services)
@pass_session
def health(session: Session, service: str | None) -> int:
    """Show the health of the host, or of SERVICE; exit code 8 when it is fail."""
    client = session.client()
    if service is None:
        body = client.call("health")
    else:
        body = client.call("health.service", service=service)
    if session.as_json:
        emit(body)
    else:
        print("\n".join(lines(body)))
    return EXIT_UNHEALTHY if body["status"] == "fail" else EXIT_OK


def lines(body: dict[str, Any]) -> list[str]:
    """A health body as a person reads it."""
    head = style.word(body["status"])
    if body.get("output"):
        head += f": {body['output']}"
    told = [head, *(body.get("notes") or ())]
    for name, verdicts in body["checks"].items():
        for verdict in verdicts:
            which = f" {verdict['componentId']}" if verdict.get("componentId") else ""
            line = f"  {style.word(verdict['status'])}  {name}{which}"
            if verdict.get("observedValue") is not None:
                line += f" = {verdict['observedValue']}{verdict.get('observedUnit') or ''}"
            if verdict.get("output"):
                line += f": {verdict['output']}"
            told.append(line)
    return told


@click.command()
@common
@pass_session
def checks(session: Session) -> None:
    """Show the last verdict of every configured check."""
    body = session.client().call("checks")
    if session.as_json:
        emit(body)
        return
    if not body["checks"]:
        print("no checks are configured")
        return
    rows = [
        (
            check["name"],
            check["type"],
            check["status"],
            check["service"] or "",
            style.since(check["time"]),
            check["output"].partition("\n")[0],
        )
        for check in body["checks"]
    ]
    titles = ("CHECK", "TYPE", "STATUS", "SERVICE", "SINCE", "OUTPUT")
    print(style.table(titles, rows, right=frozenset({"SINCE"})), end="")
