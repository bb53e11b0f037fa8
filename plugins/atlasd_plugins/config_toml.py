"""Configuration from TOML files, with the line and column of every key and value."""

import importlib.util
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from atlasd import hookimpl
from atlasd.contracts.config import ConfigSource, KeyPath, Layer, Lines, Position
from atlasd.errors import AtlasError

ATLASD_API = 1


@hookimpl
def register_config_sources() -> list[ConfigSource]:
    """The `toml` source."""
    return [
        ConfigSource(
            name="toml", summary="TOML files, errors with line and column", suffixes=(".toml",),
            parse=parse,
        )
    ]  # fmt: skip


def parse(text: str, origin: str, /) -> Layer:
    """The settings in a TOML text, and their positions; see `atlasd.contracts.config.Parse`."""
    if text.startswith("\ufeff"):
        start = Position(origin=origin, line=1, column=1)
        raise _invalid(start, "the file begins with a byte order mark", "save it without (UTF-8)")
    late = _Late(text, origin)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError):
        data = late.data  # which raises, and knows where
    return Layer(
        origin=origin, data=data, values=_Places(late, keys=False), keys=_Places(late, keys=True)
    )


class _Late:
    """The positions in a text that is valid as a whole: found once somebody asks for one.

    Nobody does while nothing is wrong, and to find them takes as long as to parse once more.
    """

    def __init__(self, text: str, origin: str) -> None:
        self._text = text
        self._origin = origin
        # The parser does the same first; offsets are into what it then sees.
        self._source = text.replace("\r\n", "\n")

    @cached_property
    def lines(self) -> Lines:
        """What turns offsets into positions."""
        return Lines(self._source, self._origin)

    @cached_property
    def data(self) -> dict[str, Any]:
        """The settings themselves. Raises `AtlasError("config.invalid")` with a place."""
        return self._parsed[0]

    @cached_property
    def notes(self) -> "_Notes":
        """The offsets."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[dict[str, Any], "_Notes"]:
        notes = _Notes()
        source, origin = self._source, self._origin
        try:
            data: dict[str, Any] = _parser(notes).loads(self._text)
        except RecursionError:
            at = _place(origin, source, notes.opened[0].start if notes.opened else 0)
            hint = "use fewer brackets in brackets"
            raise _invalid(at, "values nested too deeply", hint) from None
        except ValueError as error:
            at = _place_of_error(origin, source, error, notes)
            words = re.sub(r" \(at [^()]*\)$", "", str(error))
            words = re.sub(r"\('.*'\)|\('.*',\)", _dotted, words)
            raise _invalid(at, words[:1].lower() + words[1:], _advice(words)) from error
        return data, notes


class _Places(Mapping[KeyPath, Position]):
    """The positions of keys, or of values."""

    def __init__(self, late: _Late, *, keys: bool) -> None:
        self._late = late
        self._keys = keys

    @property
    def _offsets(self) -> dict[KeyPath, int]:
        return self._late.notes.keys if self._keys else self._late.notes.values

    def __getitem__(self, path: KeyPath) -> Position:
        return self._late.lines.at(self._offsets[path])

    def __contains__(self, path: object) -> bool:
        return path in self._offsets

    def __iter__(self) -> Iterator[KeyPath]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)


# --- positions
#
# The standard library's parser knows where it is but doesn't tell. Each parse gets a private copy
# of its module, in which the few functions that begin a key, a value or a table write down their
# offset and then do what they always did: so the result is the standard library's own. Should a
# later Python name these functions otherwise, settings are still read, without positions.


@dataclass(kw_only=True)
class _Value:
    """A value while and after it is parsed: its own offset, key and contents."""

    start: int
    key: tuple[str, ...] = ()
    """Empty for an element of an array."""
    parts: tuple[int, ...] = ()
    """The offset of each part of the key."""
    contents: list["_Value"] = field(default_factory=list)


class _Notes:
    """Offsets, noted down while a text is parsed."""

    def __init__(self) -> None:
        self.values: dict[KeyPath, int] = {}
        self.keys: dict[KeyPath, int] = {}
        self.opened: list[_Value] = []
        """Values that have begun and not ended, the outermost first."""
        self._parts: list[int] = []
        self._key: tuple[tuple[str, ...], tuple[int, ...]] = ((), ())
        self._done: _Value | None = None

    def part(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the rule of one part of a dotted key."""

        def noting(src: str, pos: int, *rest: Any) -> Any:
            self._parts.append(pos)
            return rule(src, pos, *rest)

        return noting

    def key(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the rule of a whole key."""

        def noting(src: str, pos: int, *rest: Any) -> Any:
            self._parts = []
            after, key = rule(src, pos, *rest)
            self._key = (key, tuple(self._parts))
            return after, key

        return noting

    def value(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the rule of a value; it is called within itself for what a value contains."""

        def noting(src: str, pos: int, *rest: Any) -> Any:
            (key, parts), self._key = self._key, ((), ())
            value = _Value(start=pos, key=key, parts=parts)
            if self.opened:
                self.opened[-1].contents.append(value)
            self.opened.append(value)
            answer = rule(src, pos, *rest)
            self._done = self.opened.pop()
            return answer

        return noting

    def statement(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the rule of a `key = value` line."""

        def noting(src: str, pos: int, out: Any, header: tuple[str, ...], *rest: Any) -> Any:
            answer = rule(src, pos, out, header, *rest)
            if self._done is not None:
                self._place(self._done, _through(out.data.dict, header))
            return answer

        return noting

    def table(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the rule of a `[table]` or `[[table]]` line."""

        def noting(src: str, pos: int, out: Any, *rest: Any) -> Any:
            answer = rule(src, pos, out, *rest)
            (key, parts), self._key = self._key, ((), ())
            for length, start in enumerate(parts, 1):
                path = _through(out.data.dict, key[:length])
                named = path[:-1] if isinstance(path[-1], int) else path
                self.keys.setdefault(named, start)
                self.values.setdefault(named, start)
                self.values.setdefault(path, start)
            return answer

        return noting

    def _place(self, value: _Value, around: KeyPath) -> None:
        """Enter a value and all that it contains under their paths."""
        for length, start in enumerate(value.parts, 1):
            path = (*around, *value.key[:length])
            self.keys.setdefault(path, start)
            self.values.setdefault(path, start)
        path = (*around, *value.key)
        self.values[path] = value.start
        elements = 0
        for inner in value.contents:
            if inner.key:
                self._place(inner, path)
            else:
                self._place(inner, (*path, elements))
                elements += 1


def _through(data: Any, key: tuple[str, ...]) -> KeyPath:
    """The path that a header means: through an array of tables it goes by the last one."""
    path: list[str | int] = []
    for part in key:
        path.append(part)
        data = data[part]
        if isinstance(data, list):
            path.append(len(data) - 1)
            data = data[-1]
    return tuple(path)


def _parser(notes: _Notes) -> ModuleType:
    spec = importlib.util.find_spec("tomllib._parser")
    if spec is None or spec.loader is None:
        return tomllib
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    wrappers = {
        "parse_key_part": notes.part,
        "parse_key": notes.key,
        "parse_value": notes.value,
        "key_value_rule": notes.statement,
        "create_dict_rule": notes.table,
        "create_list_rule": notes.table,
    }
    if all(callable(getattr(copy, name, None)) for name in wrappers):
        for name, wrap in wrappers.items():
            setattr(copy, name, wrap(getattr(copy, name)))
    return copy


# --- errors


def _place(origin: str, source: str, offset: int) -> Position:
    return Lines(source, origin).at(offset)


def _place_of_error(origin: str, source: str, error: ValueError, notes: _Notes) -> Position:
    stated = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
    if stated:
        return Position(origin=origin, line=int(stated[1]), column=int(stated[2]))
    if str(error).endswith("(at end of document)"):
        return _place(origin, source, len(source))
    # A number that the parser took and Python could not: it is the innermost unfinished value.
    return _place(origin, source, notes.opened[-1].start if notes.opened else 0)


def _invalid(at: Position, words: str, hint: str) -> AtlasError:
    return AtlasError(
        "config.invalid",
        f"{at}: {words}",
        hint=hint,
        details={"origin": at.origin, "line": at.line, "column": at.column},
    )


def _dotted(key: re.Match[str]) -> str:
    """`a.b` for the tuple of a key's parts, as the parser shows it."""
    parts = re.findall(r"'((?:[^'\\]|\\.)*)'", key[0])
    return ".".join(parts)


_ADVICE = (
    ("Invalid value", 'text needs quotes: name = "value"'),
    ("Expected '=' after a key", 'a setting is written: name = "value"'),
    ("Cannot overwrite a value", "the setting stands twice; keep one"),
    ("Duplicate inline table key", "the setting stands twice; keep one"),
    ("Cannot declare", "the table stands twice; put its settings together"),
    ("Cannot mutate immutable", "a table in braces is complete; add the setting inside them"),
    ("Unescaped", "write \\\\ for a backslash, or use single quotes"),
    ("Unterminated string", "the closing quote is missing"),
    ("Exceeds the limit", "the number has too many digits"),
    ("Unclosed", "the closing bracket or a comma is missing"),
)  # fmt: skip


def _advice(words: str) -> str:
    for opening, advice in _ADVICE:
        if words.startswith(opening):
            return advice
    return "see https://toml.io for how TOML is written"
