"""What is told of each plugin: where it comes from, what it offers, how it does."""

from dataclasses import dataclass
from enum import StrEnum


class PluginState(StrEnum):
    """How a plugin does."""

    ADMITTED = "admitted"
    """Loaded, and nothing of it failed when it was last called."""
    REFUSED = "refused"
    """Not loaded; the reason says why."""
    FAILING = "failing"
    """Loaded, and something of it failed when it was last called."""


@dataclass(frozen=True, kw_only=True)
class OfferReport:
    """One thing that a plugin supplies."""

    kind: str
    """In words: `check type`."""
    name: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class PluginReport:
    """One plugin that was found."""

    name: str
    origin: str
    """Distribution, or path of a drop-in."""
    version: str
    """Of the distribution; empty for a drop-in."""
    state: PluginState
    reason: str = ""
    """Why it was refused, or what fails."""
    offers: tuple[OfferReport, ...] = ()
    failures: int = 0
    """Failures at work since the start."""
