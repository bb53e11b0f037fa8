"""What is wrong with a configuration, where, and what to write instead; never a secret's value."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from atlasd.config import shape
from atlasd.config.places import Shadowed
from atlasd.config.units import WrongValueError
from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.errors import AtlasError, nearest

SHOWN = 60
"""Characters of a value that are shown."""
SHORTEST = 4
"""Characters of a secret that messages are searched for, at least."""
SECRET_NAME = re.compile(
    r"pass(?:word|wd|phrase)?(?:$|_)|secret|token|credential|(?:api|access|private|signing|crypt\w*)"
    r"_?key|_key$|^key$|_auth$|^auth|dsn$|cookie",
    re.IGNORECASE,
)
"""What a name has in it whose value is a secret."""
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
    shadows: str = ""
    """Of a value that is wrong: the value below it that it replaces, and where that stands."""
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
        if self.shadows:
            said += f"; it shadows {self.shadows}"
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


_PART = re.compile(r'\.?(?:"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)|\[([0-9]+)\])')


def undotted(key: str) -> KeyPath:
    """The path that a dotted key such as `services.web.command[0]` stands for.

    Parts with other characters stand in quotes, as `dotted` writes them. Raises `config.unknown`
    for what is no key.
    """
    path: list[str | int] = []
    at = 0
    while at < len(key):
        found = _PART.match(key, at)
        if found is None:
            raise AtlasError(
                "config.unknown",
                f"{key!r} is no key",
                hint="write it dotted, as services.web.instances; other characters in quotes",
            )
        quoted, plain, index = found.groups()
        path.append(json.loads(f'"{quoted}"') if quoted is not None else plain or int(index))
        at = found.end()
    return tuple(path)


def shown(value: object, path: KeyPath) -> str:
    """A value for a message: short, on one line, and not at all when it may be a secret."""
    if isinstance(value, dict | list):
        return shape.kind_in_words(value) if value else f"an empty {shape.kind_of(value)}"
    if value is None:
        return "nothing (null)"
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


def shadow_in_words(shadowed: Shadowed, path: KeyPath) -> str:
    """A value that another one replaces: `5 (conf.d/a.toml:3:8)`, or its place alone."""
    hushed = _hidden(path) or (
        isinstance(shadowed.value, str) and _URL_WITH_PASSWORD.search(shadowed.value)
    )
    if hushed:
        return f"what stands at {shadowed.place}"
    return f"{shown(shadowed.value, path)} ({shadowed.place})"


def _hidden(path: KeyPath) -> bool:
    """Whether what stands at a path may be a secret, by its name."""
    # The second key of `services.auth.user` is a name that the operator chose, and says nothing;
    # nor does `secrets` as the name of a section.
    hushed = (0, 1) if path[:1] == ("secrets",) else (1,)
    names = [
        key for number, key in enumerate(path) if isinstance(key, str) and number not in hushed
    ]
    return any(SECRET_NAME.search(name) for name in names) or (len(path) > 3 and path[2] == "env")


class Findings:
    """Problems as they are found, each given its place in the files."""

    def __init__(
        self,
        layer: Layer,
        shadowed: Callable[[KeyPath], Sequence[Shadowed]] = lambda _path: (),
        unset: Mapping[KeyPath, Position] | None = None,
    ) -> None:
        """`layer` has the data as the files have it: messages show a reference, not its value.

        `shadowed` gives the values that were replaced at a path, the lowest layer first; `unset`
        the places where keys were unset that are now missing.
        """
        self.layer = layer
        self._shadowed = shadowed
        self._unset = unset or {}
        self.problems: list[Problem] = []
        self.unresolved: set[KeyPath] = set()
        """Settings whose references stand for nothing, so that what stands there is no fault."""
        self.opaque: set[KeyPath] = set()
        """Settings that refer to something else."""
        self._concealed: list[str] = []

    def conceal(self, values: Iterable[str]) -> None:
        """Values that no message may repeat; shorter ones than a secret has would garble them."""
        found = {value for value in values if len(value) >= SHORTEST}
        self._concealed = sorted({*self._concealed, *found}, key=len, reverse=True)

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
        if not at_key and any(path[:n] in self.unresolved for n in range(len(path) + 1)):
            return
        where = self.layer.where_key(path) if at_key else self.layer.where(path)
        where = self._unset.get(path, where)
        if got is None:
            got = self._shown(path)
        self.problems.append(
            Problem(
                file=where.origin,
                line=where.line,
                column=where.column,
                key=dotted(path),
                expected=self._said(expected),
                got=self._said(got),
                hint=self._said(hint),
                shadows="" if at_key or warning else self._said(self._shadows(path)),
                warning=warning,
            )
        )

    def _shadows(self, path: KeyPath) -> str:
        below = self._shadowed(path)
        return shadow_in_words(below[-1], path) if below else ""

    def _said(self, text: str) -> str:
        for value in self._concealed:
            text = text.replace(value, "[secret]")
        return text

    def _cut(self, path: KeyPath) -> KeyPath:
        """The path without what lies inside a string that stands for a list or a table."""
        value: Any = self.layer.data
        for number, key in enumerate(path):
            if not isinstance(value, dict | list):
                return path[:number]
            try:
                value = value[key]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        return path

    def _shown(self, path: KeyPath) -> str:
        value: Any = self.layer.data
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
        if _hidden(path) or any(one[: len(path)] == path for one in self.opaque):
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
