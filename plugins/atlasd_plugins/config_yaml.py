"""Configuration from YAML files, with the line and column of every key and value.

Plain words are read by the core schema of YAML 1.2: `true`, `null`, `12`, `0o17`, `1.5` mean what
they look like, everything else is text. What YAML 1.1, and with it many programs, reads otherwise
(`on`, `no`, `010`, `12:30`, `1_000`) is refused with its line rather than guessed at. There are no
tags but those of the standard types and `!unset`, which drops what lower layers say of a key.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from atlasd import hookimpl
from atlasd.contracts.config import UNSET, ConfigSource, Fault, KeyPath, Layer, Lines, Offsets
from atlasd.errors import AtlasError

ATLASD_API = 1

DEEPEST = 200
"""Collections in collections; more is no configuration."""
MOST_COPIES = 20_000
"""Values that aliases may stand for, all together: a few lines of them can mean billions."""


@hookimpl
def register_config_sources() -> list[ConfigSource]:
    """The `yaml` source."""
    return [
        ConfigSource(
            name="yaml", summary="YAML files, errors with line and column",
            suffixes=(".yaml", ".yml"), parse=parse, requires=("yaml",),
        )
    ]  # fmt: skip


def parse(text: str, origin: str, /) -> Layer:
    """The settings in a YAML text, and their positions; see `atlasd.contracts.config.Parse`."""
    import yaml  # late: who has no YAML file needs none of it

    reading = _Reading(text.removeprefix("\ufeff"), origin)
    reading.refuse_unprintable()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(reading.text, Loader=loader):
            reading.event(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = error.problem or error.context or "this is no YAML"
        at = mark.index if mark is not None else 0
        raise reading.wrong(at, words, _advice(words)) from None
    reading.forget_merge_keys()
    return Layer(
        origin=origin,
        data=reading.data,
        values=Offsets(reading.lines, reading.values),
        keys=Offsets(reading.lines, reading.keys),
        faults=tuple(reading.faults),
    )


# --- plain words

_NULL = ("", "null", "Null", "NULL", "~")
_BOOLEANS = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")  # neither version's meaning is taken

_AMBIGUOUS = (
    (re.compile(r"yes|Yes|YES|on|On|ON"), "a word that YAML 1.1 takes for true", "true"),
    (re.compile(r"no|No|NO|off|Off|OFF"), "a word that YAML 1.1 takes for false", "false"),
    (_LEADING_ZERO, "digits with a zero in front, octal in YAML 1.1", "0o… for an octal number"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
        "digits with colons, a number to the base of 60 in YAML 1.1",
        "",
    ),
    (
        re.compile(r"[-+]?[0-9][0-9]*_[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"),
        "digits with underscores, a number in YAML 1.1",
        "the number without them",
    ),
    (
        re.compile(r"[-+]?0b[01_]+|[-+]0x[0-9a-fA-F_]+|0x[0-9a-fA-F]*_[0-9a-fA-F_]*"),
        "a number in YAML 1.1 only",
        "it in decimal digits",
    ),
)  # fmt: skip
"""What two versions of YAML read differently: how, and what to write if that was meant."""


def _plain(text: str) -> Any:
    """What a plain word means in YAML 1.2. Raises `ValueError` for a number of too many digits."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] not in "+-.0123456789" or _LEADING_ZERO.fullmatch(text):
        return text
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    special = _SPECIAL.fullmatch(text)
    if special is not None:
        return float("nan" if special[1] is None else special[1] + "inf")
    return text


_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}
_COLLECTIONS = {"map": dict, "seq": list}
_STANDARD = "tag:yaml.org,2002:"


# --- the events of the parser, put together


@dataclass(kw_only=True)
class _Open:
    """A collection that has begun and not ended."""

    found: dict[str, Any] | list[Any]
    path: KeyPath
    anchor: str | None
    key: str | None = None
    """Of a mapping: the key whose value comes next."""
    unset: bool = False
    merges: list[tuple[dict[str, Any], KeyPath]] = field(default_factory=list)
    """The tables that `<<` brings into a mapping, each with its path."""


class _Reading:
    """A text that is being read, and what was found in it."""

    def __init__(self, text: str, origin: str) -> None:
        self.text = text
        self.lines = Lines(text, origin)
        self.data: dict[str, Any] = {}
        self.values: dict[KeyPath, int] = {}
        self.keys: dict[KeyPath, int] = {}
        self.faults: list[Fault] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, KeyPath]] = {}
        self._merge_keys: set[KeyPath] = set()
        self._documents = 0
        self._copies = 0

    def refuse_unprintable(self) -> None:
        found = _UNPRINTABLE.search(self.text)
        if found is not None:
            raise self.wrong(
                found.start(), f"the character U+{ord(found[0]):04X}", "write it as an escape, \\x…"
            )

    def wrong(self, at: int, words: str, hint: str) -> AtlasError:
        place = self.lines.at(at)
        return AtlasError(
            "config.invalid",
            f"{place}: {words}",
            hint=hint,
            details={"origin": place.origin, "line": place.line, "column": place.column},
        )

    def fault(self, at: int, path: KeyPath, got: str, hint: str, expected: str = "") -> None:
        where = self.lines.at(at)
        self.faults.append(Fault(where=where, path=path, expected=expected, got=got, hint=hint))

    def event(self, event: Any) -> None:
        """Take in what the parser found next."""
        at = event.start_mark.index
        kind = type(event).__name__
        if kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise self.wrong(at, "a second document", "a file is one; remove the ---")
        elif kind == "ScalarEvent":
            self._scalar(event, at)
        elif kind == "AliasEvent":
            self._alias(event, at)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._begin(event, at, {} if kind.startswith("Mapping") else [])
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._end()

    def _scalar(self, event: Any, at: int) -> None:
        if self._awaits_key():
            self._key(event, at)
            return
        path = self._path()
        value = self._value(event, at, path)
        if not path:
            if value is not None:
                raise self.wrong(at, "expected settings, as `key: value`", "")
            return
        self._put(value, at, path, event.anchor)

    def _awaits_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].found, dict)
            and (self._open[-1].key is None)
        )

    def _path(self) -> KeyPath:
        """The path of the value that comes next."""
        if not self._open:
            return ()
        around = self._open[-1]
        if isinstance(around.found, list):
            return (*around.path, len(around.found))
        assert around.key is not None
        return (*around.path, around.key)

    def _key(self, event: Any, at: int) -> None:
        around = self._open[-1]
        assert isinstance(around.found, dict)
        key = event.value
        if key == "<<" and event.style in ("", None):
            around.key = key
            return
        path = (*around.path, key)
        if not key:
            self.fault(at, around.path, "nothing", "write a key before the colon", "a key")
        if key in around.found:
            line = self.lines.at(self.keys[path]).line
            got = f"the same key as in line {line}"
            self.fault(at, path, got, "keep one of the two", "each key once")
        self.keys[path] = at
        around.key = key
        if event.anchor:
            self._anchors[event.anchor] = (key, path)

    def _value(self, event: Any, at: int, path: KeyPath) -> Any:
        tag = event.tag or ""
        if tag == "!unset":
            if event.value:
                self.fault(at, path, "a value", "remove the value, or the tag", "nothing to unset")
            return dict(UNSET)
        if event.style not in ("", None) or tag == "!":
            return event.value
        name = tag.removeprefix(_STANDARD)
        if tag and (not tag.startswith(_STANDARD) or name not in _TYPES):
            self._refuse_tag(tag, at, path)
            return event.value
        if name == "str":
            return event.value
        try:
            value = _plain(event.value)
        except ValueError:
            raise self.wrong(at, "the number has too many digits", "shorten it") from None
        if name == "float" and type(value) is int:
            value = float(value)
        if name and type(value) is not _TYPES[name]:
            self.fault(at, path, "another value", "remove the tag", f"what the tag !!{name} says")
        if isinstance(value, str | int) and not name:
            self._refuse_ambiguous(event.value, at, path)
        return value

    def _refuse_ambiguous(self, text: str, at: int, path: KeyPath) -> None:
        for pattern, got, instead in _AMBIGUOUS:
            if pattern.fullmatch(text):
                hint = "write it in quotes if text is meant"
                if instead:
                    hint = f"write {instead}, or put it in quotes if text is meant"
                self.fault(at, path, got, hint, "a value that every version of YAML reads alike")
                return

    def _refuse_tag(self, tag: str, at: int, path: KeyPath) -> None:
        name = tag.replace(_STANDARD, "!!")
        hint = "remove it; of the tags there are !unset and those of the standard types"
        self.fault(at, path, f"the tag {name}", hint, "no tag")

    def _put(self, value: Any, at: int, path: KeyPath, anchor: str | None) -> None:
        around = self._open[-1]
        if isinstance(around.found, list):
            around.found.append(value)
        elif around.key == "<<":
            self._merge_key(value, at, path)
            around.key = None
            return
        else:
            assert around.key is not None
            around.found[around.key] = value
            around.key = None
        self.values[path] = at
        if anchor:
            self._anchors[anchor] = (value, path)

    def _begin(self, event: Any, at: int, found: dict[str, Any] | list[Any]) -> None:
        if self._awaits_key():
            raise self.wrong(at, "a list or a table as a key", "a key is text")
        path = self._path()
        if len(self._open) > DEEPEST:
            raise self.wrong(at, "values nested too deeply", "use fewer collections in collections")
        if not path and not isinstance(found, dict):
            raise self.wrong(at, "expected settings, as `key: value`", "a file is no list")
        tag = event.tag or ""
        unset = tag == "!unset"
        known = tag.startswith(_STANDARD) and (
            _COLLECTIONS.get(tag.removeprefix(_STANDARD)) is type(found)
        )
        if tag not in ("", "!", "!unset") and not known:
            self._refuse_tag(tag, at, path)
        if path:
            self.values[path] = at
        self._open.append(_Open(found=found, path=path, anchor=event.anchor, unset=unset))

    def _end(self) -> None:
        done = self._open.pop()
        found: Any = done.found
        if isinstance(found, dict):
            for merged, source in done.merges:
                for key in [key for key in merged if key not in found]:
                    path = (*done.path, key)
                    found[key] = self._copy(merged[key], (*source, key), path)
                    self.keys[path] = self.keys[*source, key]
        if done.unset:
            if found:
                at = self.values[done.path]
                self.fault(at, done.path, "a table", "remove what is in it", "nothing to unset")
            found = dict(UNSET)
        if not done.path:
            self.data = found
            return
        self._put(found, self.values[done.path], done.path, done.anchor)

    # --- aliases

    def _alias(self, event: Any, at: int) -> None:
        name = event.anchor
        known = self._anchors.get(name)
        if known is None:
            within = any(open_.anchor == name for open_ in self._open)
            got = "an alias of what it stands in" if within else f"an alias of no anchor (*{name})"
            raise self.wrong(at, got, "an anchor (&name) stands before its aliases")
        value, source = known
        if self._awaits_key():
            raise self.wrong(at, "an alias as a key", "write the key itself")
        path = self._path()
        if not path:
            raise self.wrong(at, "an alias in the place of settings", "write the settings")
        merges = self._open[-1].key == "<<"
        self._put(value if merges else self._copy(value, source, path), at, path, None)

    def _copy(self, value: Any, source: KeyPath, path: KeyPath) -> Any:
        """The value with its positions, which stay those of the text that it is from."""
        self._copies += 1
        if self._copies > MOST_COPIES:
            raise self.wrong(
                self.values.get(source, 0),
                f"aliases that stand for more than {MOST_COPIES} values",
                "write out what is meant",
            )
        if source in self.values:
            self.values[path] = self.values[source]
        if isinstance(value, dict):
            copied = {}
            for key, item in value.items():
                if (*source, key) in self.keys:
                    self.keys[*path, key] = self.keys[*source, key]
                copied[key] = self._copy(item, (*source, key), (*path, key))
            return copied
        if isinstance(value, list):
            return [
                self._copy(item, (*source, index), (*path, index))
                for index, item in enumerate(value)
            ]
        return value

    def _merge_key(self, value: Any, at: int, path: KeyPath) -> None:
        """`<<`: the keys of a table, or of several, where the mapping has none of its own."""
        around = self._open[-1]
        tables = list(self._tables_of(value, path))
        self._merge_keys.add(path)
        if any(not isinstance(table, dict) or table == UNSET for table, _ in tables):
            raise self.wrong(at, "expected a table, or a list of tables", "as in <<: *name")
        around.merges += tables

    def _tables_of(self, value: Any, path: KeyPath) -> Iterator[tuple[Any, KeyPath]]:
        anchored = next((p for v, p in self._anchors.values() if v is value), path)
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield item, (*anchored, index)
        else:
            yield value, anchored

    def forget_merge_keys(self) -> None:
        """Drop the positions of `<<` itself, which is no setting."""
        for known in (self.values, self.keys) if self._merge_keys else ():
            for path in list(known):
                if any(path[:length] in self._merge_keys for length in range(1, len(path) + 1)):
                    del known[path]


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_ADVICE = (
    ("found character that cannot start any token", "tabs cannot indent, and @ ` % need quotes"),
    ("found a tab character", "indent with spaces"),
    ("mapping values are not allowed", "text with `: ` needs quotes; or the line is indented"),
    ("could not find expected ':'", "a setting is written: key: value"),
    ("did not find expected key", "the line is indented otherwise than its neighbours"),
    ("did not find expected ',' or", "a comma or the closing bracket is missing"),
    ("did not find expected '-' indicator", "a list has its dashes in one column"),
    ("found unexpected end of stream", "the closing quote is missing"),
    ("block sequence entries are not allowed", "a list begins in a line of its own"),
    ("found undefined tag handle", "remove the tag"),
    ("exceeded maximum nesting depth", "use fewer collections in collections"),
)  # fmt: skip


def _advice(words: str) -> str:
    for opening, advice in _ADVICE:
        if words.startswith(opening):
            return advice
    return "see https://yaml.org for how YAML is written"
