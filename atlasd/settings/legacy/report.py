"""What was taken over, told: every step that lost something, and how to go on."""

from collections.abc import Sequence
from typing import Any

from atlasd.settings.legacy.plan import Taken
from atlasd.settings.legacy.toml import literal


def lines(taken: Sequence[Taken], *, done: bool) -> list[str]:
    """The report for people."""
    told = []
    for one in taken:
        arrow = "became" if done else "would become"
        told.append(f"{one.source} {arrow} {one.target}")
        told += [f"  {note}" for note in one.notes]
        if not one.notes:
            told.append("  nothing is lost")
    names = [name for one in taken for name in one.secrets]
    if names:
        told.append(f"secrets {'moved' if done else 'to be moved'}: {', '.join(names)}")
    return told


def declaration(taken: Sequence[Taken], name: str) -> str:
    """The table that gives services these settings, old names of variables included."""
    files = ", ".join(literal(str(one.target.absolute())) for one in taken)
    text = [f"[settings.{name}]", f"files = [{files}]"]
    if any(one.operators for one in taken):
        text.append("operators = false")
    variables = {old: key for one in taken for old, key in one.variables.items()}
    if variables:
        text.append(f"\n[settings.{name}.variables]")
        text += [f"{literal(old)} = {literal(key)}" for old, key in variables.items()]
    return "\n".join(text) + "\n"


def body(taken: Sequence[Taken], name: str, *, done: bool) -> dict[str, Any]:
    """The report for programs."""
    return {
        "done": done,
        "files": [
            {
                "source": str(one.source),
                "target": str(one.target),
                "secrets": list(one.secrets),
                "notes": [
                    {
                        "file": note.where.origin,
                        "line": note.where.line,
                        "column": note.where.column,
                        "key": note.key,
                        "what": note.what,
                    }
                    for note in one.notes
                ],
            }
            for one in taken
        ],
        "declaration": declaration(taken, name),
    }
