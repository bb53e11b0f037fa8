"""Stages on top of Key Vault, which has none: tags say when a version became what it is.

Key Vault has no labels that move, and changes one version at a time. So that every move is one
change of one version, which happens or does not, a version carries the moment at which it became
current or pending, and the latest wins:

- *current* is the version that became so last. A version becomes current when it is made, unless
  it was put as pending (`atlasd-put`), and again when it is promoted (`atlasd-current`);
- *previous* is the one that became current before it;
- *pending* is the version that became pending last, when it was put or later
  (`atlasd-pending`), unless it has become current since.

A moment is a pair: seconds, by the clock of Key Vault, and a number that orders what happened
within the same second. A version that another program has made, without tags, is current from
its making. Whether a version is enabled plays no part: a disabled current version is not replaced
by an older one, which may have been revoked for the same reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from atlasd.contracts.secrets import CURRENT, PENDING, PREVIOUS

ORDER = "atlasd-order"
"""Nanoseconds of the clock of who has made the version: orders those of one second."""
PUT = "atlasd-put"
"""`pending` for a version that was put as pending: being made did not make it current."""
SINCE = "atlasd-current"
WAITS = "atlasd-pending"

Moment = tuple[int, int]
V = TypeVar("V", bound="Seen")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A version as the list of versions tells it."""

    id: str
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    enabled: bool = True

    @property
    def made(self) -> Moment:
        """When it was made."""
        order = self.tags.get(ORDER, "")
        return int(self.created.timestamp()), int(order) if _is_number(order) else 0

    @property
    def current_since(self) -> Moment | None:
        """When it last became current; None if it never was."""
        promoted = _moment(self.tags.get(SINCE, ""))
        return promoted or (None if self.tags.get(PUT) == PENDING else self.made)

    @property
    def pending_since(self) -> Moment | None:
        """When it last became pending; None if it never was."""
        marked = _moment(self.tags.get(WAITS, ""))
        return marked or (self.made if self.tags.get(PUT) == PENDING else None)


def newest_first(versions: Iterable[V]) -> list[V]:
    """By the time of their making."""
    return sorted(versions, key=lambda version: (version.made, version.id), reverse=True)


def stages_of(versions: Sequence[Seen]) -> dict[str, str]:
    """The id of the version that each stage is on."""
    was_current = sorted((v.current_since, v.id) for v in versions if v.current_since)
    was_pending = sorted((v.pending_since, v.id) for v in versions if v.pending_since)
    found = {}
    for stage, (_, version) in zip((CURRENT, PREVIOUS), reversed(was_current), strict=False):
        found[stage] = version
    if was_pending:
        since, version = was_pending[-1]
        if all(other < since for other, current in was_current if current == version):
            found[PENDING] = version
    return found


def moved(versions: Sequence[Seen], version: Seen, stage: str) -> dict[str, str]:
    """The tags of a version after `current` or `pending` was moved to it."""
    moments = [m for v in versions for m in (v.made, v.current_since, v.pending_since) if m]
    second, number = max(moments)
    return {**version.tags, {CURRENT: SINCE, PENDING: WAITS}[stage]: f"{second}.{number + 1}"}


def _moment(text: str) -> Moment | None:
    second, _, number = text.partition(".")
    return (int(second), int(number)) if _is_number(second) and _is_number(number) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
