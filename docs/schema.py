"""A JSON schema, as pydantic gives it, in tables that a person can read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from docs.markdown import table

Schema = Mapping[str, Any]


def kind(schema: Schema, defs: Schema) -> str:
    """What a value may be, in a few words: `integer`, `list of text`, `one of "a", "b"`."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        target = defs.get(name, {})
        return kind(target, defs) if "properties" not in target else name
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            kinds = dict.fromkeys(kind(option, defs) for option in schema[word])
            return " or ".join(k for k in kinds if k != "nothing") or "nothing"
    match schema.get("type"):
        case "array":
            return "list of " + kind(schema["items"], defs) if "items" in schema else "list"
        case "object":
            inner = schema.get("additionalProperties")
            return "table of " + kind(inner, defs) if isinstance(inner, dict) else "table"
        case "string":
            return {"date-time": "time"}.get(schema.get("format", ""), "text")
        case "null":
            return "nothing"
        case str(name):
            return name
    return "anything"


def references(schema: Schema) -> Iterator[str]:
    """Names of the definitions that a schema mentions, nearest first."""
    for key, value in schema.items():
        if key == "$ref":
            yield value.rsplit("/", 1)[-1]
        elif key == "$defs":
            continue
        elif isinstance(value, Mapping):
            yield from references(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Mapping):
                    yield from references(item)


def fields(schema: Schema, defs: Schema) -> str:
    """The fields of an object: name, what it may be, default, meaning."""
    required = schema.get("required", [])
    rows = []
    for name, field in schema.get("properties", {}).items():
        described = field.get("description") or _described(field, defs)
        default = field.get("default")
        shown = "required" if name in required else "" if default is None else f"`{_toml(default)}`"
        rows.append((f"`{name}`", kind(field, defs), shown, described))
    return table(("field", "value", "default", "meaning"), rows)


def _described(field: Schema, defs: Schema) -> str:
    for name in references(field):
        described = str(defs.get(name, {}).get("description", ""))
        if described:
            return described.partition("\n\n")[0]
    return ""


def _toml(value: object) -> str:
    """A default as it would be written in the configuration."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
