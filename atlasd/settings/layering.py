"""The files of a set in one: variables led to their settings, and text given its types."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from atlasd.contracts.applications import (
    Complaint,
    DeclaredSet,
    FileRead,
    Filled,
    Laid,
    Tools,
)
from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.settings.names import AmbiguousError, Known
from atlasd.settings.schema import Schema
from atlasd.settings.tree import AbsentError, at, dotted, nodes, put, there
from atlasd.settings.typed import convert, kind_of


@dataclass(frozen=True, kw_only=True)
class OldName:
    """A variable of a `.env` file, which stays available under its own name."""

    path: KeyPath
    """The setting that it means."""
    text: str = field(repr=False)
    """What stands in the file, when that is what holds; empty when another layer beats it."""
    verbatim: bool
    """Whether `text` holds."""


@dataclass(frozen=True, kw_only=True)
class _Variable:
    """A variable where it was last set."""

    path: KeyPath
    text: str = field(repr=False)
    where: Position


class Layering:
    """All layers of one set, in one; what is wrong with them is in `complaints`."""

    def __init__(
        self,
        declared: DeclaredSet,
        tools: Tools,
        files: Sequence[FileRead],
        schema: Schema | None,
    ) -> None:
        self.complaints: list[Complaint] = []
        self._declared = declared
        self._tools = tools
        self._schema = schema
        self._variables: dict[str, _Variable] = {}
        self._texts: dict[KeyPath, Position] = {}
        """Settings that some file has as text without a type, and where it does."""
        layers = [*files, FileRead(layer=declared.values)]
        firm = [file.layer for file in layers if not file.textual]
        self._typed = tools.lay(firm, operators=declared.operators).layer.data
        """What files with types say together."""
        known = self._known(layers)
        self.laid: Laid = tools.lay(
            [self._led(file, known) for file in layers],
            any_kind=self._texts,
            operators=declared.operators,
        )
        self.complaints += self.laid.complaints

    def _known(self, files: Sequence[FileRead]) -> Known:
        """Everything that a variable may mean."""
        paths = [path for path, _ in nodes(self._typed)]
        for file in files:
            if file.textual and not file.variables:
                paths += [path for path, _ in nodes(file.layer.data)]
        if self._schema is not None:
            paths += self._schema.paths()
        declared = self._declared
        return Known.of(declared.env_prefix, declared.variables, list(dict.fromkeys(paths)))

    def _led(self, file: FileRead, known: Known) -> Layer:
        layer = self._placed(file.layer, known) if file.variables else file.layer
        return self._converted(layer) if file.textual else layer

    def _placed(self, layer: Layer, known: Known) -> Layer:
        """A layer of variables as the tables of settings that they mean."""
        data: dict[str, Any] = {}
        places: dict[KeyPath, Position] = {}
        taken: dict[KeyPath, str] = {}
        for name, text in layer.data.items():
            try:
                path = known.path(name)
            except AmbiguousError as error:
                self._complain(
                    layer,
                    name,
                    expected="a name that means one setting",
                    got=f"one that could mean {' or '.join(error.keys)}",
                    hint=f"say which: [settings.{self._declared.name}.variables], "
                    f'{name} = "{error.keys[0]}"',
                )
                continue
            if path in taken or not put(data, path, text):
                other = taken.get(path, "another variable")
                got = f"{dotted(path)} again, which {other} sets too"
                self._complain(layer, name, expected="each setting once", got=got)
                continue
            taken[path] = name
            places[path] = layer.where((name,))
            self._variables[name] = _Variable(path=path, text=text, where=places[path])
        return Layer(origin=layer.origin, data=data, values=places, keys=places)

    def _complain(
        self, layer: Layer, name: str, *, expected: str, got: str, hint: str = ""
    ) -> None:
        where = layer.where_key((name,))
        self.complaints.append(
            Complaint(where=where, key=name, expected=expected, got=got, hint=hint)
        )

    def _converted(self, layer: Layer) -> Layer:
        """A layer of text, typed as the schema says, or else as other files' values are."""
        data = copy.deepcopy(layer.data)
        for path, text in list(nodes(layer.data)):
            if not isinstance(text, str):
                continue
            self._texts[path] = layer.where(path)
            if not self._tools.refers(text):
                at(data, path[:-1])[path[-1]] = convert(text, self._kinds(path))
        return replace(layer, data=data)

    def _kinds(self, path: KeyPath) -> frozenset[str]:
        """What may stand at a path: by the schema, or else what other files have there."""
        kinds = self._schema.kinds(path) if self._schema is not None else frozenset[str]()
        if not kinds:
            try:
                kinds = frozenset({kind_of(at(self._typed, path))})
            except AbsentError:
                pass
        return kinds

    def typed(self, filled: Filled) -> dict[str, Any]:
        """The settings with their references resolved, and now typed where text stood for them."""
        data = copy.deepcopy(filled.data)
        for path, value in list(nodes(data)):
            came = self._texts.get(path) == self.laid.layer.where(path)
            if isinstance(value, str) and (came or path in filled.references):
                at(data, path[:-1])[path[-1]] = convert(value, self._kinds(path))
        return data

    def old_names(self, data: Mapping[str, Any]) -> dict[str, OldName]:
        """The variables of `.env` files, as they stay available."""
        found = {}
        for name, one in self._variables.items():
            # An unset or replaced value is no longer what the file says.
            holds = self.laid.layer.where(one.path) == one.where and there(data, one.path)
            text = one.text if holds else ""
            found[name] = OldName(path=one.path, text=text, verbatim=holds)
        return found
