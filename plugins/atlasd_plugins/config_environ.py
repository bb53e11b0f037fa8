"""Settings from variables: `ATLASD__HOST__LOG_BUDGET` is `log_budget` in the table `[host]`.

What a name means is found in the schema, so a name with `_` or `__` in it is never cut in the
wrong place, and a variable that means nothing is refused with the nearest that means something.
"""

from collections.abc import Iterator
from typing import Any

from atlasd import hookimpl
from atlasd.contracts.config import ConfigSource, Fault, KeyPath, Layer, Outline, Position
from atlasd.errors import nearest

ATLASD_API = 1

BETWEEN = "__"
"""What stands between the keys in a variable's name."""


@hookimpl
def register_config_sources() -> list[ConfigSource]:
    """The `environ` source."""
    return [
        ConfigSource(
            name="environ", summary="Variables, named as the schema has the settings",
            name_settings=name_settings,
        )
    ]  # fmt: skip


def name_settings(variables: Layer, outline: Outline, prefix: str, /) -> Layer:
    """The settings that variables mean; see `atlasd.contracts.config.NameSettings`."""
    naming = _Naming(variables, prefix)
    for name in sorted(variables.data):
        if name.startswith(prefix):
            naming.take(name, outline)
    return Layer(
        origin=variables.origin,
        data=naming.data,
        values=naming.values,
        keys=naming.values,
        faults=(*variables.faults, *naming.faults),
        text=True,
    )


class _Naming:
    """The settings that were found."""

    def __init__(self, variables: Layer, prefix: str) -> None:
        self._variables = variables
        self._prefix = prefix
        self._names: dict[KeyPath, str] = {}
        self.data: dict[str, Any] = {}
        self.values: dict[KeyPath, Position] = {}
        self.faults: list[Fault] = []

    def take(self, name: str, outline: Outline) -> None:
        """Find out what a variable means, and enter its value there."""
        parts = name.removeprefix(self._prefix).split(BETWEEN)
        paths = list(dict.fromkeys(_paths(parts, outline)))
        if not paths:
            self._fault(
                name, "a variable that means no setting", _advice(name, self._prefix, outline)
            )
        elif len(paths) > 1:
            meant = " or ".join(_dotted(path) for path in paths)
            self._fault(name, f"it may mean {meant}", "set it in a file, or with --set")
        else:
            self._enter(name, paths[0])

    def _enter(self, name: str, path: KeyPath) -> None:
        table = self.data
        for length, key in enumerate(path[:-1], start=1):
            table = table.setdefault(str(key), {})
            if not isinstance(table, dict):
                self._twice(name, self._names[path[:length]])
                return
            self.values.setdefault(path[:length], self._where(name))
        key = str(path[-1])
        if key in table:
            others = [n for p, n in self._names.items() if p[: len(path)] == path]
            self._twice(name, others[0])
            return
        table[key] = self._variables.data[name]
        self.values[path] = self._where(name)
        self._names[path] = name

    def _twice(self, name: str, other: str) -> None:
        self._fault(name, f"{other} says it too", "keep one of the two")

    def _where(self, name: str) -> Position:
        return self._variables.where((name,))

    def _fault(self, name: str, got: str, hint: str) -> None:
        self.faults.append(Fault(where=self._where(name), got=got, hint=hint))


def _paths(parts: list[str], outline: Outline) -> Iterator[KeyPath]:
    """Every way to read the parts of a name as keys, from a table on."""
    for length in range(1, len(parts) + 1):
        word = BETWEEN.join(parts[:length])
        rest = parts[length:]
        for key in _keys(word, outline, last=not rest):
            below = outline.child(key)
            if below is None:
                continue
            if not rest:
                yield (key,)
            elif "table" in below.kinds or not below.kinds:
                yield from ((key, *path) for path in _paths(rest, below))


def _keys(word: str, outline: Outline, *, last: bool) -> list[str]:
    """The keys of a table that a part of a variable's name may mean."""
    known = [key for key in dict.fromkeys((*outline.keys, *outline.names)) if _said(key) == word]
    if known or not outline.open or not word:
        return known
    name = outline.new_name(word)
    if BETWEEN in word:
        # A name with `__` in it only where nothing could stand below a shorter one.
        below = outline.child(name)
        leaf = below is not None and below.kinds and "table" not in below.kinds
        return [name] if last and leaf else []
    return [name]


def _said(key: str) -> str:
    """A key as it is written in the name of a variable."""
    return key.upper().replace("-", "_").replace(".", "_")


def _dotted(path: KeyPath) -> str:
    return ".".join(str(key) for key in path)


def _advice(name: str, prefix: str, outline: Outline) -> str:
    """The nearest variable that means something."""
    parts = name.removeprefix(prefix).split(BETWEEN)
    here = outline
    for depth, part in enumerate(parts):
        keys = dict.fromkeys((*here.keys, *here.names))
        below = next((here.child(key) for key in keys if _said(key) == part), None)
        if below is None and here.open and part:
            below = here.child(here.new_name(part))
        if below is not None and "table" in below.kinds and depth < len(parts) - 1:
            here = below
            continue
        hint = nearest(part, tuple(dict.fromkeys(map(_said, keys))))
        if not hint.startswith("did you mean "):
            return hint
        near = hint.split("'")[1]
        mended = [*parts[:depth], near, *parts[depth + 1 :]]
        if not any(_paths(mended, outline)):
            mended = [*parts[:depth], near]
        return f"did you mean {prefix + BETWEEN.join(mended)!r}?"
    return ""
