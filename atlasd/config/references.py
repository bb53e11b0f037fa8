"""References in a setting's text: found, taken apart and checked; nothing is fetched here.

    secret://[backend/]name[@selector][#field]   the whole value is the secret
    enc:v1:<key-id>:<token>                      the whole value stands here, encrypted
    …${kind:what|filter|filter}…                 inside a string: secret, env, file or cfg
    …${?kind:what}…                              the same, and nothing where there is none
    …$${…                                        the two characters ${ themselves

`${HOME}` and `${HOME:-/root}`, without a kind, are left as they are: shells have them.
"""

import base64
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from atlasd.config.units import WrongValueError
from atlasd.contracts.secrets import Reference
from atlasd.errors import nearest

KINDS = ("secret", "env", "file", "cfg")
SCHEME = "secret://"
SEALED = "enc:v1:"
LONGEST_NAME = 512
"""Characters of a secret's name; no backend takes more."""

_SEGMENT = r"[A-Za-z0-9_.+=-]+"
_ADDRESS = re.compile(
    rf"(?P<path>{_SEGMENT}(?:/{_SEGMENT})*)(?:@(?P<selector>[A-Za-z0-9_.-]+))?"
    r"(?:\#(?P<field>[^\s|{}\#\x00-\x1f\x7f]+))?"
)
_SEALED = re.compile(r"enc:v1:(?P<key>[A-Za-z0-9_.-]+):(?P<token>[A-Za-z0-9_=+/.-]+)")
_OPENING = re.compile(r"\$\$\{|\$\{")
# What a shell writes between the braces has no kind, or an operator after what looks like one.
_KIND = re.compile(
    rf"(?P<optional>\??)(?:(?P<kind>{'|'.join(KINDS)}):|(?P<other>[a-z][a-z0-9_]*):(?![-=+?]))"
)
# What may be shown of something else between braces: nobody knows what follows it.
_SHELLS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"[^.\[\]\s]+(?:\[[0-9]+\])*(?:\.[^.\[\]\s]+(?:\[[0-9]+\])*)*")

_ADDRESS_EXPECTED = "secret://[backend/]name[@version][#field]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placeholder:
    """One `${kind:what|filters}`."""

    kind: str
    """One of `KINDS`."""
    what: str
    """A secret's address, a variable's name, a path, or the key of another setting."""
    filters: tuple[str, ...] = ()
    optional: bool = False

    def __str__(self) -> str:
        mark = "?" if self.optional else ""
        return f"${{{mark}{self.kind}:{'|'.join((self.what, *self.filters))}}}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Encrypted:
    """A value that stands in the file itself, encrypted."""

    text: str = field(repr=False)
    key: str
    """Id of its key."""

    def __str__(self) -> str:
        return f"{SEALED}{self.key}:…"


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A setting's text, taken apart."""

    parts: tuple[str | Placeholder | Encrypted, ...]
    """Literal text has its escapes undone already."""
    unexpanded: str = ""
    """The first `${…}` that has no kind and stays as it is; perhaps something else was meant."""

    @property
    def whole(self) -> Placeholder | Encrypted | None:
        """What all of the text is, when there is nothing else in it."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return only if not isinstance(only, str) else None

    @property
    def placeholders(self) -> tuple[Placeholder | Encrypted, ...]:
        """The parts that stand for something else."""
        return tuple(part for part in self.parts if not isinstance(part, str))


def parse(text: str) -> Template | None:
    """What a text refers to; None for one that is only itself.

    Raises `WrongValueError`; an encrypted value is never repeated in it.
    """
    if text.startswith(SCHEME):
        return Template(parts=(_whole(text),))
    if text.startswith(SEALED):
        return Template(parts=(_sealed(text),))
    if "${" not in text:
        return None
    return _template(text)


def address(text: str, backends: Collection[str] = ()) -> Reference:
    """The secret that `[backend/]name[@selector][#field]` names.

    The first part of the path is a backend if one of `backends` is called so. Raises
    `WrongValueError`.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise WrongValueError(_ADDRESS_EXPECTED, got=_quoted(text), hint=_wrong_address(text))
    path = found["path"]
    first, slash, rest = path.partition("/")
    backend, name = (first, rest) if slash and first in backends else ("", path)
    if any(part in (".", "..") for part in path.split("/")):
        hint = "no part of a secret's name is . or .."
        raise WrongValueError(_ADDRESS_EXPECTED, got=_quoted(text), hint=hint)
    if len(name) > LONGEST_NAME:
        expected = f"a name of {LONGEST_NAME} characters at most"
        raise WrongValueError(expected, got=f"one of {len(name)}")
    return Reference(
        name=name, backend=backend, selector=found["selector"] or "", field=found["field"] or ""
    )


def escape(text: str) -> str:
    """The text such that `parse` finds no placeholder in it, and gives it back."""
    return text.replace("${", "$${")


# --- filters


def _text_filter(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    return lambda value: change(value.decode()).encode()


FILTERS: Mapping[str, Callable[[bytes], bytes]] = {
    "url": lambda value: quote(value, safe="").encode(),
    "json": _text_filter(lambda text: json.dumps(text, ensure_ascii=False)),
    "base64": base64.b64encode,
    "trim": lambda value: value.strip(),
}
"""What `|name` does: `url` for a part of a URL, `json` for a JSON string with its quotes, `base64`,
and `trim` for one without spaces and newlines around it."""


def filtered(value: bytes, filters: tuple[str, ...]) -> str:
    """The value after its filters, as text.

    Raises `ValueError`, without the value, for what is not UTF-8 text then.
    """
    try:
        for name in filters:
            value = FILTERS[name](value)
        text = value.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("text with a NUL character")
    return text


# --- the parts of a text


def _whole(text: str) -> Placeholder:
    rest = text.removeprefix(SCHEME)
    address(rest)
    return Placeholder(kind="secret", what=rest)


def _sealed(text: str) -> Encrypted:
    found = _SEALED.fullmatch(text)
    if found is None:
        hint = "encrypt it anew: `atlasctl config encrypt KEY`"
        got = "text that begins so and goes on otherwise"
        raise WrongValueError("enc:v1:<key-id>:<token>", got=got, hint=hint)
    return Encrypted(text=text, key=found["key"])


def _template(text: str) -> Template | None:
    parts: list[str | Placeholder | Encrypted] = []
    literal: list[str] = []
    unexpanded = ""
    position = 0
    while (opening := _OPENING.search(text, position)) is not None:
        literal.append(text[position : opening.start()])
        position = opening.end()
        kind = _KIND.match(text, position)
        if opening[0] == "$${":
            literal.append("${")
        elif kind is None:
            literal.append("${")
            name = _SHELLS.match(text, position)
            unexpanded = unexpanded or (f"${{{name[0]}" if name is not None else "${…")
        else:
            end = text.find("}", position)
            if end < 0:
                # What follows may be anything, a password among it.
                shown = f"${{{kind[0]}… without one"
                raise WrongValueError("a } that closes the reference", got=shown, hint=_ESCAPE)
            inside = text[opening.start() : end + 1]
            parts += [*_joined(literal), _placeholder(kind, text[kind.end() : end], inside)]
            literal = []
            position = end + 1
    literal.append(text[position:])
    parts += _joined(literal)
    return Template(parts=tuple(parts), unexpanded=unexpanded)


_ESCAPE = "write $${ for the two characters ${ themselves"


def _joined(literal: list[str]) -> list[str]:
    text = "".join(literal)
    return [text] if text else []


def _placeholder(kind: re.Match[str], rest: str, inside: str) -> Placeholder:
    name = kind["kind"]
    if name is None:
        hint = f"{nearest(kind['other'], KINDS)}; {_ESCAPE}"
        raise WrongValueError(f"{', '.join(KINDS[:-1])} or {KINDS[-1]}", got=inside, hint=hint)
    what, *filters = rest.split("|")
    for one in filters:
        if one not in FILTERS:
            hint = nearest(one, tuple(FILTERS))
            raise WrongValueError("a filter after the |", got=f"{one!r} in {inside}", hint=hint)
    _CHECKS[name](what, inside)
    return Placeholder(
        kind=name, what=what, filters=tuple(filters), optional=bool(kind["optional"])
    )


def _check_secret(what: str, inside: str) -> None:
    if what.startswith("//"):
        hint = f"inside a string it is ${{secret:{what.removeprefix('//')}}}"
        raise WrongValueError("${secret:name}", got=inside, hint=hint)
    address(what)


def _check_variable(what: str, inside: str) -> None:
    if not _VARIABLE.fullmatch(what):
        raise WrongValueError("the name of an environment variable", got=inside)


def _check_file(what: str, inside: str) -> None:
    if not what or "\0" in what or "\n" in what:
        raise WrongValueError("the path of a file", got=_quoted(inside))
    if what.startswith("~"):
        hint = "atlasd does not expand ~; write the whole path"
        raise WrongValueError("the path of a file", got=_quoted(inside), hint=hint)


def _check_key(what: str, inside: str) -> None:
    if not _KEY.fullmatch(what):
        hint = "as in ${cfg:host.environment}"
        raise WrongValueError("the key of another setting", got=_quoted(inside), hint=hint)


_CHECKS: Mapping[str, Callable[[str, str], None]] = {
    "secret": _check_secret,
    "env": _check_variable,
    "file": _check_file,
    "cfg": _check_key,
}


def _quoted(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:58] + '…"'


def _wrong_address(text: str) -> str:
    if "|" in text:
        return "filters stand in a string's reference: ${secret:name|filter}"
    if not text or text[0] in "/@#":
        return "a name is missing"
    if "//" in text or text.endswith("/"):
        return "a part of the name is empty"
    return "a name has letters, digits and _ . + = - in parts between /"
