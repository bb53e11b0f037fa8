"""Having the files of an earlier generation back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from atlasd.config import snapshot, writing
from atlasd.config.history import Generation, History
from atlasd.config.snapshot import Snapshot
from atlasd.errors import AtlasError
from atlasd.paths import Paths


@dataclass(frozen=True, kw_only=True)
class Present:
    """What is in force, and may be replaced."""

    number: int
    environment: str
    files: Snapshot = field(repr=False)
    layers: frozenset[str]
    """Those of the files that are configuration, and not an application's own."""
    awaited: tuple[str, ...] = ()
    """Files that would have a say if they were there."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """Files that were written back, and those that were there before."""

    folder: Path
    before: Snapshot = field(repr=False)
    after: Snapshot = field(repr=False)

    async def undo(self) -> None:
        """Have the files as they were before. Raises `config.write`."""
        await asyncio.to_thread(_replace, self.folder, self.after, self.before)


class Restorer:
    """Writes the files of earlier generations back."""

    def __init__(self, paths: Paths, history: History, present: Callable[[], Present]) -> None:
        self._folder = Path(paths.config_file).parent
        self._parts = Path(paths.config_parts)
        self._history = history
        self._present = present

    async def restore(self, number: int | None, force: bool) -> tuple[int, Restored]:  # noqa: FBT001  a row of the table calls it so
        """Write the files of generation `number`, or of the one before that in force, back.

        All of them or none. Files that are there now and were not then are removed; all that is
        replaced stays under its name with `.bak` added. Raises `config.unknown` for a generation
        that is not kept, `config.conflict` when files were edited since the generation in force
        was accepted and `force` does not say that the edits may be lost, and `config.write`.
        """
        present = self._present()
        wanted = await self._wanted(number, present)
        edited = await asyncio.to_thread(
            snapshot.edited, present.files, self._parts, present.awaited
        )
        if edited and not force:
            raise AtlasError(
                "config.conflict",
                f"{edited[0]} was changed since generation {present.number} was accepted"
                + (f", and {len(edited) - 1} more" if len(edited) > 1 else ""),
                hint="`atlasctl config reload` takes the change over, "
                f"`atlasctl config rollback {wanted.number} --force` writes over it "
                "(what was there stays as a .bak file)",
                details={"edited": list(edited)},
            )
        paths = self._replaced(present, wanted) | wanted.files.paths | set(edited)
        before = await asyncio.to_thread(snapshot.take, paths)
        await asyncio.to_thread(_replace, self._folder, before, wanted.files)
        return wanted.number, Restored(folder=self._folder, before=before, after=wanted.files)

    async def _wanted(self, number: int | None, present: Present) -> Generation:
        if number is None:
            kept = [one.number for one in await self._history.all()]
            earlier = [one for one in kept if one < present.number]
            if not earlier:
                raise AtlasError(
                    "config.unknown",
                    f"there is no generation before {present.number}",
                    hint="`atlasctl config history` lists those that are kept",
                )
            number = earlier[0]
        return await self._history.get(number)

    def _replaced(self, present: Present, wanted: Generation) -> set[str]:
        """Files in force that are removed if the wanted generation has none of the name.

        Layers only: an application's own files stay, and nobody refers to them any longer. The
        file of another environment stays too.
        """
        return {
            file
            for file in present.layers
            if file.startswith(f"{self._parts}/")
            or (file.startswith(f"{self._folder}/") and wanted.environment == present.environment)
        }


def _replace(folder: Path, now: Snapshot, wanted: Snapshot) -> None:
    with writing.locked(folder):
        writing.replace_all(folder, now, wanted)
