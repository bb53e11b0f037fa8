"""Generations: a configuration is read, held against the one in force, reviewed, and takes over."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from atlasd.clock import Clock, RealClock
from atlasd.config import difference, snapshot
from atlasd.config.history import Generation, History, State
from atlasd.config.load import Config
from atlasd.config.restoring import Present
from atlasd.config.snapshot import Snapshot
from atlasd.contracts.review import Change, ConfigDiff, Objection
from atlasd.errors import AtlasError

GRACE = 0.2
"""Seconds that a file which is missing or empty is given: an editor may be renaming it."""
READINGS = 3
"""Times that files are read which change while they are read."""

Review = Callable[[ConfigDiff], Sequence[tuple[str, Objection]]]
"""Asks the plugins: the name of each that objects, and its objection."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A valid configuration that may follow the one in force."""

    config: Config
    files: Snapshot = field(repr=False)
    changes: tuple[Change, ...]
    fresh: bool
    """Whether it means something else than the one in force; else it takes over its number."""

    @property
    def number(self) -> int:
        """The number of the generation that it is or would be."""
        return self.config.generation


class Generations:
    """The generation in force, and the way to the next. One candidate at a time."""

    def __init__(
        self,
        *,
        current: Config,
        files: Snapshot,
        load: Callable[[], Config],
        history: History,
        review: Review,
        parts: Path | None = None,
        clock: Clock | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`load` reads the files as they are now, and may block; `pause` waits for seconds.

        In the folder `parts` every file of a known kind is a part of the configuration.
        """
        self.current = current
        self.files = files
        """The files of the generation in force, as they were when it was accepted."""
        self.history = history
        self._load = load
        self._review = review
        self._parts = parts
        self._clock: Clock = clock or RealClock()
        self._pause = pause

    @classmethod
    async def begin(
        cls,
        config: Config,
        *,
        load: Callable[[], Config],
        history: History,
        review: Review,
        parts: Path | None = None,
        clock: Clock | None = None,
    ) -> "Generations":
        """Go on from the generations of earlier daemons with the configuration read at the start.

        If its files are those of the latest generation, it is that one; else it is the next.
        """
        clock = clock or RealClock()
        files = await asyncio.to_thread(snapshot.take, config.read_files)
        last = await history.last()
        same = (
            last is not None
            and last.digest == files.digest
            and last.environment == config.environment
        )
        number = 1 if last is None else last.number if same else last.number + 1
        config = replace(config, generation=number)
        if not same:
            await history.add(
                Generation(
                    number=number,
                    time=clock.wall(),
                    actor="start",
                    environment=config.environment,
                    digest=files.digest,
                    files=files,
                )
            )
        return cls(
            current=config,
            files=files,
            load=load,
            history=history,
            review=review,
            parts=parts,
            clock=clock,
        )

    async def candidate(self, *, automatic: bool = False) -> Candidate:
        """The configuration as its files are now, in the form in which it would take over.

        A file that is missing or empty, and was not, is given a moment. `automatic` is for what
        nobody has asked for: a file that stays empty is then an error, as it is hardly meant.
        Raises as `atlasd.config.load.load`; nothing has changed then.
        """
        await self._wait_for_renames(automatic=automatic)
        config, files = await self._read()
        changes = difference.changes(self.current, config)
        fresh = bool(changes) or config.digest != self.current.digest
        number = self.current.generation + 1 if fresh else self.current.generation
        return Candidate(
            config=replace(config, generation=number), files=files, changes=changes, fresh=fresh
        )

    async def _wait_for_renames(self, *, automatic: bool) -> None:
        now = await asyncio.to_thread(snapshot.take, self.files.paths)
        if not snapshot.suspicious(self.files, now):
            return
        await self._pause(GRACE)
        now = await asyncio.to_thread(snapshot.take, self.files.paths)
        emptied = [p for p in snapshot.suspicious(self.files, now) if now.get(p) is not None]
        if emptied and automatic:
            raise AtlasError(
                "config.invalid",
                f"{emptied[0]}: the file is empty, and was not in generation "
                f"{self.current.generation}",
                hint="write it again, or say `atlasctl config reload` if it is meant",
            )

    async def _read(self) -> tuple[Config, Snapshot]:
        """The configuration and the very texts that it was read from."""
        paths = self.files.paths
        for _ in range(READINGS):
            before = await asyncio.to_thread(snapshot.take, paths)
            try:
                config = await asyncio.to_thread(self._load)
            except AtlasError:
                # What was read while it was written may be broken and its next form not.
                if before == await asyncio.to_thread(snapshot.take, paths):
                    raise
                continue
            files = await asyncio.to_thread(snapshot.take, config.read_files)
            if all(before.get(one.path) == one for one in files.files):
                return config, files
            paths = files.paths
        config = await asyncio.to_thread(self._load)
        return config, await asyncio.to_thread(snapshot.take, config.read_files)

    def objections(self, candidate: Candidate) -> tuple[str, ...]:
        """What plugins have against a candidate, a sentence each; pure but for what they do."""
        if not candidate.fresh:
            return ()
        diff = ConfigDiff(
            environment=candidate.config.environment,
            generation=self.current.generation,
            changes=candidate.changes,
            settings=candidate.config.data,
        )
        return tuple(
            f"plugin {plugin} objects"
            + (f" to {objection.key}" if objection.key else "")
            + f": {objection.reason}"
            for plugin, objection in self._review(diff)
        )

    async def accept(self, candidate: Candidate, *, actor: str) -> None:
        """Let the candidate be the generation in force; durable once this returns.

        Raises as `Store.run` does; then nothing has changed.
        """
        generation = Generation(
            number=candidate.number,
            time=self._clock.wall(),
            actor=actor,
            environment=candidate.config.environment,
            digest=candidate.files.digest,
            changes=candidate.changes,
            files=candidate.files,
        )
        if candidate.fresh:
            await self.history.add(generation)
        elif candidate.files != self.files:
            # A comment was changed: the same generation, to be had back as it is written now.
            await self.history.rewrite(candidate.number, candidate.files)
        self.current, self.files = candidate.config, candidate.files

    async def settled(self, failures: Sequence[str]) -> None:
        """Note which parts could not take the generation in force over; none: it is whole."""
        state: State = "partial" if failures else "accepted"
        await self.history.mark(self.current.generation, state, "; ".join(failures))

    def present(self) -> Present:
        """The generation in force, as far as another one may replace its files."""
        return Present(
            number=self.current.generation,
            environment=self.current.environment,
            files=self.files,
            layers=frozenset(layer.origin for layer in self.current.layers),
            awaited=self.current.awaited,
        )

    def seen(self) -> dict[str, str]:
        """By path a digest of each file of the generation in force."""
        return {one.path: one.digest for one in self.files.files}

    async def edited(self) -> tuple[str, ...]:
        """Files that are not as they were when the generation in force was accepted.

        Those that it knows nothing of, in the folder of parts, are among them.
        """
        return await asyncio.to_thread(
            snapshot.edited, self.files, self._parts, self.current.awaited
        )
