"""Pieces of Markdown, and what the source says about its own names."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence


def cell(text: object) -> str:
    """A text as the inside of a table cell: one line, bars escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; an empty one is a sentence that says so."""
    lines = [f"| {' | '.join(cell(c) for c in row)} |" for row in rows]
    if not lines:
        return "None.\n"
    return "\n".join([f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *lines]) + "\n"


def prose(thing: object) -> str:
    """The docstring of a thing, ready to stand in a page."""
    return (inspect.getdoc(thing) or "").strip() + "\n"


def attributes(cls: type) -> Mapping[str, str]:
    """What stands below each attribute in the body of a class, as a string literal.

    Inherited attributes are included, in the order in which the classes declare them.
    """
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if owner.__module__.split(".")[0] not in ("atlasd", "atlasd_plugins"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
            name = _assigned(statement)
            if name:
                found[name] = _literal(following) or found.get(name, "")
    return found


def _assigned(statement: ast.stmt) -> str | None:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


def _literal(statement: ast.stmt | None) -> str | None:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
    return None
