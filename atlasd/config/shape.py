"""The schema asked about: what may stand at a path, and which keys a table knows."""

import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from atlasd.config.fields import Spelling
from atlasd.config.merge import Rules
from atlasd.config.references import KINDS as REFERRING
from atlasd.config.references import SCHEME, SEALED
from atlasd.config.schema import Settings
from atlasd.config.units import WrongValueError
from atlasd.contracts.config import KeyPath

KINDS: Mapping[type, str] = {
    dict: "table",
    list: "list",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "nothing",
}
_IN_WORDS = {
    "table": "a table",
    "list": "a list",
    "string": "a string",
    "boolean": "true or false",
    "number": "a number",
    "date": "a date or time",
    "nothing": "nothing (null)",
}
_REFERENCE = re.compile(
    rf"^(?:{re.escape(SCHEME)}|{re.escape(SEALED)})|(?<!\$)\$\{{\??(?:{'|'.join(REFERRING)}):"
)


def kind_of(value: object) -> str:
    """The kind of a value: table, list, string, boolean, number, date, or nothing for a null."""
    return KINDS.get(type(value), "date")


def is_reference(value: object) -> bool:
    """Whether a value stands for another one, whose kind nobody knows yet: `secret://db#port`."""
    return isinstance(value, str) and bool(_REFERENCE.search(value))


def kind_in_words(value: object) -> str:
    """The same for people: `a table`."""
    return _IN_WORDS[kind_of(value)]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What may stand in one place of the configuration."""

    annotation: Any
    """The Python type, without `None` and `Annotated`."""
    spelling: Spelling | None

    @property
    def model(self) -> type[BaseModel] | None:
        """The model of a table with fixed keys."""
        found = self.annotation
        return found if isinstance(found, type) and issubclass(found, BaseModel) else None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of TOML value that are taken here."""
        if self.spelling is not None:
            return self.spelling.kinds
        origin = typing.get_origin(self.annotation) or self.annotation
        if self.model is not None or origin is dict:
            return frozenset({"table"})
        if origin is tuple:
            return frozenset({"list"})
        if origin is Literal:
            return frozenset(kind_of(choice) for choice in typing.get_args(self.annotation))
        return frozenset({KINDS.get(origin, "string")})

    @property
    def expected(self) -> str:
        """What is taken here, for people."""
        if self.spelling is not None:
            return self.spelling.expected
        if typing.get_origin(self.annotation) is Literal:
            choices = [f'"{choice}"' for choice in typing.get_args(self.annotation)]
            return f"{', '.join(choices[:-1])} or {choices[-1]}"
        if self.annotation is int:
            return "a whole number"
        return " or ".join(sorted(_IN_WORDS[kind] for kind in self.kinds))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that a table here may have; empty where any name may stand."""
        return tuple(self.model.model_fields) if self.model is not None else ()

    def child(self, key: str | int) -> "Shape | None":
        """What may stand below, at one key or index; None for what nobody knows of."""
        if self.model is not None:
            field = self.model.model_fields.get(str(key))
            return None if field is None else of_field(field)
        arguments = typing.get_args(self.annotation)
        if typing.get_origin(self.annotation) in (dict, tuple):
            return _of(arguments[1 if isinstance(key, str) else 0])
        return None


def of_field(field: FieldInfo) -> Shape:
    """The shape that a model's field declares."""
    return _of(field.annotation, field.metadata)


def at(path: KeyPath, model: type[BaseModel] = Settings) -> Shape | None:
    """The shape at a path below `model`, or None where the schema knows nothing."""
    shape: Shape | None = Shape(annotation=model, spelling=None)
    for key in path:
        if shape is None:
            return None
        shape = shape.child(key)
    return shape


def closed(path: KeyPath, model: type[BaseModel] = Settings) -> bool:
    """Whether a table at a path has no other keys than the schema knows."""
    found = at(path, model)
    return bool(found and found.model and found.model.model_config.get("extra") == "forbid")


def rules(model: type[BaseModel] = Settings) -> Rules:
    """What a merge of layers has to know of the model that the result is for."""

    def kinds(path: KeyPath) -> frozenset[str]:
        found = at(path, model)
        return found.kinds if found is not None else frozenset()

    def as_list(path: KeyPath, value: Any) -> list[Any] | None:
        found = at(path, model)
        if found is None or found.spelling is None or "list" not in found.kinds:
            return None
        try:
            read = found.spelling.parse(value)
        except WrongValueError:
            return None
        return list(found.spelling.show(read)) if isinstance(read, tuple) else None

    def default(path: KeyPath) -> Any:
        around = at(path[:-1], model)
        field = around.model.model_fields.get(str(path[-1])) if around and around.model else None
        if field is None or field.is_required():
            return None
        preset = field.get_default(call_default_factory=True)
        spelling = of_field(field).spelling
        if not isinstance(preset, tuple):
            return None
        return list(spelling.show(preset) if spelling is not None else preset)

    return Rules(
        kind_of=kind_of,
        kinds=kinds,
        as_list=as_list,
        default=default,
        stands_for_any=is_reference,
    )


def _of(annotation: Any, metadata: Sequence[Any] = ()) -> Shape:
    known = list(metadata)
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            known += annotation.__metadata__
            annotation = annotation.__origin__
        elif origin in (typing.Union, types.UnionType):
            options = [a for a in typing.get_args(annotation) if a is not type(None)]
            annotation = options[0]
        else:
            break
    spelling = next((m for m in known if isinstance(m, Spelling)), None)
    return Shape(annotation=annotation, spelling=spelling)
