"""`atlasctl`: asks a running atlasd; every command is one client of the control socket."""

import sys

from atlasd.cli.session import Session, guarded


def main() -> int:
    """The program; gives the exit code."""
    arguments = sys.argv[1:]
    session = _plain_status(arguments)
    if session is not None:
        return guarded("atlasctl", session, lambda: _show(session))
    from atlasd.cli.commands import atlasctl
    from atlasd.cli.options import run

    return run(atlasctl, "atlasctl", arguments)


def _plain_status(arguments: list[str]) -> Session | None:
    """The options of a plain `status`; None for everything else.

    It is what people and dashboards ask every few seconds, and loading a library to parse that one
    word would take half of the time that it takes.
    """
    session = Session()
    words = iter(arguments)
    asked = False
    for word in words:
        if word == "status" and not asked:
            asked = True
        elif word == "--json":
            session.as_json = True
        elif word in ("--root", "--socket"):
            value = next(words, "")
            if not value or value.startswith("-"):
                return None
            setattr(session, word[2:], value)
        else:
            return None
    return session if asked else None


def _show(session: Session) -> int:
    from atlasd.cli.overview import show

    show(session)
    return 0


if __name__ == "__main__":
    sys.exit(main())
