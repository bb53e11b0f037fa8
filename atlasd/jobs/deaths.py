"""Deaths as something to be told: once a minute for each group at most, however many die; pure."""

from dataclasses import dataclass

from atlasd.jobs.ledger import Died

EVERY = 60.0
"""Seconds between two tellings of one group."""
GROUPS = 200
"""Groups that are told apart at a time; the others are told together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deaths:
    """Jobs of one group that died since it was told last."""

    last: Died
    count: int


@dataclass(slots=True)
class _Group:
    told: float
    count: int
    last: Died


class Mourning:
    """Gathers deaths; times are seconds of any clock."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def note(self, died: Died, now: float) -> Deaths | None:
        """One more: what is to be told at once, if its group was not told lately."""
        group = self._groups.get(died.fingerprint)
        if group is None:
            if len(self._groups) >= GROUPS:
                died = died._replace(fingerprint="", kind="", queue="")
                group = self._groups.get("")
            if group is None:
                self._groups[died.fingerprint] = _Group(told=now, count=0, last=died)
                return Deaths(last=died, count=1)
        group.count += 1
        group.last = died
        return None

    def due(self, now: float) -> list[Deaths]:
        """What is to be told now; groups in which nobody died for a while are forgotten."""
        found = []
        for name, group in list(self._groups.items()):
            if now - group.told < EVERY:
                continue
            if not group.count:
                del self._groups[name]
                continue
            found.append(Deaths(last=group.last, count=group.count))
            group.told, group.count = now, 0
        return found
