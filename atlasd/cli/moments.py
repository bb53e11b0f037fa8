"""Times as people give them: `2h` ago, or a moment with its date."""

import re
from datetime import UTC, datetime, timedelta

from atlasd.errors import AtlasError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/([smh]))?")


def moment(text: str, option: str, now: datetime | None = None) -> str:
    """A time for the wire. Raises `AtlasError` `usage`; `option` names what was given."""
    now = now or datetime.now(UTC)
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return (now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])).isoformat()
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise AtlasError(
            "usage", f"{option}: {text!r} is no time",
            hint="write how long ago it is, as 30m, 2h or 7d, or 2026-11-23T17:44",
        ) from None  # fmt: skip
    return (found if found.tzinfo is not None else found.astimezone()).isoformat()


def per_second(text: str) -> float:
    """A rate as `5/s` or `30/m`, in times a second. Raises `AtlasError` `usage`."""
    found = _RATE.fullmatch(text)
    value = float(found[1]) / _UNITS[found[2] or "s"] if found is not None else 0.0
    if not 0 < value <= 10_000:
        raise AtlasError("usage", f"--rate: {text!r} is no rate", hint="write 5/s, or 30/m")
    return value


def part(text: str) -> float:
    """A part as `20%`, or as 0.2. Raises `AtlasError` `usage`."""
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise AtlasError("usage", f"--stop-on-fail: {text!r} is no part", hint="write 20%")
    return value
