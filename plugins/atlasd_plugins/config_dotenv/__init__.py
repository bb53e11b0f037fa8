"""Variables from .env files, each read as one of the four programs that know such files reads it.

The same line means different things to them: quotes, `#`, `$`, backslashes and line ends. So
nothing is guessed: who names a file names its dialect.
"""

from collections.abc import Mapping

from atlasd import hookimpl
from atlasd.contracts.config import ConfigSource, Layer

ATLASD_API = 1


@hookimpl
def register_config_sources() -> list[ConfigSource]:
    """The `dotenv` source."""
    return [
        ConfigSource(
            name="dotenv",
            summary=".env files in the dialects of bash, docker, compose and systemd",
            suffixes=(".env",),
            dialects={
                "bash": as_bash,
                "docker": as_docker,
                "compose": as_compose,
                "systemd": as_systemd,
            },
        )
    ]


# The dialects are imported late: who has no .env file needs none of them.


def as_bash(text: str, origin: str, variables: Mapping[str, str], /) -> Layer:
    """Read as `set -a; . FILE` does, as far as that needs no command to be run."""
    from atlasd_plugins.config_dotenv.bash import parse

    return parse(text, origin, variables)


def as_docker(text: str, origin: str, variables: Mapping[str, str], /) -> Layer:
    """Read as `docker run --env-file FILE` does."""
    from atlasd_plugins.config_dotenv.docker import parse

    return parse(text, origin, variables)


def as_compose(text: str, origin: str, variables: Mapping[str, str], /) -> Layer:
    """Read as `docker compose` does."""
    from atlasd_plugins.config_dotenv.compose import parse

    return parse(text, origin, variables)


def as_systemd(text: str, origin: str, variables: Mapping[str, str], /) -> Layer:
    """Read as `EnvironmentFile=FILE` of a unit does."""
    from atlasd_plugins.config_dotenv.systemd import parse

    return parse(text, origin, variables)
