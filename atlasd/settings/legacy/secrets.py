"""What looks like a secret in settings that were written before there was a place for secrets."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from atlasd.contracts.config import KeyPath
from atlasd.settings.tree import nodes
from atlasd.settings.words import has_password, is_secret_name, snake

_SHAPES = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), "a key of AWS"),
    (re.compile(r"\b(?:gh[pousr]|github_pat)_[A-Za-z0-9_]{30,}"), "a GitHub token"),
    (re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"), "a GitLab token"),
    (re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"), "a Slack token"),
    (re.compile(r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"), "a Stripe key"),
    (re.compile(r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"), "a SendGrid key"),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{35}"), "a Google key"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\."), "a JSON web token"),
)  # fmt: skip
_ABOUT_ONE = re.compile(
    r"(?:_|^)(?:url|uri|endpoint|file|path|dir|ttl|timeout|age|expiry|expires?(?:_in)?|lifetime"
    r"|length|size|min|max|count|name|header|field|id|enabled|required|type|alg|algorithm|policy"
    r"|hint|prefix|provider|backend|store|manager|rounds|scope|audience|issuer|seconds|minutes"
    r"|hours|days|domain|secure|samesite|httponly)$",
    re.IGNORECASE,
)
"""Ends of names that speak of a secret and are none: TOKEN_TTL, PASSWORD_MIN_LENGTH."""
_NO_SECRETS = frozenset(
    {"", "none", "null", "nil", "true", "false", "yes", "no", "on", "off", "changeme", "change-me",
     "change_me", "todo", "tbd", "xxx", "***", "...", "-", "n/a", "your-secret-here", "secret",
     "password", "example"}
)  # fmt: skip
_PART = re.compile(r"[^a-z0-9_.+=-]+")


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A value that looks like a secret."""

    path: KeyPath
    value: str = field(repr=False)
    why: str


def suspects(tree: Mapping[str, Any]) -> Iterator[Suspect]:
    """The texts that look like secrets, by their names or by themselves."""
    for path, value in nodes(tree):
        if isinstance(value, str):
            why = _why(path, value)
            if why:
                yield Suspect(path=path, value=value, why=why)


def _why(path: KeyPath, value: str) -> str:
    for shape, what in _SHAPES:
        if shape.search(value):
            return f"it is {what}"
    if has_password(value):
        return "it is a URL with a password"
    text = value.strip().lower()
    if text in _NO_SECRETS or (text.isdecimal() and len(text) < 6):
        return ""
    name = next((key for key in reversed(path) if isinstance(key, str)), "")
    if is_secret_name(name) and not _ABOUT_ONE.search(snake(name)):
        return "its name says so"
    return ""


def name_of(prefix: str, path: KeyPath, taken: Collection[str]) -> str:
    """The name under which a secret is kept: `shop/db/password`; another one if it is taken."""
    parts = (_PART.sub("-", str(key).lower()).strip("-.") or "x" for key in path)
    name = "/".join((prefix, *parts))
    number = 2
    found = name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found
