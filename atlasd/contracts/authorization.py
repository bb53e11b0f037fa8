"""What is asked before an operation: who wants it, and a plugin's word on it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who asks, as the kernel says (SO_PEERCRED), never as the caller says."""

    uid: int
    gid: int
    pid: int
    right: str
    """read, operate or administer: what atlasd itself lets this caller do."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A plugin's word on one operation."""

    allowed: bool
    reason: str = ""
    """For the caller, when refused: what is missing and whom to ask."""
