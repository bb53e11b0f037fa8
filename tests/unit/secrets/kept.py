"""Rotations kept by a host whose daemon can be killed at any writing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from atlasd.contracts.secrets import Rotator
from atlasd.secrets.rotation import Rotation


class KilledError(BaseException):
    """Stands for `kill -9`: nothing that runs afterwards belongs to the dead daemon."""


@dataclass(kw_only=True)
class Kept:
    """Rotations that outlive the daemon; it can be killed before or after a writing."""

    rows: dict[tuple[str, str], Rotation] = field(default_factory=dict)
    saves: int = 0
    die_at: int = -1
    """Number of the writing at which the daemon is killed."""
    die_before: bool = False

    async def load(self) -> Sequence[Rotation]:
        return list(self.rows.values())

    async def save(self, rotation: Rotation) -> None:
        self.saves += 1
        dies = self.saves == self.die_at
        if not (dies and self.die_before):
            self.rows[rotation.backend, rotation.name] = rotation
        if dies:
            raise KilledError


@asynccontextmanager
async def opened(steps: Rotator) -> AsyncIterator[Rotator]:
    """Steps that need no opening."""
    yield steps
