"""Trees of settings: walked, looked into, cut, and made fit for JSON."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

from atlasd.contracts.config import KeyPath

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_STEP = re.compile(r'"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)|\[([0-9]+)\]')

_IN_WORDS: Mapping[type, str] = {
    dict: "a table",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def kind_in_words(value: object) -> str:
    """The kind of a value, for people: `a table`."""
    return _IN_WORDS.get(type(value), "a date or time")


def leaves(data: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every setting with its path: what is no table, lists as a whole, and empty tables."""
    for key, value in data.items():
        here = (*path, key)
        if isinstance(value, dict) and value:
            yield from leaves(value, here)
        else:
            yield here, value


def nodes(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Everything below a value, tables, lists and their items included, outer things first."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), item
            yield from nodes(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield (*path, index), item
            yield from nodes(item, (*path, index))


class AbsentError(LookupError):
    """There is nothing at a path."""


def at(data: object, path: KeyPath) -> Any:
    """What stands at a path. Raises `AbsentError`."""
    for key in path:
        try:
            data = data[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            raise AbsentError from None
    return data


def there(data: object, path: KeyPath) -> bool:
    """Whether anything stands at a path."""
    try:
        at(data, path)
    except AbsentError:
        return False
    return True


def put(data: dict[str, Any], path: KeyPath, value: object) -> bool:
    """Set the value at a path of keys, with the tables on the way; False if one is no table."""
    for key in path[:-1]:
        inner = data.setdefault(str(key), {})
        if not isinstance(inner, dict):
            return False
        data = inner
    data[str(path[-1])] = value
    return True


def dotted(path: KeyPath) -> str:
    """A path as people write it: `db.hosts[0]`; quoted where TOML would need it."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            plain = _PLAIN.fullmatch(key)
            text += ("." if text else "") + (key if plain else json.dumps(key, ensure_ascii=False))
    return text


def undotted(key: str) -> KeyPath:
    """The path that a dotted key stands for: what `dotted` has written, and `a.b[0].c`."""
    path: list[str | int] = []
    for step in _STEP.finditer(key):
        quoted, name, index = step.groups()
        if quoted is not None:
            path.append(json.loads(f'"{quoted}"'))
        else:
            path.append(name if name is not None else int(index))
    return tuple(path)


def plain(value: object) -> Any:
    """The value as JSON can have it: dates and times as ISO 8601 text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value


def not_json(value: object) -> KeyPath | None:
    """The path of the first number that JSON cannot have: an infinity, or no number at all."""
    for path, item in nodes(value):
        if isinstance(item, float) and not math.isfinite(item):
            return path
    return None
