"""From what a producer says to a `NewJob`: one parser for every way in."""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from atlasd.contracts.queue import ON_CONFLICT, UNTIL_CLAIMED, UNTIL_FINISHED, NewJob
from atlasd.contracts.settings import parse_duration
from atlasd.errors import AtlasError, nearest

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
"""What a kind, a queue, a fair key, a target and a tag may be called."""
DEFAULT_QUEUE = "default"
ARGS_LIMIT = 1_048_576
"""Bytes that the arguments of one job may have: what is larger belongs into a file or a table."""
LONGEST = 366 * 86_400_000
"""Milliseconds; a longer delay is a mistake in its unit."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_PLAIN = frozenset({"kind", "queue", "args"})
_KEYS = (
    "kind", "queue", "args", "delay", "run_at", "priority", "max_attempts", "retry", "timeout",
    "stall_after", "expires_in", "fair_key", "target", "unique", "tags", "then", "keep_result",
)  # fmt: skip
_RETRY = {"base": "duration", "factor": "number", "cap": "duration", "jitter": "jitter",
          "within": "duration"}  # fmt: skip
_SCOPES = {"until_claimed": UNTIL_CLAIMED, "until_finished": UNTIL_FINISHED}


def new_job(said: Mapping[str, Any], where: str = "job") -> NewJob:
    """The job that a producer describes; raises `job.invalid` with the key that is wrong.

    `args` is an object, or the JSON text of one. Durations are text as `"5m"` or seconds.
    """
    kind, queue, args = said.get("kind"), said.get("queue", DEFAULT_QUEUE), said.get("args", {})
    _named(kind, f"{where}.kind")
    _named(queue, f"{where}.queue")
    text = arguments(args, f"{where}.args")
    if said.keys() <= _PLAIN:
        return NewJob(queue, kind, text)  # type: ignore[arg-type]
    for key in said:
        if key not in _KEYS:
            raise _invalid(f"{where}.{key}", "unknown key", nearest(key, _KEYS))
    run_at, delay = _when(said, where)
    unique_key, unique_until, on_conflict = _unique(said, where, str(kind), text)
    return NewJob(
        queue=queue,
        kind=str(kind),
        args=text,
        run_at=run_at,
        delay=delay,
        priority=_whole(said.get("priority", 5), f"{where}.priority", 0, 9),
        max_attempts=_whole(said.get("max_attempts", 10), f"{where}.max_attempts", 1, 1000),
        fair_key=_name_or_nothing(said, "fair_key", where),
        target=_name_or_nothing(said, "target", where),
        unique_key=unique_key,
        unique_until=unique_until,
        on_conflict=on_conflict,
        expires_in=duration(said.get("expires_in", 0), f"{where}.expires_in"),
        options=_options(said, where),
    )


def new_jobs(said: object, where: str = "jobs") -> list[NewJob]:
    """Several of them; the error says which is wrong."""
    if not isinstance(said, Sequence) or isinstance(said, str):
        raise _invalid(where, "expected a list of jobs")
    return [
        new_job(one, f"{where}[{index}]")
        if isinstance(one, Mapping)
        else _refuse(f"{where}[{index}]")
        for index, one in enumerate(said)
    ]


def arguments(args: object, where: str) -> str:
    """Arguments as JSON text."""
    if isinstance(args, str):
        try:
            parsed = json.loads(args)
        except ValueError as error:
            raise _invalid(where, f"no JSON: {error}") from None
        if type(parsed) is not dict:
            raise _invalid(where, "expected an object")
        text = args
    elif isinstance(args, Mapping):
        text = _encode(args)
    else:
        raise _invalid(where, "expected an object")
    _encodable(text, where)
    if len(text) > ARGS_LIMIT:
        hint = "put what is large into a file or a table, and its name into the job"
        raise _invalid(where, f"{len(text)} characters, at most {ARGS_LIMIT} are taken", hint)
    return text


def _encodable(text: str, where: str) -> None:
    """Refuse what no file and no database takes: half of a surrogate pair."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _invalid(
                where, f"character {error.start} is half of a surrogate pair, which has no encoding"
            ) from None


def duration(value: object, where: str) -> int:
    """Milliseconds of a duration, given as `"5m"` or in seconds."""
    if isinstance(value, str):
        try:
            seconds = parse_duration(value).total_seconds()
        except (ValueError, OverflowError):
            raise _invalid(where, f"{value!r} is no duration such as '30s' or '5m'") from None
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        seconds = float(value)
    else:
        raise _invalid(where, "expected a duration such as '30s', or seconds")
    if not 0 <= seconds * 1000 <= LONGEST:
        raise _invalid(where, "expected a duration between nothing and a year")
    return round(seconds * 1000)


def _when(said: Mapping[str, Any], where: str) -> tuple[int, int]:
    if "run_at" not in said:
        return 0, duration(said.get("delay", 0), f"{where}.delay")
    if "delay" in said:
        raise _invalid(f"{where}.delay", "run_at says it too", "keep one of the two")
    value = said["run_at"]
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise _invalid(
                f"{where}.run_at", "expected a time with its zone, as 2026-11-23T17:44:43Z"
            )
        value = moment.astimezone(UTC).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(f"{where}.run_at", "expected a time, or seconds since the epoch")
    if not 0 < value * 1000 <= time.time() * 1000 + 100 * LONGEST:
        raise _invalid(f"{where}.run_at", "expected a time within a hundred years")
    return round(value * 1000), 0


def _unique(said: Mapping[str, Any], where: str, kind: str, args: str) -> tuple[str, int, str]:
    value = said.get("unique")
    where = f"{where}.unique"
    if value is None or value is False:
        return "", UNTIL_FINISHED, ON_CONFLICT[0]
    if value is True:
        value = {}
    elif isinstance(value, str):
        value = {"key": value}
    if not isinstance(value, Mapping):
        raise _invalid(where, "expected a key, true, or { key, scope, on_conflict }")
    for name in value:
        if name not in ("key", "args", "scope", "on_conflict"):
            raise _invalid(f"{where}.{name}", "unknown key")
    on_conflict = value.get("on_conflict", ON_CONFLICT[0])
    if on_conflict not in ON_CONFLICT:
        raise _invalid(f"{where}.on_conflict", f"expected one of {', '.join(ON_CONFLICT)}")
    scope = value.get("scope", "until_finished")
    if isinstance(scope, str) and scope.startswith("window:"):
        until = duration(scope.removeprefix("window:"), f"{where}.scope")
        if not until:
            raise _invalid(f"{where}.scope", "expected a window of some length")
    elif scope in _SCOPES:
        until = _SCOPES[scope]
    else:
        raise _invalid(f"{where}.scope", "expected until_claimed, until_finished or window:PERIOD")
    key = value.get("key") or _digest(args, value.get("args"), where)
    if not isinstance(key, str) or len(key) > 500 or "\0" in key:
        raise _invalid(f"{where}.key", "expected text of at most 500 characters, without NUL")
    _encodable(key, f"{where}.key")
    return f"{kind}:{key}", until, on_conflict


def _digest(args: str, chosen: object, where: str) -> str:
    """A key made of the arguments, or of those that are named."""
    import hashlib

    known = json.loads(args)
    if chosen is not None:
        if not isinstance(chosen, Sequence) or isinstance(chosen, str):
            raise _invalid(f"{where}.args", "expected a list of arguments' names")
        known = {name: known.get(name) for name in chosen}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _options(said: Mapping[str, Any], where: str) -> str:
    found: dict[str, Any] = {}
    for key in ("timeout", "stall_after"):
        if said.get(key):
            found[key] = duration(said[key], f"{where}.{key}")
    if "retry" in said:
        found["retry"] = _retry(said["retry"], f"{where}.retry")
    if said.get("tags"):
        tags = said["tags"]
        if not isinstance(tags, Sequence) or isinstance(tags, str):
            raise _invalid(f"{where}.tags", "expected a list of names")
        for index, tag in enumerate(tags):
            _named(tag, f"{where}.tags[{index}]")
        found["tags"] = list(tags)
    if said.get("then"):
        new_jobs(said["then"], f"{where}.then")  # a mistake in it is one of now, not of later
        found["then"] = said["then"]
    if said.get("keep_result") is False:
        found["keep_result"] = False
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")) if found else ""


def _retry(said: object, where: str) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        raise _invalid(where, "expected a table { base, factor, cap, jitter, within }")
    found: dict[str, Any] = {}
    for key, value in said.items():
        here = f"{where}.{key}"
        kind = _RETRY.get(key)
        if kind is None:
            raise _invalid(here, "unknown key", nearest(str(key), tuple(_RETRY)))
        if kind == "duration":
            found[key] = duration(value, here)
        elif key == "jitter" and value == "full":
            found[key] = value
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise _invalid(here, "expected a number")
        elif not (1 <= value <= 100 if key == "factor" else 0 <= value <= 1):
            raise _invalid(here, "expected 1 to 100" if key == "factor" else "expected 0 to 1")
        else:
            found[key] = float(value)
    if found.get("base", 1) < 1:
        raise _invalid(f"{where}.base", "expected more than nothing")
    return found


def _whole(value: object, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _invalid(where, f"expected a whole number, {low} to {high}")
    return value


def _name_or_nothing(said: Mapping[str, Any], key: str, where: str) -> str:
    value = said.get(key) or ""
    if value:
        _named(value, f"{where}.{key}")
    return str(value)


def _named(value: object, where: str) -> None:
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        got = "nothing" if value is None else "something else"
        raise _invalid(
            where, f"expected a name of letters, digits and _ . : / - (at most 128), got {got}"
        )


def _refuse(where: str) -> NewJob:
    raise _invalid(where, "expected a job { kind, queue, args, … }")


def _invalid(where: str, words: str, hint: str = "") -> AtlasError:
    return AtlasError("job.invalid", f"{where}: {words}", hint=hint, details={"key": where})
