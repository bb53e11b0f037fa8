"""`$NAME` and `${NAME:-default}` in values, as shells and compose know them."""

import re
from collections.abc import Callable

from atlasd_plugins.config_dotenv.reading import NAME, Reading, Refused

_OPERATOR = re.compile(r":?[-+?]|\}")
KNOWN = "$NAME, ${NAME}, or ${NAME} with :- - :+ + :? ?"


def expand(reading: Reading, word: Callable[[Reading], str]) -> str | None:
    """What the `$` here stands for; None where it is a plain one.

    `word` reads the word behind an operator, up to and without its `}`. Raises `Refused` for what
    neither of the programs expands without running anything.
    """
    start = reading.at
    following = reading.text[start + 1 : start + 2]
    if following != "{":
        found = NAME.match(reading.text, start + 1)
        if found is None:
            return None
        reading.at = found.end()
        return reading.look_up(found[0], start) or ""
    found = NAME.match(reading.text, start + 2)
    if found is None:
        raise Refused(start, KNOWN, "another expansion")
    reading.at = found.end()
    operator = reading.match(_OPERATOR)
    if operator is None:
        raise Refused(start, KNOWN, "another expansion")
    if operator[0] == "}":
        return reading.look_up(found[0], start) or ""
    text = word(reading)
    if reading.char != "}":
        raise Refused(start, "a closing }", "none")
    reading.at += 1
    return _chosen(reading, found[0], operator[0], text, start)


def _chosen(reading: Reading, name: str, operator: str, text: str, start: int) -> str:
    value = reading.look_up(name, start, told=False)
    missing = value is None or (operator.startswith(":") and not value)
    if operator.endswith("-"):
        return text if missing else value or ""
    if operator.endswith("+"):
        return "" if missing else text
    if missing:
        raise Refused(start, f"the variable {name} to be set", "none", "the file demands it with ?")
    return value or ""
