"""What is wrong with a configuration, where, and what to write instead; never a secret's value."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from atlasd.config import shape
from atlasd.config.units import WrongValueError
from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.errors import AtlasError, nearest

SHOWN = 60
"""Characters of a value that are shown."""
_SECRET = re.compile(
    r"pass(?:word|wd|phrase)?(?:$|_)|secret|token|credential|(?:api|access|private|signing|crypt\w*)"
    r"_?key|_key$|^key$|_auth$|^auth|dsn$|cookie",
    re.IGNORECASE,
)
_URL_WITH_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]*@")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, or that deserves a warning."""

    file: str
    line: int = 0
    """From 1; 0 where there are no lines."""
    column: int = 0
    key: str = ""
    """Dotted, as `services.web.ready.http`; empty for a file as a whole."""
    expected: str = ""
    got: str = ""
    hint: str = ""
    warning: bool = False
    """It is used as it is; something about it is probably not meant."""

    def __str__(self) -> str:
        """`file:line:column: key: what was expected, what came; what may help`."""
        place = Position(origin=self.file, line=self.line, column=self.column)
        said = self.got
        if self.expected:
            said = f"expected {self.expected}" + (f", got {self.got}" if self.got else "")
        if self.hint:
            said += f"; {self.hint}"
        if self.key:
            said = f"{self.key}: {said}"
        return f"{place}: warning: {said}" if self.warning else f"{place}: {said}"

    def to_wire(self) -> dict[str, object]:
        """As JSON-able material."""
        return asdict(self)


def report(problems: Iterable[Problem]) -> str:
    """All problems, one a line, as editors and people read them."""
    return "\n".join(str(problem) for problem in problems)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Errors before warnings, each by file and line; of several about one key only the first."""
    first: dict[tuple[str, str, int], Problem] = {}
    for problem in sorted(problems, key=lambda p: p.warning):
        about = problem.key or str(problem)
        first.setdefault((about, problem.file, problem.line), problem)
    return tuple(sorted(first.values(), key=lambda p: (p.warning, p.file, p.line, p.column, p.key)))


def invalid(problems: Sequence[Problem]) -> AtlasError:
    """The error that says all of it."""
    return AtlasError(
        "config.invalid",
        report(problems),
        hint="nothing was changed; mend the configuration and try `atlasd check`",
        details={"problems": [problem.to_wire() for problem in problems]},
    )


def dotted(path: KeyPath) -> str:
    """A path as people write it: `services.web.command[0]`; quoted where TOML would need it."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            text += ("." if text else "") + (key if plain else json.dumps(key, ensure_ascii=False))
    return text


def shown(value: object, path: KeyPath) -> str:
    """A value for a message: short, on one line, and not at all when it may be a secret."""
    if isinstance(value, dict | list):
        return shape.kind_in_words(value) if value else f"an empty {shape.kind_of(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if _hidden(path):
        return f"{shape.kind_in_words(value)} that is not shown"
    if isinstance(value, str):
        if _URL_WITH_PASSWORD.search(value):
            return "a string with a password, that is not shown"
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= SHOWN else text[: SHOWN - 2] + '…"'
    return str(value)[:SHOWN]


def _hidden(path: KeyPath) -> bool:
    """Whether what stands at a path may be a secret, by its name."""
    # The second key of `services.auth.user` is a name that the operator chose, and says nothing.
    names = [key for number, key in enumerate(path) if isinstance(key, str) and number != 1]
    return any(_SECRET.search(name) for name in names) or (len(path) > 3 and path[2] == "env")


class Findings:
    """Problems as they are found, each given its place in the files."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.problems: list[Problem] = []

    def add(
        self,
        path: KeyPath,
        *,
        expected: str = "",
        got: str | None = None,
        hint: str = "",
        at_key: bool = False,
        warning: bool = False,
    ) -> None:
        """Note a problem with the value at `path` (`at_key`: with its key).

        Without `got`, the value itself is shown, if it may be.
        """
        path = self._cut(path)
        where = self._layer.where_key(path) if at_key else self._layer.where(path)
        if got is None:
            got = self._shown(path)
        self.problems.append(
            Problem(
                file=where.origin,
                line=where.line,
                column=where.column,
                key=dotted(path),
                expected=expected,
                got=got,
                hint=hint,
                warning=warning,
            )
        )

    def _cut(self, path: KeyPath) -> KeyPath:
        """The path without what lies inside a string that stands for a list or a table."""
        value: Any = self._layer.data
        for number, key in enumerate(path):
            if not isinstance(value, dict | list):
                return path[:number]
            try:
                value = value[key]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        return path

    def _shown(self, path: KeyPath) -> str:
        value: Any = self._layer.data
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return ""
        return shown(value, path)

    def take(
        self,
        error: ValidationError,
        path: KeyPath,
        data: object,
        model: type[BaseModel],
        *,
        extra_keys: Sequence[str] = (),
    ) -> set[str]:
        """Note everything that pydantic found in `data`, which stands at `path`.

        Gives the names of the top-level keys that are to blame. `extra_keys` are known beside the
        model's own.
        """
        blamed = set()
        for found in error.errors(include_url=False, include_input=False):
            below = tuple(_within(found["loc"], data, missing=found["type"] == "missing"))
            if below:
                blamed.add(str(below[0]))
            self._one(found, path, below, model, extra_keys)
        return blamed

    def _one(
        self,
        found: Mapping[str, Any],
        above: KeyPath,
        below: KeyPath,
        model: type[BaseModel],
        extra_keys: Sequence[str],
    ) -> None:
        path = (*above, *below)
        context = found.get("ctx", {})
        wrong = context.get("error")
        # The schema's own way there is longer where the data has a short form.
        here = shape.at(tuple(found["loc"]), model) or shape.at(below, model)
        if found["type"] == "extra_forbidden":
            table = shape.at(below[:-1], model)
            known = (*(table.keys if table else ()), *(extra_keys if len(below) == 1 else ()))
            self.add(
                path,
                got="unknown key",
                hint=nearest(str(below[-1]), tuple(known)),
                at_key=True,
            )
        elif found["type"] == "missing":
            expected = here.expected if here is not None else "a value"
            self.add(path, expected=expected, got="nothing", at_key=True)
        elif isinstance(wrong, WrongValueError):
            where = (*path, *wrong.below)
            self.add(where, expected=wrong.expected, got=wrong.got or None, hint=wrong.hint)
        elif found["type"] == "value_error":
            self._in_own_words(path, str(wrong))
        else:
            self.add(path, expected=_expected(found, context, here))

    def _in_own_words(self, path: KeyPath, said: str) -> None:
        """A plugin's model said what is wrong; it knows nothing of what may be shown."""
        if _hidden(path):
            self.add(path, expected="another value")
        elif said.startswith("expected "):
            self.add(path, expected=said.removeprefix("expected "))
        else:
            self.add(path, got=said)


def _within(loc: Sequence[str | int], data: object, *, missing: bool) -> Iterator[str | int]:
    """The parts of pydantic's location that are keys and indexes of the data.

    The others name what the data was turned into: a string that stands for a table, say.
    """
    value: Any = data
    for number, part in enumerate(loc):
        if isinstance(value, dict):
            known = part in value
        else:
            known = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if known:
            value = value[part]
            yield part
        elif missing and number == len(loc) - 1:
            yield part


_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _expected(
    found: Mapping[str, Any], context: Mapping[str, Any], here: shape.Shape | None
) -> str:
    kind = str(found["type"])
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        bound = context[name]
        if here is not None and here.spelling is not None:
            return f"{words} {here.spelling.show(bound)}"
        return f"{words} {bound:g}"
    if kind == "finite_number":
        return "a finite number"
    if here is not None:
        return here.expected
    text = str(found["msg"])
    return text[:1].lower() + text[1:]
