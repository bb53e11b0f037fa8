"""`atlasd` and `python -m atlasd`: run a role of the daemon."""

import sys

# As in `atlasd/__init__.py`: the services role comes through here and shall not load typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Daemon:
    """The composition, loaded when it is first used: `atlasd --help` needs none of it."""

    def __getattr__(self, name: str) -> "Any":
        from atlasd import daemon

        return getattr(daemon, name)


def main() -> int:
    """The program; gives the exit code.

    The services role is started before anything else is imported: what it never loads it need not
    keep in memory for as long as the host is up.
    """
    if sys.argv[1:2] == ["services"]:
        from atlasd.services.main import main as services

        return services(sys.argv[2:])
    from atlasd.cli.roles import main as roles

    return roles(_Daemon())


if __name__ == "__main__":
    sys.exit(main())
