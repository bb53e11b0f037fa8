"""Settings of what plugins supply: strict models, and values as operators write them."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|[smhdw])\s*")


class Settings(BaseModel):
    """What settings models have in common: strict, frozen, unknown keys refused.

    Give each field a description: the reference is made from it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NoSettings(Settings):
    """For what has nothing to be set."""


def parse_duration(text: str) -> timedelta:
    """A duration as operators write it: `500ms`, `30s`, `1h 30m`.

    Raises `ValueError` with a sentence for anything else.
    """
    rest = text.strip()
    seconds = 0.0
    if not rest:
        raise ValueError("expected a duration such as '30s' or '1h 30m'")
    while rest:
        part = _PART.match(rest)
        if part is None:
            raise ValueError(f"{text!r} is not a duration such as '500ms', '30s' or '1h 30m'")
        seconds += float(part[1]) * _UNITS[part[2]]
        rest = rest[part.end() :]
    return timedelta(seconds=seconds)


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("expected a duration in quotes and with its unit, such as '30s'")


Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=str)]
"""A `timedelta` field that is written `"30s"` in a configuration file."""
