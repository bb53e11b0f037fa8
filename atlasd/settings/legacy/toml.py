"""Settings as TOML for people: in their order, with the comments of the file they are from."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

from atlasd.contracts.config import KeyPath

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}
_CONTROL = re.compile(r'[\x00-\x1f"\\\x7f]')
_IN_COMMENT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Above = Callable[[KeyPath], tuple[str, ...]]
"""The comments that stand above a key."""


def write(tree: Mapping[str, Any], above: Above, *, closing: tuple[str, ...] = ()) -> str:
    """The settings as TOML; tables behind what is none, as TOML must have it."""
    lines = [*_table(tree, (), above)]
    if closing:
        lines += ["", *_comments(closing)]
    return "\n".join(lines).strip("\n") + "\n" if lines else ""


def _table(table: Mapping[str, Any], path: KeyPath, above: Above) -> Iterator[str]:
    for key, value in table.items():
        if not _is_table(value) and not _is_tables(value):
            yield from _comments(above((*path, key)))
            yield f"{_key(key)} = {literal(value)}"
    for key, value in table.items():
        here = (*path, key)
        if _is_table(value):
            yield ""
            yield from _comments(above(here))
            yield f"[{_dotted(here)}]"
            yield from _table(value, here, above)
        elif _is_tables(value):
            for index, item in enumerate(value):
                yield ""
                yield from _comments(above(here if index == 0 else (*here, index)))
                yield f"[[{_dotted(here)}]]"
                yield from _table(item, (*here, index), above)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _comments(lines: tuple[str, ...]) -> Iterator[str]:
    for line in lines:
        text = _IN_COMMENT.sub(" ", line)
        yield f"# {text}" if text else ""


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _dotted(path: KeyPath) -> str:
    # An index only says which of a list of tables is meant: the header names the list.
    return ".".join(_key(key) for key in path if isinstance(key, str))


def literal(value: Any) -> str:
    """A value as it stands behind the `=`. Raises `ValueError` for what TOML does not have."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {literal(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    raise ValueError(f"TOML has no {type(value).__name__}")


def _float(value: float) -> str:
    if math.isfinite(value):
        text = repr(value)
        return text if any(mark in text for mark in ".e") else f"{text}.0"
    return "nan" if math.isnan(value) else "-inf" if value < 0 else "inf"


def _string(text: str) -> str:
    return f'"{_CONTROL.sub(_escape, text)}"'


def _escape(found: "re.Match[str]") -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"
