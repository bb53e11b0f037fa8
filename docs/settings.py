"""The settings page of the reference: every key of the configuration, as the models declare it."""

import json
import types
import typing
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from atlasd.config import schema, units
from atlasd.config.fields import Section, Spelling
from atlasd.contracts.checks import CheckType
from atlasd.contracts.secrets import SecretBackend
from docs import schema as tables
from docs.markdown import prose, table


def settings() -> str:
    """Every key of the configuration, a heading for each table."""
    names: dict[type[Section], list[str]] = {}
    for name, section in sections("", schema.Settings):
        names.setdefault(section, []).append(name or "Top level")
    parts = ["# Settings\n", INTRODUCTION]
    for section, places in names.items():
        parts += [f"## {', '.join(places)}\n", prose(section)]
        parts.append(
            table(
                ("key", "value", "default", "meaning"),
                [
                    (f"`{key}`", value(field), default(field), field.description or "")
                    for key, field in section.model_fields.items()
                ],
            )
        )
    for kind in check_types():
        summary = kind.summary[0].upper() + kind.summary[1:]
        parts += [f'## checks.NAME of type "{kind.name}"\n', f"{summary}.\n"]
        parts.append(_fields(kind.settings))
    for backend in secret_backends():
        summary = backend.summary[0].upper() + backend.summary[1:]
        parts += [f'## secrets.backends.NAME of type "{backend.name}"\n', f"{summary}.\n"]
        parts.append(_fields(backend.settings))
    return "\n".join(parts)


def _fields(model: type[BaseModel]) -> str:
    """The settings of a plugin's thing."""
    body = model.model_json_schema()
    for name, field in model.model_fields.items():
        if isinstance(field.default, timedelta):  # pydantic writes it as ISO 8601 does
            body["properties"][name]["default"] = _duration(field.default.total_seconds())
    return tables.fields(body, body.get("$defs", {}))


def check_types() -> list[CheckType]:
    """The check types that come with atlasd, by name."""
    return sorted(_shipped("register_health_checks"), key=lambda kind: kind.name)


def secret_backends() -> list[SecretBackend]:
    """The secret backends that come with atlasd, by name."""
    return sorted(_shipped("register_secret_backends"), key=lambda kind: kind.name)


def _shipped(hook: str) -> list[Any]:
    found: list[Any] = []
    for entry in entry_points(group="atlasd.plugins"):
        if entry.value.startswith("atlasd_plugins."):
            register = getattr(entry.load(), hook, list)
            found += register()
    return found


INTRODUCTION = """The configuration is TOML. Unknown keys are refused, with the nearest known one;
an error names file, line and column. A duration is written `"250ms"`, `"30s"` or `"1h30m"`, a size
`"512MiB"` or `"10MB"`: a bare number would leave the unit to be guessed.
"""


def sections(name: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """A table and all tables below it, each with its name as the configuration has it."""
    yield name, section
    for key, field in section.model_fields.items():
        for below, repeated in _sections_in(field.annotation):
            path = f"{name}.{key}" if name else key
            yield from sections(f"{path}.NAME" if repeated else path, below)


def _sections_in(annotation: Any, *, repeated: bool = False) -> Iterator[tuple[Any, bool]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, repeated
        return
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin is Annotated:
        args = args[:1]
    for arg in args:
        yield from _sections_in(arg, repeated=repeated or origin is dict)


def value(field: FieldInfo) -> str:
    """What may be written for a key."""
    spelling = _spelling(field)
    if spelling:
        return spelling.expected.partition(" such as ")[0]
    return _kind(field.annotation)


def _spelling(field: FieldInfo) -> Spelling | None:
    found = [m for m in field.metadata if isinstance(m, Spelling)]
    for arg in typing.get_args(field.annotation) if _is_union(field.annotation) else ():
        found += [m for m in getattr(arg, "__metadata__", ()) if isinstance(m, Spelling)]
    return found[0] if found else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _kind(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(f'"{a}"' for a in args)
    if _is_union(annotation):
        return " or ".join(_kind(a) for a in args if a is not type(None))
    if origin is Annotated:
        return _kind(args[0])
    if origin is dict:
        return "tables by name"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "a table"
    return names.get(annotation, "a table")


def default(field: FieldInfo) -> str:
    """What holds when the key isn't there, as it would be written."""
    if field.is_required():
        return "required"
    spelling = _spelling(field)
    return _written(field.get_default(call_default_factory=True), spelling)


def _written(given: object, spelling: Spelling | None) -> str:
    if given is None or isinstance(given, Section):
        return ""
    expected = spelling.expected if spelling else ""
    if isinstance(given, float) and expected == units.DURATION:
        return f'`"{_duration(given)}"`'
    if isinstance(given, int) and expected == units.SIZE:
        return f'`"{_size(given)}"`'
    if isinstance(given, int) and expected == units.MODE:
        return f'`"{given:04o}"`'
    if expected.startswith(units.STATUS):
        given = [f"{low}-{high}" for low, high in typing.cast("tuple[tuple[int, int]]", given)]
    if isinstance(given, tuple | list):
        given = [list(item) if isinstance(item, tuple) else item for item in given]
    return f"`{json.dumps(given, ensure_ascii=False)}`" if given not in ([], {}) else ""


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"


def _size(count: int) -> str:
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= length and count % length == 0:
            return f"{count // length}{unit}"
    return f"{count}B"
