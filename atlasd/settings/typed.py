"""Text from files without types, turned into what the schema expects in its place."""

import json
import re
from collections.abc import Collection

TRUE = frozenset({"true", "yes", "on", "1", "t", "y"})
FALSE = frozenset({"false", "no", "off", "0", "f", "n"})
_WHOLE = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST = 400
"""Digits of a number; Python refuses to read very long ones, and nobody means them."""


def convert(text: str, kinds: Collection[str]) -> object:
    """The value that `text` stands for where JSON Schema's types `kinds` may be.

    Text stays what it is where text may stand, where nothing is known, and where it does not fit:
    then the schema will say so.
    """
    if not kinds or "string" in kinds:
        return text
    word = text.strip()
    if "null" in kinds and word in ("", "null"):
        return None
    if "boolean" in kinds and word.lower() in TRUE | FALSE and not _number(word, kinds):
        return word.lower() in TRUE
    if "integer" in kinds and _WHOLE.fullmatch(word) and len(word) <= _LONGEST:
        return int(word)
    if "number" in kinds and _REAL.fullmatch(word) and len(word) <= _LONGEST:
        return int(word) if _WHOLE.fullmatch(word) else float(word)
    for kind, opening in (("array", "["), ("object", "{")):
        if kind in kinds and word.startswith(opening):
            try:
                return json.loads(word)
            except (ValueError, RecursionError):
                return text
    return text


def _number(word: str, kinds: Collection[str]) -> bool:
    """Whether 0 and 1 are rather numbers here."""
    return word in ("0", "1") and not {"integer", "number"}.isdisjoint(kinds)


def kind_of(value: object) -> str:
    """The type of a value, as JSON Schema calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "string"


def as_text(value: object) -> str:
    """A value as the text of an environment variable: text as it is, lists and tables as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
