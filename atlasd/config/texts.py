"""Text that is given a type by the schema: values of variables, and of `--set KEY=VALUE`."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from atlasd.config import shape
from atlasd.config.files import too_deep
from atlasd.config.problems import shown
from atlasd.contracts.config import UNSET, Fault, KeyPath, Layer, Outline, Position
from atlasd.errors import nearest

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_REAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_UNSET = re.compile(r"""\{\s*(?:unset\s*=|"unset"\s*[:=])\s*true\s*\}""")
_HINTS = {
    "list": 'write it as ["one", "two"]',
    "table": 'write it as {"key": "value"}, or name a key of it',
    "boolean": "write true or false",
}


class NotThatError(ValueError):
    """A text that stands for nothing that its setting takes."""


def read(text: str, kinds: frozenset[str]) -> Any:
    """The value that a text stands for where one of `kinds` is taken; empty: any text is.

    Lists and tables are written as JSON or TOML has them. A reference stands for itself, whatever
    its value will be. Raises `NotThatError`.
    """
    if _UNSET.fullmatch(text):
        return dict(UNSET)
    if not kinds or kinds == {"string"} or shape.is_reference(text):
        return text
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    if "number" in kinds and _WHOLE.fullmatch(text):
        return int(text)
    if "number" in kinds and _REAL.fullmatch(text):
        return float(text)
    opening = text.lstrip()[:1]
    if (opening == "[" and "list" in kinds) or (opening == "{" and "table" in kinds):
        found = _structured(text)
        if found is not None and too_deep(found) is None:
            return found
        if "string" not in kinds:
            raise NotThatError
    if "string" in kinds:
        return text
    raise NotThatError


def _structured(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return None


def typed(layer: Layer, outline: Outline) -> Layer:
    """A layer of text with the values that its texts stand for; what stands for none is a fault."""
    faults: list[Fault] = []

    def value(found: Any, here: Outline | None, path: KeyPath) -> Any:
        if isinstance(found, dict):
            return {
                key: value(item, _below(here, key), (*path, key)) for key, item in found.items()
            }
        kinds = here.kinds if here is not None else frozenset[str]()
        try:
            return read(found, kinds)
        except NotThatError:
            expected = getattr(here, "expected", "") or " or ".join(sorted(kinds))
            hint = next((_HINTS[kind] for kind in _HINTS if kind in kinds), "")
            faults.append(
                Fault(
                    where=layer.where(path),
                    path=path,
                    expected=expected,
                    got=shown(found, path) if kinds - {"table"} else "text",
                    hint=hint,
                )
            )
            return found

    data = value(layer.data, outline, ())
    return replace(layer, data=data, text=False, faults=(*layer.faults, *faults))


def _below(here: Outline | None, key: str) -> Outline | None:
    """What may stand at a key, which may have an operator behind it."""
    if here is None:
        return None
    found = here.child(key)
    return here.child(key[:-1]) if found is None and key[-1:] in "+-" else found


def assignments(words: Sequence[str]) -> Layer:
    """The layer of `--set KEY=VALUE`, each a variable whose name is a dotted key."""
    data: dict[str, str] = {}
    places: dict[KeyPath, Position] = {}
    faults = []
    for word in words:
        key, equals, text = word.partition("=")
        where = Position(origin=f"--set {key}")
        if not equals or not key.strip():
            faults.append(Fault(where=where, expected="KEY=VALUE", got="no =" if key else "no key"))
            continue
        data[key.strip()] = text
        places[key.strip(),] = where
    return Layer(
        origin="--set", data=dict(data), values=places, keys=places, faults=tuple(faults), text=True
    )


_PART = re.compile(r"""([A-Za-z0-9_-]+[+-]?)|"((?:[^"\\]|\\.)*)"([+-]?)|'([^']*)'([+-]?)""")


def split_key(key: str) -> KeyPath | None:
    """The path that a dotted key stands for, parts in quotes taken as they are; None for none."""
    path: list[str] = []
    at = 0
    while True:
        found = _PART.match(key, at)
        if found is None:
            return None
        path.append(found[1] or f"{found[2] or found[4] or ''}{found[3] or found[5] or ''}")
        at = found.end()
        if at == len(key):
            return tuple(path)
        if key[at] != ".":
            return None
        at += 1


def name_keys(variables: Layer, outline: Outline, _prefix: str = "", /) -> Layer:
    """What the dotted keys of `assignments` mean; see `atlasd.contracts.config.NameSettings`."""
    data: dict[str, Any] = {}
    places: dict[KeyPath, Position] = {}
    faults = list(variables.faults)
    for name, text in variables.data.items():
        where = variables.where((name,))
        path = split_key(name)
        if path is None:
            got = "something else"
            faults.append(Fault(where=where, expected="a key such as host.log_budget", got=got))
            continue
        unknown = _unknown(path, outline)
        if unknown is not None:
            faults.append(Fault(where=where, path=path, got="unknown key", hint=unknown))
            continue
        if not _enter(data, path, text):
            got = "another --set says it too"
            faults.append(Fault(where=where, path=path, got=got, hint="keep one of the two"))
            continue
        for length in range(1, len(path) + 1):
            places.setdefault(path[:length], where)
    return Layer(
        origin=variables.origin,
        data=data,
        values=places,
        keys=places,
        faults=tuple(faults),
        text=True,
    )


def _enter(data: dict[str, Any], path: KeyPath, text: str) -> bool:
    table = data
    for key in path[:-1]:
        table = table.setdefault(str(key), {})
        if not isinstance(table, dict):
            return False
    if path[-1] in table:
        return False
    table[str(path[-1])] = text
    return True


def _unknown(path: KeyPath, outline: Outline) -> str | None:
    """The hint about a key that there cannot be; None where there can."""
    here: Outline | None = outline
    for key in map(str, path):
        assert here is not None
        below = _below(here, key)
        if below is None:
            return nearest(key.rstrip("+-"), here.keys) or "there can be no keys here"
        here = below
    return None


def variables(environ: Mapping[str, str], prefix: str) -> Layer:
    """The variables of a process whose names begin with `prefix`, each a place of its own."""
    data = {name: value for name, value in environ.items() if name.startswith(prefix)}
    places: dict[KeyPath, Position] = {
        (name,): Position(origin=f"environment {name}") for name in data
    }
    return Layer(origin="environment", data=dict(data), values=places, keys=places, text=True)
