"""`atlasctl version|shutdown|upgrade`: the daemon itself."""

import time
from pathlib import Path

import click

from atlasd import __version__
from atlasd.cli import style
from atlasd.cli.options import common, pass_session
from atlasd.cli.session import Session, emit, options
from atlasd.errors import AtlasError


@click.command()
@common
@pass_session
def version(session: Session) -> None:
    """Show the versions of atlasctl and of the daemon's roles."""
    try:
        daemon = session.client().call("version")
    except AtlasError as error:
        if error.code != "core.unreachable":
            raise
        daemon = None
    if session.as_json:
        emit({"atlasctl": __version__, "daemon": daemon})
        return
    print(f"atlasctl  {__version__}")
    if daemon is None:
        print("no daemon answers")
        return
    for role in ("core", "services"):
        running = daemon[role]
        if running is None:
            print(f"{role:9} is gone")
        else:
            print(f"{role:9} {running['version']}  pid {running['pid']}")


@click.command()
@common
@click.option(
    "--keep-services",
    is_flag=True,
    help="Leave the services running; the next daemon adopts them.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until it has ended.",
)
@click.option("--no-wait", is_flag=True, help="Return as soon as it has begun.")
@pass_session
def shutdown(session: Session, keep_services: bool, timeout: float, no_wait: bool) -> None:
    """Stop the daemon, and its services too unless they are to be kept."""
    client = session.client()
    if not session.as_json:
        names = [service["name"] for service in client.call("status")["services"]]
        print(_intention(names, keep_services=keep_services), flush=True)
    began = time.monotonic()
    body = client.call("shutdown", **options(keep_services=keep_services))
    while not no_wait and client.alive():
        if time.monotonic() - began > timeout:
            raise AtlasError(
                "service.timeout",
                f"the daemon still answers after {timeout:g} s",
                hint="`atlasctl status` shows which service takes so long to stop",
            )
        time.sleep(0.05)
    if session.as_json:
        emit(body)
    elif not no_wait:
        print(f"stopped in {style.duration(time.monotonic() - began)}")


def _intention(names: list[str], *, keep_services: bool) -> str:
    if not names:
        return "stopping atlasd; it has no services"
    told = f"{style.count(len(names), 'service')}: {', '.join(names[:8])}"
    more = ", …" if len(names) > 8 else ""
    if keep_services:
        return f"stopping atlasd; left running: its {told}{more}"
    return f"stopping atlasd and its {told}{more} (--keep-services leaves them running)"


@click.command()
@common
@click.argument("executable", required=False, type=click.Path(exists=True))
@pass_session
def upgrade(session: Session, executable: str | None) -> None:
    """Replace the program of the services role in place; the services run on.

    EXECUTABLE is the Python interpreter of the new atlasd; by default the present one. If the new
    program does not come up, the old one takes its place again.
    """
    if executable is not None:
        # Absolute, but no link is followed: an environment's interpreter is known by its place.
        executable = str(Path(executable).absolute())
    body = session.client(timeout=120.0).call(
        "services-role.upgrade", **options(executable=executable)
    )
    if session.as_json:
        emit(body)
        return
    print(f"the services role runs {body['version']}, pid {body['pid']}; no service was touched")
