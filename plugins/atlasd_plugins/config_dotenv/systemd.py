r"""The dialect of systemd's EnvironmentFile=.

    # a comment, as is a line that begins with ;
    NAME=some words # with this       spaces inside count, and # is a part of the value
    NAME = value                      spaces around the = do not
    NAME='as it stands, over several lines if need be'
    NAME="with \" \\ \` \$"           other backslashes in double quotes stand for themselves
    NAME=a line that \                goes on in the next one

No variable is expanded.
"""

import re
from collections.abc import Mapping

from atlasd.contracts.config import Layer
from atlasd_plugins.config_dotenv.reading import Reading, Refused, name_here

_BLANK = re.compile(r"[ \t\n\r]+")
_SPACE = re.compile(r"[ \t]*")
_ESCAPED = '"\\`$'


def parse(text: str, origin: str, variables: Mapping[str, str]) -> Layer:
    """The variables of a text; see `atlasd.contracts.config.ParseVariables`."""
    reading = Reading(text, origin, variables)
    while not reading.over():
        reading.match(_BLANK)
        if reading.over():
            break
        if reading.char in "#;":
            reading.skip_line()
            continue
        try:
            _statement(reading)
        except Refused as refused:
            reading.refuse(refused)
            reading.skip_line()
    return reading.layer()


def _statement(reading: Reading) -> None:
    name_at = reading.at
    name = name_here(reading, spaces=True)
    reading.match(_SPACE)
    value_at = reading.at
    value: list[str] = []
    # After a closing quote, spaces are skipped, and what follows is a part of the value.
    while reading.char in ("'", '"'):
        value.append(_single(reading) if reading.char == "'" else _double(reading))
        reading.match(_SPACE)
    value.append(_bare(reading))
    reading.note(name, "".join(value), name_at=name_at, value_at=value_at)


def _bare(reading: Reading) -> str:
    """The rest of the line, and of lines that a backslash joins to it, less spaces at its end."""
    value = ""
    kept = 0
    while not reading.ends_line():
        char = reading.char
        reading.at += 1
        if char == "\\":
            # An escaped line end joins the next line to this one.
            joins = reading.ends_line()
            reading.at += reading.text.startswith("\r\n", reading.at)
            value += "" if joins else reading.char
            reading.at += 1
            kept = len(value)
        else:
            value += char
            if char not in " \t\r":
                kept = len(value)
    return value[:kept]


def _single(reading: Reading) -> str:
    start = reading.at
    end = reading.text.find("'", start + 1)
    if end < 0:
        raise Refused(start, "a closing '", "the end of the file")
    reading.at = end + 1
    return reading.text[start + 1 : end]


def _double(reading: Reading) -> str:
    start = reading.at
    reading.at += 1
    value = []
    while reading.char != '"':
        if reading.over():
            reading.at = start
            raise Refused(start, 'a closing "', "the end of the file")
        char = reading.char
        reading.at += 1
        if char == "\\" and not reading.over():
            escaped, reading.at = reading.char, reading.at + 1
            if escaped == "\n":
                continue
            char = escaped if escaped in _ESCAPED else char + escaped
        value.append(char)
    reading.at += 1
    return "".join(value)
