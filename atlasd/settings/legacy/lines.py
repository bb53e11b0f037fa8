"""Existing `.env`, INI and JSON files, read by the sources of configuration, and looked at."""

import re
from collections.abc import Iterator, Mapping

from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.settings.legacy.comments import collect
from atlasd.settings.legacy.source import Existing, Note, Parse, refused
from atlasd.settings.tree import dotted, nodes

_REFERS = re.compile(r"(?<![\\$])\$(?:\{[A-Za-z_]|[A-Za-z_])")
_COMMENT = re.compile(r"""(?:^|[ \t])\#(?P<said>.*)$""")
_EXPORT = re.compile(r"[ \t]*export[ \t]")
_INTERPOLATED = re.compile(r"%\([^)]+\)s|(?<!\$)\$\{[^}]+\}")


def _checked(layer: Layer) -> list[Note]:
    """What the source says of the text. Raises `AtlasError` for what it could not read."""
    notes = []
    for fault in layer.faults:
        if not fault.warning and not _is_double(fault.got):
            said = f"expected {fault.expected}, got {fault.got}" if fault.expected else fault.got
            raise refused(fault.where, said, fault.hint or "mend the line, or take it out")
        what = fault.got
        if _is_double(what):
            what = f"{what}; this last one counts, the other is left out"
        notes.append(Note(where=fault.where, key=dotted(fault.path), what=what))
    return notes


def _is_double(got: str) -> bool:
    return " again, which line" in got or got.startswith("the same key as in line")


def _lines_of(places: Mapping[KeyPath, Position]) -> dict[KeyPath, int]:
    return {path: where.line for path, where in places.items()}


def _continued(layer: Layer) -> set[int]:
    """Lines that belong to a value which goes over several."""
    found: set[int] = set()
    for path, value in nodes(layer.data):
        if isinstance(value, str) and "\n" in value:
            start = layer.where(path).line
            found.update(range(start + 1, start + 1 + value.count("\n")))
    return found


def read_env(text: str, origin: str, dialect: str, parse: Parse) -> Existing:
    """The variables of a `.env` file, each under its own name."""
    layer = parse(text, origin, "dotenv", dialect)
    notes = _checked(layer)
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    for name, value in layer.data.items():
        notes += _about_variable(name, value, layer, lines, dialect)
    comments, closing = collect(text, _lines_of(layer.keys), marks="#", inside=_continued(layer))
    for path, said in _behind(layer, lines, dialect):
        comments[path] = (*comments.get(path, ()), said)
    return Existing(
        tree=dict(layer.data),
        positions=dict(layer.values),
        comments=comments,
        closing=closing,
        notes=tuple(sorted(notes, key=lambda note: (note.where.line, note.where.column))),
    )


def _raw(where: Position, lines: list[str]) -> str:
    """What stands from a place to the end of its line."""
    return lines[where.line - 1][where.column - 1 :] if where.line else ""


def _about_variable(
    name: str, value: str, layer: Layer, lines: list[str], dialect: str
) -> Iterator[Note]:
    where = layer.where((name,))
    raw = _raw(where, lines)
    bare = raw.strip()

    def note(what: str) -> Note:
        return Note(where=where, key=dotted((name,)), what=what)

    if _EXPORT.match(lines[layer.where_key((name,)).line - 1]):
        yield note("export is left out: every setting reaches the program")
    single = bare.startswith("'")
    if dialect in ("bash", "compose") and not single and _REFERS.search(raw):
        yield note(
            "the variables in it are replaced by what they stand for; a change of them changes it "
            "no longer"
        )
    if dialect != "docker" and bare[:1] in ("'", '"') and value != bare:
        yield note(f"its quotes and escapes are taken off, as {dialect} does")
    elif dialect != "docker" and "\\" in bare and value != bare:
        yield note(f"its escapes are taken off, as {dialect} does")


def _behind(layer: Layer, lines: list[str], dialect: str) -> Iterator[tuple[KeyPath, str]]:
    """Comments on the same line as a value, where the dialect has any."""
    if dialect not in ("bash", "compose"):
        return
    for name, value in layer.data.items():
        raw = _raw(layer.where((name,)), lines)
        found = _COMMENT.search(raw)
        if found is not None and found["said"].strip() and found["said"] not in value:
            yield (name,), found["said"].strip()


def read_ini(text: str, origin: str, parse: Parse) -> Existing:
    """The sections of an INI file as tables, all values text."""
    layer = parse(text, origin, "ini", "")
    notes = _checked(layer)
    for path, value in nodes(layer.data):
        where = layer.where(path)
        key = str(path[-1])
        if isinstance(value, str):
            if key != key.lower():
                what = "Python's configparser reads its key in small letters; it stays as it stands"
                notes.append(Note(where=where, key=dotted(path), what=what))
            if _INTERPOLATED.search(value):
                what = "what looks like an interpolation is taken as it stands"
                notes.append(Note(where=where, key=dotted(path), what=what))
            if "\n" in value:
                what = "its lines are taken without what they were indented by"
                notes.append(Note(where=where, key=dotted(path), what=what))
        elif path == ("DEFAULT",):
            what = "[DEFAULT] is a table of its own: other tables do not inherit from it"
            notes.append(Note(where=where, key="DEFAULT", what=what))
    comments, closing = collect(text, _lines_of(layer.keys), marks="#;", inside=_continued(layer))
    return Existing(
        tree=dict(layer.data),
        positions=dict(layer.values),
        comments=comments,
        closing=closing,
        notes=tuple(sorted(notes, key=lambda note: (note.where.line, note.where.column))),
    )


def read_json(text: str, origin: str, parse: Parse) -> Existing:
    """A JSON file; null is still in it."""
    layer = parse(text, origin, "json", "")
    return Existing(
        tree=dict(layer.data), positions=dict(layer.values), notes=tuple(_checked(layer))
    )
