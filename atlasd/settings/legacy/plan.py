"""The taking over of existing files, thought through to its end before anything is written."""

import copy
import math
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Protocol

from atlasd.contracts.config import KeyPath, Position
from atlasd.errors import AtlasError
from atlasd.settings.legacy.lines import read_env, read_ini, read_json
from atlasd.settings.legacy.secrets import name_of, suspects
from atlasd.settings.legacy.source import Existing, Note, Parse, form_of, refused
from atlasd.settings.legacy.toml import write
from atlasd.settings.legacy.yaml import read_yaml
from atlasd.settings.schema import Schema
from atlasd.settings.tree import at, dotted, nodes, put
from atlasd.settings.typed import convert
from atlasd.settings.words import is_secret_name


class References(Protocol):
    """The rules by which texts of a configuration refer to something."""

    def escape(self, text: str) -> str | None:
        """The text such that it is read as itself; None if that cannot be said."""

    def meaning(self, text: str, secrets: Mapping[str, str]) -> str:
        """What a text stands for. Raises `KeyError` for a secret that is not among them."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be taken over, and how."""

    files: tuple[Path, ...]
    out: Path
    """A file for one, a folder for several."""
    format: str = ""
    """Empty: by the files' names."""
    dialect: str = "bash"
    keep_secrets: bool = False
    name: str = ""
    """What names of secrets begin with; empty: the file's name."""
    schema: Path | None = None
    """A JSON Schema, by which text becomes typed and names of variables lead to nested keys."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One file, taken over in mind."""

    source: Path
    target: Path
    text: str = field(repr=False)
    """What is to be written; references in the place of secrets that are to be moved."""
    tree: dict[str, Any] = field(repr=False)
    """What the source means, as far as TOML can say it: what the text must mean."""
    secrets: Mapping[str, str] = field(repr=False)
    """Those to be moved, by their names in the store."""
    notes: tuple[Note, ...]
    operators: bool
    """Whether there are keys that would be taken for operators."""
    variables: Mapping[str, str]
    """Names of variables that would not be made of the keys, with their keys."""
    mode: int


def plan(wanted: Wanted, parse: Parse, references: References) -> tuple[Taken, ...]:
    """Every file, taken over and proved to mean the same; nothing is written.

    Raises `AtlasError`: `config.missing`, or `config.invalid` for what cannot be taken over.
    """
    schema = Schema.load(wanted.schema) if wanted.schema is not None else None
    taken: list[Taken] = []
    names: set[str] = set()
    for source in wanted.files:
        one = _take(source, wanted, parse, references, schema, names)
        twin = next((other for other in taken if other.target == one.target), None)
        if twin is not None:
            raise AtlasError(
                "usage",
                f"{twin.source} and {one.source} would both become {one.target}",
                hint="take them over one by one, each with an --out of its own",
            )
        prove(one, parse, references, one.secrets)
        taken.append(one)
        names |= one.secrets.keys()
    return tuple(taken)


def prove(
    one: Taken, parse: Parse, references: References, secrets: Mapping[str, str], text: str = ""
) -> None:
    """Read what was (or is to be) written, and hold it against what the source means.

    Raises `AtlasError` `config.invalid` if they differ, which would be a fault of this program.
    """
    layer = parse(text or one.text, str(one.target), "toml", "")
    try:
        found = _meant(layer.data, references, secrets)
    except KeyError as error:
        raise AtlasError(
            "config.invalid",
            f"{one.source}: a secret is not as it was put: {error.args[0]}; nothing was changed",
        ) from None
    if not _same(found, one.tree):
        path = next(iter(_differences(found, one.tree)), ())
        raise AtlasError(
            "config.invalid",
            f"{one.source}: {dotted(path) or 'the file'} would not mean the same in {one.target}; "
            "nothing was written",
            hint="please report it; take this setting over by hand",
        )


def _meant(value: Any, references: References, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _meant(item, references, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_meant(item, references, secrets) for item in value]
    return references.meaning(value, secrets) if isinstance(value, str) else value


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, types included: 1, 1.0 and true are equal to Python."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def _differences(one: Any, other: Any) -> list[KeyPath]:
    left, right = dict(nodes(one)), dict(nodes(other))
    return [
        path
        for path in dict.fromkeys((*left, *right))
        if path not in left or path not in right or not _same(left[path], right[path])
    ]


# --- one file


def read(source: Path, form: str, dialect: str, parse: Parse) -> tuple[Existing, int]:
    """What an existing file means, and the permissions it has."""
    try:
        found = source.stat()
        if not stat.S_ISREG(found.st_mode):  # a named pipe would be waited for
            raise AtlasError(
                "config.invalid",
                f"{source}: it is no regular file",
                hint="write what is in it to a file, and take that over",
            )
        raw = source.read_bytes()
        mode = found.st_mode & 0o777
    except (FileNotFoundError, NotADirectoryError):
        raise AtlasError("config.missing", f"{source}: there is no such file") from None
    except OSError as error:
        raise AtlasError("config.invalid", f"{source}: cannot be read: {error.strerror}") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        where = Position(origin=str(source), line=line, column=1)
        hint = "save it as UTF-8: iconv -f latin1 -t utf-8"
        raise refused(where, "not UTF-8 text", hint) from None
    origin = str(source)
    if form == "yaml":
        return read_yaml(text, origin), mode
    if form == "env":
        return read_env(text, origin, dialect, parse), mode
    reader: Callable[[str, str, Parse], Existing] = read_json if form == "json" else read_ini
    return reader(text, origin, parse), mode


def _take(
    source: Path,
    wanted: Wanted,
    parse: Parse,
    references: References,
    schema: Schema | None,
    names: set[str],
) -> Taken:
    form = wanted.format or form_of(source)
    existing, mode = read(source, form, wanted.dialect, parse)
    target = _target(source, wanted)
    work = _Work(existing, source)
    work.leave_out_nulls()
    variables: dict[str, str] = {}
    if form in ("env", "ini") and schema is not None:
        variables = work.typed(schema, nested=form == "env")
    elif form == "env":
        variables = {name: dotted((name,)) for name in work.tree if name != name.upper()}
    work.name_operators()
    expected = copy.deepcopy(work.tree)
    secrets: dict[str, str] = {}
    work.escape(references)
    prefix = wanted.name or _stem(source)
    for one in suspects(expected):
        if wanted.keep_secrets:
            work.note(one.path, f"looks like a secret ({one.why}) and stays in plain text")
            continue
        name = name_of(prefix, one.path, {*names, *secrets})
        secrets[name] = one.value
        work.set(one.path, f"secret://{name}")
        work.note(one.path, f"looks like a secret ({one.why}); it becomes secret://{name}")
    return Taken(
        source=source,
        target=target,
        text=write(work.tree, work.above, closing=existing.closing),
        tree=expected,
        secrets=secrets,
        notes=tuple(sorted(work.notes, key=lambda note: (note.where.line, note.where.column))),
        variables=variables,
        operators=work.operators,
        mode=mode,
    )


def _target(source: Path, wanted: Wanted) -> Path:
    if len(wanted.files) == 1 and wanted.out.suffix == ".toml":
        return wanted.out
    return wanted.out / f"{_stem(source)}.toml"


def _stem(source: PurePath) -> str:
    """What a file is called without its ending: `.env.local` is env-local, `.env` env."""
    name = source.name.lstrip(".")
    stem = name.rpartition(".")[0] if "." in name and not name.startswith("env") else name
    return stem.replace(".", "-") or "settings"


class _Work:
    """A tree that becomes fit for TOML, and what that takes."""

    def __init__(self, existing: Existing, source: Path) -> None:
        self.tree = copy.deepcopy(existing.tree)
        self.notes = list(existing.notes)
        self.operators = False
        """Whether there are keys that would be taken for operators."""
        self._existing = existing
        self._source = source
        self._comments = dict(existing.comments)

    def above(self, path: KeyPath) -> tuple[str, ...]:
        """The comments above a key."""
        return self._comments.get(path, ())

    def where(self, path: KeyPath) -> Position:
        for length in range(len(path), 0, -1):
            found = self._existing.positions.get(path[:length])
            if found is not None:
                return found
        return Position(origin=str(self._source))

    def note(self, path: KeyPath, what: str) -> None:
        self.notes.append(Note(where=self.where(path), key=dotted(path), what=what))

    def set(self, path: KeyPath, value: object) -> None:
        at(self.tree, path[:-1])[path[-1]] = value

    def leave_out_nulls(self) -> None:
        """TOML has no null: a key is left out, an item of a list cannot be."""
        for path, value in list(nodes(self.tree)):
            if isinstance(value, float) and not math.isfinite(value):
                self.note(path, f"{value} is a number that JSON and many programs do not have")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                self.note(path, "the number is larger than some readers of TOML take")
            if value is not None:
                continue
            if isinstance(path[-1], int):
                raise refused(
                    self.where(path),
                    f"{dotted(path)}: null in a list, which TOML cannot say",
                    "take it out of the list, or write what is meant",
                )
            self.note(path, "null is left out: TOML has none, and who asks finds nothing")
        self.tree = _without_nulls(self.tree)

    def typed(self, schema: Schema, *, nested: bool) -> dict[str, str]:
        """Text typed by a schema; names of variables become the keys that they mean.

        Gives the names that would not be made of their keys.
        """
        from atlasd.settings.names import AmbiguousError, Known, variable

        known = Known.of("", {}, schema.paths())
        made: dict[str, Any] = {}
        variables: dict[str, str] = {}
        for path, text in list(nodes(self.tree)):
            if isinstance(text, dict):
                continue
            target = path
            if nested:
                try:
                    target = known.path(str(path[0]))
                except AmbiguousError as error:
                    raise refused(
                        self.where(path),
                        f"{dotted(path)} could mean {' or '.join(error.keys)}",
                        "write it as TABLE__KEY",
                    ) from None
            value = convert(text, schema.kinds(target)) if isinstance(text, str) else text
            if value is None:
                value = text
            if not put(made, target, value):
                raise refused(
                    self.where(path),
                    f"{dotted(path)} would be {dotted(target)}, where another setting is",
                    "take one of the two out",
                )
            if nested and variable("", target) != path[0]:
                variables[str(path[0])] = dotted(target)
            self._moved(path, target, text, value)
        self.tree = made
        return variables

    def _moved(self, path: KeyPath, target: KeyPath, text: object, value: object) -> None:
        if path in self._comments and path != target:
            self._comments[target] = self._comments.pop(path)
        if path != target:
            self.note(path, f"becomes {dotted(target)}, as the schema calls it")
        if value != text:
            secret = any(isinstance(key, str) and is_secret_name(key) for key in target)
            said = "typed" if secret else f"the text {text!r} becomes {value!r}"
            self.note(path, f"{said}, as the schema expects")

    def name_operators(self) -> None:
        """Tell of keys that mean something else in files of configuration."""
        for path, _ in nodes(self.tree):
            key = path[-1]
            if isinstance(key, str) and len(key) > 1 and key[-1] in "+-":
                self.operators = True
                self.note(path, "such a key is an operator unless the set says operators = false")

    def escape(self, references: References) -> None:
        """Have text that looks like a reference read as itself."""
        for path, value in list(nodes(self.tree)):
            if not isinstance(value, str):
                continue
            escaped = references.escape(value)
            if escaped is None:
                raise refused(
                    self.where(path),
                    f"{dotted(path)}: the text would be taken for a reference to a secret",
                    "take it out of the file, and set it by hand afterwards",
                )
            if escaped != value:
                self.set(path, escaped)
                self.note(path, "${ is written $${, so that it stays as it is")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def summary(taken: Sequence[Taken]) -> dict[str, int]:
    """How many settings, steps and secrets there are."""
    return {
        "settings": sum(sum(1 for _ in nodes(one.tree)) for one in taken),
        "notes": sum(len(one.notes) for one in taken),
        "secrets": sum(len(one.secrets) for one in taken),
    }
