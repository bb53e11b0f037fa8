"""What the host offers atlasd: what the services role found, and what core sees from its side."""

import grp
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Capability:
    """One thing that a host may offer."""

    name: str
    available: bool
    detail: str = ""
    """What was found."""
    reduced: str = ""
    """What atlasd cannot do without it; empty when it is available."""
    hint: str = ""
    """How to get it."""

    def to_wire(self) -> dict[str, Any]:
        """As `atlasd.control.models.Capability` has it; what is there reduces nothing."""
        missing = not self.available
        return {
            "name": self.name,
            "available": self.available,
            "detail": self.detail,
            "reduced": self.reduced if missing else "",
            "hint": self.hint if missing else "",
        }


def examine(
    services: Mapping[str, object] | None, *, why_not: str, group: str = "atlasd"
) -> list[Capability]:
    """Everything, in a fixed order; without the services role only what core can see.

    `services` is what the role said in its hello: name → available, detail, reduced, hint.
    `why_not` says why it does not answer.
    """
    found = [
        Capability(
            name="services-role",
            available=services is not None,
            detail="" if services is not None else why_not,
            reduced="services run on, but nothing restarts them, and nothing can be asked of them; "
            "what this host offers them is unknown",
            hint="systemctl start atlas-services, or atlasd run",
        )
    ]
    for name, value in (services or {}).items():
        if isinstance(value, Mapping):
            found.append(
                Capability(
                    name=name,
                    available=bool(value.get("available")),
                    detail=str(value.get("detail") or ""),
                    reduced=str(value.get("reduced") or ""),
                    hint=str(value.get("hint") or ""),
                )
            )
        else:
            found.append(Capability(name=name, available=bool(value)))
    return [*found, _group(group), _journal()]


def _group(name: str) -> Capability:
    try:
        there = grp.getgrnam(name).gr_gid
    except KeyError:
        there = -1
    return Capability(
        name="group-atlasd",
        available=there >= 0,
        detail=f"gid {there}" if there >= 0 else "",
        reduced=f"only root and user {os.geteuid()} can use atlasctl",
        hint="systemd-sysusers atlas.sysusers, or groupadd --system atlasd",
    )


def _journal() -> Capability:
    return Capability(
        name="systemd-journal",
        available=Path("/run/systemd/journal/socket").exists(),
        reduced="atlasd's own log goes to standard error, or a file beside the services' output",
        hint="run the units under systemd",
    )
