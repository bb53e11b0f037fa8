"""The kinds of setting: each reads what TOML has and says what it expects."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from atlasd.config import units
from atlasd.config.units import WrongValueError

T = TypeVar("T")

COMMAND = "a command: a list of words, or a string that is split as a shell would split it"
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Section(BaseModel):
    """A table of the configuration: strict types, no unknown keys, frozen."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        # A validation error may land in a log; the values may be secrets.
        hide_input_in_errors=True,
    )


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How a setting may be written, and the function that reads it; stands in its annotation."""

    expected: str
    """For people: what the setting takes."""
    kinds: frozenset[str]
    """The kinds of TOML value that it takes: string, number, boolean, list, table."""
    parse: Callable[[Any], Any]
    """From the TOML value to the field's own type; raises `WrongValueError`."""
    show: Callable[[Any], Any] = lambda value: value
    """From the field's own type to a TOML value that is read the same."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.parse, handler(source))


def spelled(
    parse: Callable[[Any], Any],
    expected: str,
    *kinds: str,
    show: Callable[[Any], Any] = lambda value: value,
) -> Spelling:
    """A `Spelling`, in fewer words."""
    return Spelling(expected=expected, kinds=frozenset(kinds), parse=parse, show=show)


def _words(value: object) -> tuple[str, ...]:
    """The words of a command. Its text is never repeated: a password may be among the words."""
    if isinstance(value, str):
        try:
            words: list[Any] = shlex.split(value)
        except ValueError as error:
            said = str(error).lower().removeprefix("no ")
            raise WrongValueError(COMMAND, got=f"a string with no {said}") from None
    elif isinstance(value, list):
        words = value
    else:
        raise WrongValueError(COMMAND)
    for index, word in enumerate(words):
        if not isinstance(word, str):
            raise WrongValueError("a word in quotes", below=(index,))
        if "\0" in word:
            raise WrongValueError(COMMAND, got="a word with a NUL character")
    if not words or not words[0]:
        raise WrongValueError(COMMAND, got="nothing to run")
    return tuple(words)


def _one_or_more(expected: str, item: str) -> Callable[[object], tuple[str, ...]]:
    def parse(value: object) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise WrongValueError(expected)
        for index, one in enumerate(items):
            if not isinstance(one, str) or not one:
                raise WrongValueError(item, below=(index,))
            if one in items[:index]:
                raise WrongValueError("each of the list once", below=(index,))
        return tuple(items)

    return parse


def _pattern(text: object) -> str:
    expected = "a regular expression, as a string"
    if not isinstance(text, str) or not text:
        raise WrongValueError(expected)
    try:
        re.compile(text)
    except re.error as error:
        raise WrongValueError(expected, hint=str(error)) from None
    return text


def _absolute(text: object) -> str:
    if not isinstance(text, str) or not text.startswith("/") or "\0" in text:
        hint = "atlasd expands neither ~ nor variables" if str(text)[:1] in ("~", "$") else ""
        raise WrongValueError('an absolute path such as "/run/shop/ready"', hint=hint)
    return text


def _path(text: object) -> str:
    expected = "a path; a relative one starts at the folder of the file that says it"
    if not isinstance(text, str) or not text or "\0" in text:
        raise WrongValueError(expected)
    if text.startswith("~"):
        raise WrongValueError(expected, hint="atlasd does not expand ~; write the whole path")
    return text


def _account(value: object) -> str:
    expected = "the name or number of an account"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", value):
        raise WrongValueError(expected)
    return value


def _variables(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise WrongValueError(_VARIABLES)
    found = {}
    for name, text in value.items():
        if not ENV_NAME.fullmatch(name):
            expected = "a variable's name of letters, digits and _, no digit first"
            raise WrongValueError(expected, got=repr(name), below=(name,))
        if isinstance(text, int) and not isinstance(text, bool):
            # Whole numbers have one spelling; 1.10 and true would have to be guessed at.
            found[name] = str(text)
        elif isinstance(text, str) and "\0" not in text:
            found[name] = text
        else:
            hint = "put the value in quotes" if isinstance(text, bool | float) else ""
            got = "text with a NUL character" if isinstance(text, str) else ""
            raise WrongValueError("text", got=got, hint=hint, below=(name,))
    return found


def _rlimit(parse: Callable[[object], int]) -> Callable[[object], int]:
    def read(value: object) -> int:
        # RLIM_INFINITY is -1 for setrlimit; nobody should have to know.
        return -1 if value == "unlimited" else parse(value)

    return read


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WrongValueError('a whole number of at least 0, or "unlimited"')
    return value


def _exit_codes(value: object) -> tuple[int, ...]:
    return _each(value, "a list of exit codes, 0 to 255", _exit_code)


def _exit_code(value: object) -> int:
    if type(value) is not int or not 0 <= value <= 255:
        raise WrongValueError("an exit code, 0 to 255")
    return value


def _signals(value: object) -> tuple[str, ...]:
    return _each(value, "a list of signals' names", units.parse_signal)


def _each(value: object, expected: str, parse: Callable[[object], T]) -> tuple[T, ...]:
    """The items of a list, each parsed; what is wrong with one is said of that one."""
    if not isinstance(value, list):
        raise WrongValueError(expected)
    found = []
    for index, item in enumerate(value):
        try:
            found.append(parse(item))
        except WrongValueError as error:
            raise WrongValueError(
                error.expected, hint=error.hint, got=error.got, below=(index,)
            ) from None
    return tuple(found)


def _statuses(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list):
        return (units.parse_statuses(value),)
    if not value:
        raise WrongValueError("at least one HTTP status")
    return _each(value, units.STATUS, units.parse_statuses)


_VARIABLES = 'a table of environment variables: NAME = "text"'
_EDGES = 'a list of services, each "NAME" or "NAME:CONDITION"'
_PATHS = "a path or a list of paths"
_NAMES = "a name or a list of names"

Duration = Annotated[
    float, spelled(units.parse_duration, units.DURATION, "string", show=units.format_duration)
]
Size = Annotated[
    int, spelled(units.parse_size, units.SIZE, "string", "number", show=units.format_size)
]
SignalName = Annotated[str, spelled(units.parse_signal, units.SIGNAL, "string")]
SignalNames = Annotated[tuple[str, ...], spelled(_signals, "a list of signals' names", "list")]
Mode = Annotated[int, spelled(units.parse_mode, units.MODE, "string", show="{:04o}".format)]
Statuses = Annotated[
    tuple[tuple[int, int], ...],
    spelled(
        _statuses,
        f"{units.STATUS}, or a list of them",
        "number",
        "string",
        "list",
        show=lambda ranges: [f"{low}-{high}" for low, high in ranges],
    ),
]
ListenAddress = Annotated[str, spelled(units.parse_listen, units.LISTEN, "string")]
TcpTarget = Annotated[str, spelled(units.parse_tcp_target, units.TCP_TARGET, "string")]
SocketAddress = Annotated[str, spelled(units.parse_socket_address, units.SOCKET_ADDRESS, "string")]
HttpUrl = Annotated[str, spelled(units.parse_http_url, units.HTTP_URL, "string")]
Pattern = Annotated[str, spelled(_pattern, "a regular expression", "string")]
AbsolutePath = Annotated[str, spelled(_absolute, "an absolute path", "string")]
FilePath = Annotated[str, spelled(_path, "a path", "string")]
FilePaths = Annotated[
    tuple[str, ...], spelled(_one_or_more(_PATHS, "a path"), _PATHS, "string", "list")
]
Command = Annotated[tuple[str, ...], spelled(_words, COMMAND, "string", "list")]
Account = Annotated[str, spelled(_account, "an account", "string", "number")]
Variables = Annotated[dict[str, str], spelled(_variables, _VARIABLES, "table")]
VariableNames = Annotated[
    tuple[str, ...],
    spelled(
        _one_or_more("a list of variables' names", "a name"),
        "a list of variables' names",
        "string",
        "list",
    ),
]
Edges = Annotated[
    tuple[str, ...],
    spelled(_one_or_more(_EDGES, '"NAME" or "NAME:CONDITION"'), _EDGES, "string", "list"),
]
Names = Annotated[
    tuple[str, ...], spelled(_one_or_more(_NAMES, "a name"), _NAMES, "string", "list")
]
ExitCodes = Annotated[tuple[int, ...], spelled(_exit_codes, "a list of exit codes", "list")]
RlimitSize = Annotated[
    int, spelled(_rlimit(units.parse_size), f'{units.SIZE}, or "unlimited"', "string", "number")
]
RlimitCount = Annotated[
    int, spelled(_rlimit(_count), 'a whole number, or "unlimited"', "string", "number")
]


def setting(default: Any, description: str, **rules: Any) -> Any:
    """A field with its default and the description that reference and error hints are made of."""
    return Field(default, description=description, **rules)
