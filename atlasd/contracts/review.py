"""What a plugin is asked before a new configuration takes effect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Change:
    """One setting that differs between the generation in force and the one that is to follow."""

    key: str
    """Dotted, `services.web.instances`."""
    kind: Literal["added", "removed", "changed"]
    old: Any = field(default=None, repr=False)
    """The value before; of a secret only the reference to it."""
    new: Any = field(default=None, repr=False)
    effect: str = "live"
    """`live`, `restart service web`, `reload service web`, `restart core`."""
    where: str = ""
    """file:line:column of the new value, or of the old one for what is removed."""


@dataclass(frozen=True, kw_only=True)
class ConfigDiff:
    """All that differs."""

    environment: str
    generation: int
    """The one in force; the candidate would be the next."""
    changes: tuple[Change, ...]
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole candidate as merged data, references to secrets left as they are."""


@dataclass(frozen=True, kw_only=True)
class Objection:
    """Why the change must not happen; any objection stops it."""

    reason: str
    """For the operator: what is wrong, and what to do."""
    key: str = ""
    """The setting it is about, if it is about one."""
