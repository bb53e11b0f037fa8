"""How values and mistakes in settings are told to people, and what is never shown."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from atlasd.contracts.applications import Complaint
from atlasd.contracts.config import KeyPath, Layer
from atlasd.settings.tree import dotted, kind_in_words, undotted

SHOWN = 60
"""Characters of a value that are shown."""
_SECRET_NAME = re.compile(
    r"pass(?:word|wd|phrase|code)?s?(?:$|_)|secret|token|credential|dsn$|cookie|salt$|^pwd$|_pwd$"
    r"|(?:api|access|private|signing|encryption|master|license|hmac|crypt\w*)_?key|^key$|_auth$",
    re.IGNORECASE,
)
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(@)")
HIDDEN = "[not shown]"
"""In the place of a value that stands in a file in plain text and is a secret by its name."""
_URL_WITH_PASSWORD = re.compile(r"://[^/\s@:]*:[^/\s@]+@")


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret, by all that is usual."""
    return _SECRET_NAME.search(snake(name)) is not None


def snake(name: str) -> str:
    """The name with an underscore between its words: `api_key` for apiKey and api-key."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name)


def masked(value: str | float, path: KeyPath) -> str | float:
    """The value as it may be shown where it stands in plain text."""
    if any(isinstance(key, str) and is_secret_name(key) for key in path):
        return HIDDEN
    return _PASSWORD_IN_URL.sub(rf"\1{HIDDEN}\2", value) if isinstance(value, str) else value


def has_password(text: str) -> bool:
    """Whether the text has a URL with a password in it."""
    return _URL_WITH_PASSWORD.search(text) is not None


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Makes complaints about one tree of settings, each with its place."""

    layer: Layer
    """Where everything stands."""
    secrets: Mapping[KeyPath, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """As in `Filled`: what must not be told."""
    shadow: Callable[[KeyPath], str] = lambda _path: ""
    """As in `Laid`."""
    unknown: frozenset[KeyPath] = frozenset()
    """As in `Filled`: what nothing can be said of."""

    def about(
        self,
        path: KeyPath,
        *,
        value: object = None,
        expected: str = "",
        got: str | None = None,
        hint: str = "",
        at_key: bool = False,
    ) -> Complaint:
        """What is wrong with the value at `path`, which is shown if it may be, or with its key."""
        return Complaint(
            where=self.layer.where_key(path) if at_key else self.layer.where(path),
            key=dotted(path),
            expected=expected,
            got=self.shown(value, path) if got is None else got,
            hint=hint,
            shadows="" if at_key else self.shadow(path),
        )

    def shown(self, value: object, path: KeyPath) -> str:
        """A value in a message: short, on one line, and not at all when it may be a secret."""
        if isinstance(value, dict | list):
            return kind_in_words(value)
        if value is None or isinstance(value, bool):
            return json.dumps(value)
        if self.hidden(path) or (isinstance(value, str) and has_password(value)):
            return f"{kind_in_words(value)} that is not shown"
        if isinstance(value, str):
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= SHOWN else text[: SHOWN - 2] + '…"'
        return str(value)[:SHOWN]

    def hidden(self, path: KeyPath) -> bool:
        """Whether what stands at a path is, or by its name may be, a secret."""
        if any(isinstance(key, str) and is_secret_name(key) for key in path):
            return True
        return any(path[: len(secret)] == secret for secret in self.secrets)

    def concerns_unknown(self, complaint: Complaint) -> bool:
        """Whether a complaint may only come from a value that is not known."""
        path = undotted(complaint.key)
        if any(path[: len(one)] == one for one in self.unknown):
            return True
        # What the value stands in may be found wrong for its sake; its keys are what they are.
        about_keys = complaint.got in ("nothing", "unknown key")
        return not about_keys and any(one[: len(path)] == path for one in self.unknown)

    def clean(self, text: str) -> str:
        """Foreign words about the settings, without the values of secrets; short."""
        return clean(text, [v for held in self.secrets.values() for v in held.values()])


def clean(text: str, secrets: Collection[str], *, limit: int = 300) -> str:
    """The text on one line and cut to `limit`, or a sentence in its place if it shows a secret.

    A value may stand in it escaped or in part, so that nothing near one is passed on.
    """
    line = " ".join(text.split())
    for secret in secrets:
        for word in {secret, *secret.split(), json.dumps(secret)[1:-1]}:
            if word and (len(word) >= 4 or word == secret) and word in text:
                return "what it said is not shown, since a secret is in it"
    return line if len(line) <= limit else line[: limit - 1] + "…"
