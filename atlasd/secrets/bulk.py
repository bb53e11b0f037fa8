"""Many secrets at once, from and to the text of a .env file or a JSON object; pure."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atlasd.errors import AtlasError

ParseEnv = Callable[[str], tuple[Mapping[str, str], Sequence[Any]]]
"""The variables of a .env file's text, and what is wrong with it: each with a line, what was
expected and what stands there, and never a value."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def read(text: str, form: str, parse_env: ParseEnv) -> dict[str, str]:
    """The values by name; members of a JSON object that are no text become JSON.

    Raises `AtlasError("secret.invalid")` for what cannot be read, with its line, without values.
    """
    if form == "env":
        values, faults = parse_env(text)
        if faults:
            told = "; ".join(
                f"line {one.line}: "
                + (f"expected {one.expected}, got {one.got}" if one.expected else one.got)
                for one in faults[:5]
            )
            raise AtlasError("secret.invalid", told, hint="nothing was imported; mend the file")
        return dict(values)
    try:
        found = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise AtlasError(
            "secret.invalid",
            f"{where}it is no JSON: {said[:1].lower()}{said[1:]}",
            hint="nothing was imported; mend the file",
        ) from None
    if not isinstance(found, dict):
        raise AtlasError(
            "secret.invalid", "it is no JSON object", hint='write {"name": "value", …}'
        )
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in found.items()
    }


def write(values: Mapping[str, str], form: str) -> str:
    """The text that `read` takes.

    Raises `AtlasError("secret.invalid")` for names that cannot be those of variables.
    """
    if form == "json":
        return json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    wrong = [name for name in values if not _VARIABLE.fullmatch(name)]
    if wrong:
        raise AtlasError(
            "secret.invalid",
            f"no variable can be called {', '.join(map(repr, sorted(wrong)[:5]))}",
            hint="take --format json, or a --prefix that is left off",
        )
    return "".join(f"{name}={_quoted(values[name])}\n" for name in sorted(values))


def _quoted(value: str) -> str:
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in value) + '"'


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the member {name!r} stands there twice")
        found[name] = value
    return found
