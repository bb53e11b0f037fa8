"""The configuration as JSON Schema, for editors: made of the models that validate it.

It takes whatever a file may hold: short forms, references, operators on keys, `unset`. What holds
between settings is left to `atlasd check`; a file may be a part of a configuration, so nothing is
required.
"""

import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from atlasd.config import shape, units
from atlasd.config.schema import Check, SecretBackend, Settings
from atlasd.config.shape import Shape
from atlasd.config.validate import Offers

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = r"[0-9]{1,19}(\.[0-9]{1,9})?"
_TYPES = {
    "table": "object",
    "list": "array",
    "string": "string",
    "boolean": "boolean",
    "number": "number",
}
_PATTERNS = {
    units.DURATION: rf"^({_NUMBER}(us|ms|[wdhms]))+$",
    units.SIZE: rf"^{_NUMBER}([kKMGT]?B|[KMGT]iB)$",
    units.MODE: r"^(0o?)?[0-7]{3}$",
    units.SIGNAL: r"^[A-Za-z0-9+]+$",
    units.LISTEN: r"^.*:[0-9]{1,5}$",
}
"""What texts of one spelling look like, by what it expects."""
_REFERENCE = {"$ref": "#/$defs/reference"}
_UNSET = {"$ref": "#/$defs/unset"}


def schema(offers: Offers | None = None) -> Schema:
    """The schema of a configuration file.

    With `offers`, the settings of checks, secret backends and plugins are looked into as well.
    """
    making = _Making(offers)
    body = making.table(Settings)
    body["properties"]["extends"] = {
        "description": "In a file of environments/: the environment that this one is laid over.",
        "type": "string",
    }
    if offers is not None:
        for name, model in sorted(offers.plugin_settings.items()):
            making.plugin(name, model)
        body["properties"]["plugins"]["allOf"] = [{"$ref": "#/$defs/plugins"}]
        making.definitions.setdefault("plugins", {})
    # Editors take the name of the schema itself from here, in forms that have no comments.
    body["properties"]["$schema"] = {"type": "string"}
    return {
        "$schema": DIALECT,
        "title": "atlasd",
        **body,
        "description": "Configuration of atlasd, or a part of it.",
        "$defs": {
            "reference": {
                "description": "A secret, or another value that is looked up.",
                "type": "string",
                "pattern": r"^secret://|^enc:v1:|\$\{",
            },
            "unset": {
                "description": "What lower layers say of the key does not hold.",
                "type": "object",
                "properties": {"unset": {"const": True}},
                "required": ["unset"],
                "additionalProperties": False,
            },
            **dict(sorted(making.definitions.items())),
        },
    }


class _Making:
    """A schema that is being made, and the tables that it mentions."""

    def __init__(self, offers: Offers | None) -> None:
        self._offers = offers
        self.definitions: dict[str, Schema] = {}

    def table(self, model: type[BaseModel]) -> Schema:
        """The schema of a table with fixed keys."""
        body: Schema = {
            "type": "object",
            "description": _sentence(model),
            "properties": {name: self._field(f) for name, f in model.model_fields.items()},
            # `key+` and `key-`: what they take is a list of the same items.
            "patternProperties": {"^.+[+-]$": {}},
            "additionalProperties": model.model_config.get("extra") == "allow",
        }
        further = list(self._further(model))
        if further:
            body["allOf"] = further
        return body

    def _field(self, field: FieldInfo) -> Schema:
        found = shape.of_field(field)
        body = self._any_of(self._ways(found, field))
        if field.description:
            body["description"] = field.description
        default = _default(field, found)
        if default is not None:
            body["default"] = default
        return body

    def _any_of(self, ways: list[Schema]) -> Schema:
        return {"anyOf": ways} if len(ways) > 1 else dict(ways[0])

    def _ways(self, found: Shape, field: FieldInfo | None = None) -> list[Schema]:
        """Every form in which a value may be written."""
        if found.annotation is Any:
            return [{}]
        ways = list(self._plain(found, field))
        if not any(way.get("type") == "string" and len(way) == 1 for way in ways):
            ways.append(_REFERENCE)
        return [*ways, _UNSET]

    def _plain(self, found: Shape, field: FieldInfo | None) -> Iterator[Schema]:
        origin = typing.get_origin(found.annotation) or found.annotation
        arguments = typing.get_args(found.annotation)
        if origin is Literal:
            yield {"enum": list(arguments)}
        for kind in sorted(found.kinds - ({"string"} if origin is Literal else set())):
            body: Schema = {"type": _TYPES[kind]}
            if kind == "table" and found.model is not None:
                body = self._mentioned(found.model)
            elif kind == "table" and origin is tuple:
                item = found.child(0)
                body = self._mentioned(item.model) if item and item.model else body
            elif kind == "table" and arguments:
                values = found.child("name")
                assert values is not None
                ways = self._ways(values)
                if found.spelling is not None:
                    ways.append({"type": "integer"})  # a variable's value, which becomes text
                body["additionalProperties"] = self._any_of(ways)
            elif kind == "list" and origin is tuple and found.spelling is None:
                item = found.child(0)
                assert item is not None
                body["items"] = self._any_of(self._ways(item))
            elif kind == "string" and found.spelling is not None:
                pattern = _PATTERNS.get(found.spelling.expected)
                body |= {"pattern": pattern} if pattern else {}
            elif kind == "number":
                body |= _bounds(found, field)
            yield body

    def _mentioned(self, model: type[BaseModel]) -> Schema:
        if model.__name__ not in self.definitions:
            self.definitions[model.__name__] = {}
            self.definitions[model.__name__] = self.table(model)
        return {"$ref": f"#/$defs/{model.__name__}"}

    def _further(self, model: type[BaseModel]) -> Iterator[Schema]:
        """The settings of what plugins supply, by the type that a table names."""
        if self._offers is None:
            return
        supplied: Mapping[str, Any] = {}
        if model is Check:
            supplied = self._offers.check_types
        elif model is SecretBackend:
            supplied = self._offers.secret_backends
        for name, kind in sorted(supplied.items()):
            named = {"properties": {"type": {"const": name}}, "required": ["type"]}
            yield {"if": named, "then": self._of_plugin(kind.settings)}

    def plugin(self, name: str, model: type[BaseModel]) -> None:
        """Look into the table `[plugins.NAME]`."""
        plugins = self.definitions.setdefault("plugins", {"type": "object", "properties": {}})
        plugins["properties"][name] = {"type": "object", **self._of_plugin(model)}

    def _of_plugin(self, model: type[BaseModel]) -> Schema:
        """The properties of a plugin's model; others are the table's own."""
        found = model.model_json_schema(ref_template="#/$defs/{model}")
        self.definitions.update(found.pop("$defs", {}))
        properties = {
            name: {"anyOf": [body, _REFERENCE, _UNSET]}
            for name, body in found.get("properties", {}).items()
        }
        return {"properties": properties}


def _sentence(model: type[BaseModel]) -> str:
    return re.sub(r"\s+", " ", (model.__doc__ or "").strip())


def _bounds(found: Shape, field: FieldInfo | None) -> Schema:
    """What a number must be; one that is spelled is read first, and bounded afterwards."""
    if found.spelling is not None:
        return {}
    body: Schema = {"type": "integer"} if found.annotation is int else {}
    for rule in field.metadata if field is not None else ():
        match rule:
            case Ge(ge=bound):
                body["minimum"] = bound
            case Gt(gt=bound):
                body["exclusiveMinimum"] = bound
            case Le(le=bound):
                body["maximum"] = bound
            case Lt(lt=bound):
                body["exclusiveMaximum"] = bound
    return body


def _default(field: FieldInfo, found: Shape) -> Any:
    """What holds without the key, as a file would have it; None where there is nothing to say."""
    if field.is_required():
        return None
    preset = field.get_default(call_default_factory=True)
    if preset is None or isinstance(preset, BaseModel):
        return None
    if found.spelling is not None:
        preset = found.spelling.show(preset)
    return list(preset) if isinstance(preset, tuple) else preset
