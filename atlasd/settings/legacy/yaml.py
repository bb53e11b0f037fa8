"""Existing YAML files, read as PyYAML reads them, with a note wherever readers differ."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

from atlasd.contracts.config import KeyPath, Position
from atlasd.settings.legacy.comments import collect
from atlasd.settings.legacy.source import Existing, Note, refused
from atlasd.settings.tree import dotted
from atlasd.settings.words import is_secret_name

MOST = 200_000
"""Values; a few lines of aliases can mean billions."""
DEEPEST = 200
_STANDARD = "tag:yaml.org,2002:"
_ONLY_ELSEWHERE = (
    (re.compile(r"[-+]?0o[0-7]+"), "an octal number to YAML 1.2"),
    (re.compile(r"[-+]?(?:[0-9]+|[0-9]*\.[0-9]+)[eE][0-9]+|[-+]?[0-9]+[eE][-+]?[0-9]+"),
     "a number to YAML 1.2"),
    (re.compile(r"[yYnN]"), "true or false to some readers of YAML 1.1"),
)  # fmt: skip


def read_yaml(text: str, origin: str) -> Existing:
    """What a YAML file means; null is still in it. Raises `AtlasError` for what has no meaning."""
    import yaml

    body = text.removeprefix("\ufeff")
    loader = yaml.SafeLoader(body)
    try:
        reading = _Reading(loader, origin)
        tree = reading.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Position(origin=origin)
        if mark is not None:
            where = Position(origin=origin, line=mark.line + 1, column=mark.column + 1)
        said = error.problem or error.context or "this is no YAML"
        raise refused(where, said, "see https://yaml.org for how YAML is written") from None
    except yaml.YAMLError as error:  # a character that YAML does not have, without a mark
        raise refused(Position(origin=origin), str(error).splitlines()[0], "mend it") from None
    finally:
        loader.dispose()
    comments, closing = collect(body, reading.lines, marks="#", inside=reading.inside)
    return Existing(
        tree=tree,
        positions=reading.positions,
        comments=comments,
        closing=closing,
        notes=tuple(sorted(reading.notes, key=lambda note: (note.where.line, note.where.column))),
    )


class _Reading:
    """The nodes of one document, turned into values one by one."""

    def __init__(self, loader: Any, origin: str) -> None:
        self._loader = loader
        self._origin = origin
        self.notes: list[Note] = []
        self.positions: dict[KeyPath, Position] = {}
        self.lines: dict[KeyPath, int] = {}
        self.inside: set[int] = set()
        self._open: list[int] = []
        self._seen: set[int] = set()
        self._count = 0

    def document(self) -> dict[str, Any]:
        node = self._loader.get_single_node()
        if node is None:
            return {}
        found = self.value(node, ())
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise refused(
                self.where(node), "the file is no table of settings", "it needs `key: value` lines"
            )
        return found

    def where(self, node: Any) -> Position:
        mark = node.start_mark
        return Position(origin=self._origin, line=mark.line + 1, column=mark.column + 1)

    def note(self, node: Any, path: KeyPath, what: str) -> None:
        self.notes.append(Note(where=self.where(node), key=dotted(path), what=what))

    def value(self, node: Any, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MOST or len(path) > DEEPEST:
            hint = "aliases that are made of aliases stand for very many values: write them out"
            raise refused(self.where(node), "more values than can be meant", hint)
        if id(node) in self._open:
            raise refused(self.where(node), "a value that contains itself", "TOML has none")
        if path:
            self.positions[path] = self.where(node)
        kind = type(node).__name__
        if kind == "ScalarNode":
            return self.scalar(node, path)
        if id(node) in self._seen:
            self.note(node, path, "what its alias stands for is written out")
        self._seen.add(id(node))
        self._open.append(id(node))
        try:
            if kind == "SequenceNode":
                return self.sequence(node, path)
            return self.mapping(node, path)
        finally:
            self._open.pop()

    # --- collections

    def sequence(self, node: Any, path: KeyPath) -> list[Any]:
        self.demand(node, "seq")
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        self.demand(node, "map")
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _STANDARD + "merge":
                self.note(key_node, path, "what << brings in is written out")
                for table in reversed(list(self.tables(value_node))):
                    merged |= self.mapping_of(table, path)
                continue
            key = self.key(key_node, path)
            here = (*path, key)
            if key in own:
                first = self.lines.get(here, 0)
                self.note(
                    key_node, here,
                    f"stands twice; this last one counts, that of line {first} is left out",
                )  # fmt: skip
            self.lines[here] = key_node.start_mark.line + 1
            own[key] = self.value(value_node, here)
        return {**{key: value for key, value in merged.items() if key not in own}, **own}

    def mapping_of(self, node: Any, path: KeyPath) -> dict[str, Any]:
        if type(node).__name__ != "MappingNode":
            raise refused(self.where(node), "<< with something else than tables", "name tables")
        kept, self.notes = self.notes, []
        lines, self.lines = self.lines, {}
        positions = dict(self.positions)
        found = self.value(node, path)
        self.notes, self.lines = kept, lines  # they have been told of where it stands itself
        self.positions = {**self.positions, **positions}
        assert isinstance(found, dict)
        return found

    def tables(self, node: Any) -> Iterator[Any]:
        if type(node).__name__ == "SequenceNode":
            yield from node.value
        else:
            yield node

    def demand(self, node: Any, *names: str) -> None:
        """Refuse a tag that gives a value another meaning than it seems to have."""
        if node.tag not in [_STANDARD + name for name in names]:
            tag = node.tag.replace(_STANDARD, "!!")
            raise refused(
                self.where(node), f"the tag {tag}", "only its application knows what it means"
            )

    def key(self, node: Any, path: KeyPath) -> str:
        if type(node).__name__ != "ScalarNode":
            raise refused(self.where(node), "a list or a table as a key", "TOML's keys are text")
        text = str(node.value)
        if node.tag != _STANDARD + "str":
            value = self._loader.construct_object(node)
            said = "null" if value is None else str(value).lower()
            self.note(
                node, (*path, text), f"PyYAML reads the key as {said}, no text; it is {text!r} here"
            )
        return text

    # --- scalars

    def scalar(self, node: Any, path: KeyPath) -> Any:
        if node.end_mark.line > node.start_mark.line:
            last = node.end_mark.line + (1 if node.end_mark.column else 0)
            self.inside.update(range(node.start_mark.line + 2, last + 1))
        plain = node.style is None
        name = node.tag.removeprefix(_STANDARD)
        self.demand(node, "str", "bool", "int", "float", "null", "timestamp", "value", "merge",
                    "binary")  # fmt: skip
        if name in ("str", "value", "merge"):
            if plain:
                self.text(node, path)
            return node.value
        if name == "binary":
            self.note(node, path, "binary data stays the base64 text that it is written as")
            return "".join(node.value.split())
        try:
            value = self._loader.construct_object(node)
        except (ValueError, OverflowError):
            raise refused(
                self.where(node), f"{node.value[:40]!r} is no {name}", "quote it if text is meant"
            ) from None
        if plain:
            self.typed(node, path, name, value)
        return value

    def text(self, node: Any, path: KeyPath) -> None:
        for pattern, what in _ONLY_ELSEWHERE:
            if pattern.fullmatch(node.value):
                self.note(node, path, f"{node.value} is text here, as PyYAML reads it; {what}")

    def typed(self, node: Any, path: KeyPath, name: str, value: Any) -> None:
        written = node.value
        if any(isinstance(key, str) and is_secret_name(key) for key in path):
            if not (name == "int" and re.fullmatch(r"[1-9][0-9]*", written)):
                self.note(node, path, f"YAML 1.1 reads its text as a value of another kind, {name}")
            return
        if name == "bool" and written.lower() not in ("true", "false"):
            said = "true" if value else "false"
            self.note(node, path, f"{written} is {said}, as YAML 1.1 reads it; text to YAML 1.2")
        elif name in ("int", "float") and ":" in written:
            self.note(
                node, path,
                f"{written} is the number {value}, to the base of 60, as YAML 1.1 reads it; text "
                "to YAML 1.2",
            )  # fmt: skip
        elif name == "int" and re.fullmatch(r"[-+]?0[0-7_]+", written):
            self.note(
                node, path,
                f"{written} is octal, {value}, as YAML 1.1 reads it; another number to YAML 1.2",
            )  # fmt: skip
        elif name == "int" and re.fullmatch(r"[-+]?0[bx][0-9a-fA-F_]+", written):
            self.note(node, path, f"{written} is written as {value}")
        elif name in ("int", "float") and "_" in written:
            self.note(node, path, f"{written} is the number {value}; text to YAML 1.2")
        elif name == "timestamp":
            kind = "a date" if type(value) is date else "a date and time"
            self.note(node, path, f"{written} is {kind}, as YAML 1.1 reads it; text to YAML 1.2")
