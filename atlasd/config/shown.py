"""Settings as they may be shown: references as they stand, secrets in plain text not at all."""

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from atlasd.config.problems import SECRET_NAME
from atlasd.contracts.config import KeyPath

HIDDEN = "[not shown]"
"""Stands for a value whose name says that it is a secret."""

_REFERENCE = re.compile(r"secret://\S+|enc:v1:\S+")
_PART = re.compile(r"\$\{[^}]*\}")
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*:)([^/\s@]+)(@)")
_BARE = re.compile(r"[A-Za-z0-9_-]+")

Remark = Callable[[KeyPath], str]
"""What is written behind the line of a setting, as a comment; empty for nothing."""


def safe(value: Any, path: KeyPath = ()) -> Any:
    """The value as JSON-able data in which no secret stands in plain text.

    References and encrypted values are no secrets. Whatever else stands under a name such as
    `password` is hidden, and so is a password inside a URL; dates become text.
    """
    if isinstance(value, Mapping):
        return {key: safe(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [safe(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if isinstance(value, str):
        if is_reference(value):
            return value
        value = _PASSWORD_IN_URL.sub(_without_password, value)
    return HIDDEN if named_secret(path) else value


def is_reference(text: str) -> bool:
    """Whether a text holds no secret itself: it refers to one, or is one that is encrypted."""
    return bool(_REFERENCE.fullmatch(text)) or text.startswith("${")


def _without_password(found: "re.Match[str]") -> str:
    if _PART.fullmatch(found[2]):
        return found[0]
    return f"{found[1]}{HIDDEN}{found[3]}"


def named_secret(path: KeyPath) -> bool:
    """Whether what stands at a path is a secret, by its own name or that of the table around it.

    The second key is a name that the operator chose, and `secrets` is a section: they say nothing.
    """
    names = [key for number, key in enumerate(path) if isinstance(key, str) and number != 1]
    return any(name != "secrets" and SECRET_NAME.search(name) for name in names[-2:])


def leaves(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every setting with the way to it: what is no table, and tables that are empty."""
    if isinstance(data, Mapping) and (data or not path):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, data


def to_toml(data: Mapping[str, Any], remark: Remark = lambda _path: "") -> str:
    """Plain data as TOML, which reads back as the same data; tables after the settings."""
    lines: list[str] = []
    _table(data, (), remark, lines)
    return "\n".join(lines).lstrip("\n") + ("\n" if lines else "")


def _table(table: Mapping[str, Any], path: KeyPath, remark: Remark, lines: list[str]) -> None:
    plain = [key for key, value in table.items() if not isinstance(value, Mapping)]
    if path and (plain or not table):
        lines += ["", f"[{'.'.join(_key(str(key)) for key in path)}]"]
    for key in plain:
        said = remark((*path, key))
        line = f"{_key(key)} = {toml_value(table[key])}"
        lines.append(f"{line}  # {said}" if said else line)
    for key, value in table.items():
        if isinstance(value, Mapping):
            _table(value, (*path, key), remark, lines)


def toml_value(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return repr(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else toml_value(key)
