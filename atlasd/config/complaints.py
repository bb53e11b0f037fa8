"""What a merge complains of, as problems: conflicts of kinds, and operators without work."""

from collections.abc import Iterator
from typing import Any

from atlasd.config import shape
from atlasd.config.merged import Conflict, Merged, Misuse
from atlasd.config.problems import Problem, dotted, shown
from atlasd.contracts.config import KeyPath
from atlasd.errors import nearest


def complaints(merged: Merged) -> Iterator[Problem]:
    """Everything that is wrong, or doubtful, with how the layers fit together."""
    yield from (_conflict(conflict) for conflict in merged.conflicts)
    yield from (_misuse(misuse, merged) for misuse in merged.misuses)


def _conflict(conflict: Conflict) -> Problem:
    where = conflict.higher
    return Problem(
        file=where.origin,
        line=where.line,
        column=where.column,
        key=dotted(conflict.path),
        expected=f"{shape.kind_in_words(conflict.lower_value)}, as in {conflict.lower}",
        got=shape.kind_in_words(conflict.higher_value),
    )


def _misuse(misuse: Misuse, merged: Merged) -> Problem:
    expected, got, hint, warning = _WORDS[misuse.complaint](misuse, merged)
    sign = misuse.operator if misuse.operator != "unset" else ""
    return Problem(
        file=misuse.where.origin,
        line=misuse.where.line,
        column=misuse.where.column,
        key=dotted(misuse.path) + sign,
        expected=expected,
        got=got,
        hint=hint,
        warning=warning,
    )


Words = tuple[str, str, str, bool]
"""What was expected, what came, what may help, and whether it is only a warning."""


def _no_list(misuse: Misuse, merged: Merged) -> Words:
    del merged
    verb = "append" if misuse.operator == "+" else "remove"
    hint = f"without the {misuse.operator} the value is replaced"
    return f"a list of items to {verb}", shape.kind_in_words(misuse.value), hint, False


def _no_list_below(misuse: Misuse, merged: Merged) -> Words:
    place = merged.layer.where(misuse.path)
    got = f"{shape.kind_in_words(misuse.value)} at {place}"
    hint = f"without the {misuse.operator} the value is replaced"
    return "a list in the layers below", got, hint, False


def _no_such_item(misuse: Misuse, merged: Merged) -> Words:
    below = _value_at(merged.data, misuse.path)
    items = [item for item in below if isinstance(item, str)] if isinstance(below, list) else []
    hint = nearest(misuse.value, items) if isinstance(misuse.value, str) and items else ""
    got = f"{shown(misuse.value, misuse.path)} is not in the list below"
    return "", got, hint, True


def _nothing_below(misuse: Misuse, merged: Merged) -> Words:
    key = str(misuse.path[-1])
    around = shape.at(misuse.path[:-1])
    if around is not None and around.model is not None and key in around.keys:
        return "", "no layer below has it", "remove it", True
    if shape.closed(misuse.path[:-1]):
        return "", "unknown key", nearest(key, around.keys) if around is not None else "", False
    beside = _value_at(merged.data, misuse.path[:-1])
    near = nearest(key, list(beside)) if isinstance(beside, dict) else ""
    return "", "no layer below has it", near if near.startswith("did") else "remove it", True


def _ids(misuse: Misuse, merged: Merged) -> Words:
    old = merged.shadowed(misuse.path)
    hint = "give each an id, or none of them one"
    expected = f"an id of its own in each table, as at {old[-1].place}"
    return expected, "tables without, or twice the same", hint, False


_WORDS = {
    "no list": _no_list,
    "no list below": _no_list_below,
    "no such item": _no_such_item,
    "nothing below": _nothing_below,
    "ids": _ids,
}


def _value_at(data: Any, path: KeyPath) -> Any:
    for key in path:
        if not isinstance(data, dict) or key not in data:
            return None
        data = data[key]
    return data
