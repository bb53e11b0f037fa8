"""Having the files of an earlier generation back."""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from atlasd.config import snapshot, writing
from atlasd.config.generations import Generations
from atlasd.config.history import Generation
from atlasd.config.snapshot import Snapshot
from atlasd.errors import AtlasError
from atlasd.paths import Paths


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

    def __init__(self, generations: Generations, paths: Paths) -> None:
        self._generations = generations
        self._folder = Path(paths.config_file).parent
        self._parts = Path(paths.config_parts)

    async def restore(self, number: int | None, force: bool) -> tuple[int, Restored]:  # noqa: FBT001  a row of the table calls it so
        """Write the files of generation `number`, or of the one before that in force, back.

        All of them or none. Files that are there now and were not then are removed; all that is
        replaced stays under its name with `.bak` added. Raises `config.unknown` for a generation
        that is not kept, `config.conflict` when files were edited since the generation in force
        was accepted and `force` does not say that the edits may be lost, and `config.write`.
        """
        wanted = await self._wanted(number)
        edited = (*await self._generations.edited(), *await asyncio.to_thread(self._strangers))
        if edited and not force:
            raise AtlasError(
                "config.conflict",
                f"{edited[0]} was changed since generation "
                f"{self._generations.current.generation} was accepted"
                + (f", and {len(edited) - 1} more" if len(edited) > 1 else ""),
                hint="`atlasctl config reload` takes the change over; --force writes over it "
                "(what was there stays as a .bak file)",
                details={"edited": list(edited)},
            )
        before = await asyncio.to_thread(
            snapshot.take, self._replaced(wanted) | wanted.files.paths | set(edited)
        )
        await asyncio.to_thread(_replace, self._folder, before, wanted.files)
        return wanted.number, Restored(folder=self._folder, before=before, after=wanted.files)

    async def _wanted(self, number: int | None) -> Generation:
        history = self._generations.history
        if number is None:
            now = self._generations.current.generation
            earlier = [one.number for one in await history.all() if one.number < now]
            if not earlier:
                raise AtlasError(
                    "config.unknown",
                    f"there is no generation before {now}",
                    hint="`atlasctl config history` lists those that are kept",
                )
            number = earlier[0]
        return await history.get(number)

    def _replaced(self, wanted: Generation) -> set[str]:
        """Files of the generation in force that are removed if `wanted` has none of the name.

        Layers only: an application's own files stay, and nobody refers to them any longer. The
        file of another environment stays too.
        """
        current = self._generations.current
        here = f"{self._folder}/"
        return {
            file
            for file in current.files
            if file.startswith(f"{self._parts}/")
            or (file.startswith(here) and wanted.environment == current.environment)
        }

    def _strangers(self) -> list[str]:
        """Files of conf.d that are no part of the generation in force."""
        known = self._generations.files.paths
        endings = {os.path.splitext(path)[1] for path in known} | {".toml"}  # noqa: PTH122
        return sorted(set(_listed(self._parts, endings)) - known)


def _listed(folder: Path, endings: Iterable[str]) -> list[str]:
    try:
        names = [path for path in folder.iterdir() if not path.name.startswith((".", "#"))]
    except OSError:
        return []
    return [str(path) for path in names if path.suffix in endings]


def _replace(folder: Path, now: Snapshot, wanted: Snapshot) -> None:
    with writing.locked(folder):
        writing.replace_all(folder, now, wanted)
