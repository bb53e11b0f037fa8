"""The dialect of `docker run --env-file`: NAME=VALUE, the value as it stands to the line's end.

No quotes, no escapes, no expansion, no comments behind a value. A NAME alone is taken from the
process.
"""

from collections.abc import Mapping

from atlasd.contracts.config import Layer
from atlasd_plugins.config_dotenv.reading import Reading, Refused

_SPACES = " \t"


def parse(text: str, origin: str, variables: Mapping[str, str]) -> Layer:
    """The variables of a text; see `atlasd.contracts.config.ParseVariables`."""
    reading = Reading(text, origin, variables)
    while not reading.over():
        start = reading.at
        reading.skip_line()
        line = reading.text[start : reading.at].removesuffix("\n").removesuffix("\r")
        try:
            _line(reading, line, start)
        except Refused as refused:
            reading.refuse(refused)
    return reading.layer()


def _line(reading: Reading, line: str, start: int) -> None:
    stripped = line.lstrip(_SPACES)
    if not stripped or stripped.startswith("#"):
        return
    at = start + len(line) - len(stripped)
    name, equals, value = stripped.partition("=")
    if not name:
        raise Refused(at, "NAME=VALUE", "no name")
    if any(space in name for space in _SPACES):
        hint = "docker knows no export" if name.startswith("export ") else ""
        raise Refused(at, "a name without spaces", "a name with a space", hint)
    if not equals:
        inherited = reading.process.get(name)
        if inherited is None:
            reading.fault(
                at,
                got="a name without a value, which the process has not either",
                hint="it is not set; write NAME= for an empty value",
                warning=True,
            )
            return
        value = inherited
    elif len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        reading.fault(
            at + len(name) + 1,
            got="quotes, which docker takes for a part of the value",
            hint="remove them, or read the file in another dialect",
            path=(name,),
            warning=True,
        )
    reading.note(name, value, name_at=at, value_at=at + len(name) + bool(equals))
