"""Changes of the configuration, and what a reload made of them, as a person reads them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from atlasd.cli import style

Body = Mapping[str, Any]


def change_lines(changes: Sequence[Body]) -> list[str]:
    """A line for each setting that differs: what it was, what it is, what the change takes."""
    lines = []
    for change in changes:
        if change["kind"] == "added":
            said = f"+ {change['key']} = {_value(change['new'])}"
        elif change["kind"] == "removed":
            said = f"- {change['key']} = {_value(change['old'])}"
        elif change["old"] is None and change["new"] is None:
            said = f"~ {change['key']}: what it refers to has changed"
        else:
            said = f"~ {change['key']}: {_value(change['old'])} → {_value(change['new'])}"
        effect = f"  ({change['effect']})" if change["effect"] else ""
        lines.append(said + effect)
    return lines


def reload_lines(body: Body) -> list[str]:
    """What a reload did, or would do, and what it left."""
    lines = change_lines(body["changes"])
    lines += list(body["notes"])
    for action in body["applied"]:
        name = f"{action['service']}/{action['instance']}"
        lines.append(f"{name}: {action['detail'] or action['reason']}")
    if body["pending"]:
        left = style.count(len(body["pending"]), "step")
        lines.append(
            f"{left} would touch running services: see `atlasctl plan`, then `atlasctl apply`"
        )
    if not lines:
        return ["the configuration has not changed"]
    if body["dry_run"]:
        return [*lines, f"nothing was changed; it would be generation {body['generation']}"]
    return [*lines, f"generation {body['generation']} is in force"]


def _value(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:58] + " …"
