"""Settings as TOML, and what is known of one, as a person reads it."""

import json
from collections.abc import Mapping
from typing import Any

from atlasd.cli import style


def explained(body: Mapping[str, Any]) -> list[str]:
    """What is known of a setting, as a person reads it."""
    lines = [f"{body['key']} = {toml_value(body['value'])}"]

    def say(title: str, text: str) -> None:
        if text:
            lines.append(f"  {title:10}{text}")

    layer = f" ({body['layer']})" if body["layer"] else ""
    say("from", f"{body['where']}{layer}" if body["set"] else "its default: nobody has set it")
    for shadow in body["shadows"]:
        layer = f" ({shadow['layer']})" if shadow["layer"] else ""
        value = "" if shadow["value"] is None else f": {toml_value(shadow['value'])}"
        say("shadows", f"{shadow['where']}{layer}{value}")
    for secret in body["secrets"]:
        parts = [secret["reference"]]
        parts += [f"version {secret['version']}"] if secret["version"] else []
        parts += [f"fetched {style.since(secret['fetched'])} ago"] if secret["fetched"] else []
        parts += ["its backend does not answer"] if secret["stale"] else []
        say("made of", ", ".join(parts))
    if body["set"] and body["default"] is not None:
        say("default", toml_value(body["default"]))
    say("takes", body["expected"])
    say("meaning", body["description"])
    say("a change", body["effect"])
    return lines


def toml(table: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """Settings as TOML for reading; where each stands, if `places` knows it, is a comment."""
    lines: list[str] = []
    _table(table, "", places, lines)
    return "\n".join(lines).lstrip("\n") + ("\n" if lines else "")


def _table(
    table: Mapping[str, Any], above: str, places: Mapping[str, str], lines: list[str]
) -> None:
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if above and (plain or not table):
        lines += ["", f"[{above}]"]
    for key, value in plain.items():
        place = places.get(_below(above, key))
        line = f"{_key(key)} = {toml_value(value)}"
        lines.append(f"{line}  # {place}" if place else line)
    for key, value in table.items():
        if isinstance(value, dict):
            _table(value, _below(above, key), places, lines)


def _below(above: str, key: str) -> str:
    return f"{above}.{_key(key)}" if above else _key(key)


def toml_value(value: Any) -> str:
    """A value of an answer as TOML writes it on one line."""
    if value is None:
        return "(nothing)"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    plain = key and all(char.isascii() and (char.isalnum() or char in "_-") for char in key)
    return key if plain else json.dumps(key, ensure_ascii=False)
