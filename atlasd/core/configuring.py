"""How a configuration takes over: read, reviewed, accepted, taken over by every part, or not."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from atlasd.contracts.review import Change
from atlasd.core.engine import Core
from atlasd.core.reconcile import Wish, notes_between
from atlasd.errors import AtlasError
from atlasd.events import ConfigurationLoaded, ConfigurationRefused
from atlasd.services.protocol import ActionBody
from atlasd.services.spec import ServiceSpec

Body = dict[str, Any]
C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)

_log = logging.getLogger("atlasd.core")


class Candidate(Protocol[C_co]):
    """A valid configuration that may take over."""

    @property
    def config(self) -> C_co:
        """The configuration, which core hands on and does not look into."""

    @property
    def number(self) -> int:
        """Number of the generation that it is."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """What differs from the generation in force."""

    @property
    def fresh(self) -> bool:
        """Whether anything does."""


class Generations(Protocol[C_co]):
    """The generation in force, and the way to the next; see `atlasd.config.generations`."""

    async def candidate(self, *, automatic: bool = False) -> Candidate[C_co]:
        """The configuration as its files are now."""

    async def edited(self) -> tuple[str, ...]:
        """Files that are not as they were when the generation in force was accepted."""

    def objections(self, candidate: Any) -> tuple[str, ...]:
        """What plugins have against it."""

    async def accept(self, candidate: Any, *, actor: str) -> None:
        """Let it be the generation in force, durably."""

    async def settled(self, failures: Sequence[str]) -> None:
        """Note what could not take it over."""


class Restored(Protocol):
    """Files that were written back."""

    async def undo(self) -> None:
        """Have the files as they were before."""


Consumer = Callable[[C], Awaitable[object]]
"""A part of the daemon that follows the configuration; raising says that it could not."""


class ConfigOperations(Generic[C]):
    """Operations that let a configuration take over, as plain values; one at a time.

    See `atlasd.core.operations.ServiceOperations` for the manner.
    """

    def __init__(
        self,
        core: Core,
        generations: Generations[C],
        *,
        wish_of: Callable[[C], Wish],
        consumers: Mapping[str, Consumer[C]],
        restore: Callable[[int | None, bool], Awaitable[tuple[int, Restored]]],
    ) -> None:
        """`consumers` take over in their order, after the services.

        `restore` writes the files of a generation (None: the one before) back, and gives its
        number; its second argument says whether edits since may be lost.
        """
        self._core = core
        self._generations = generations
        self._wish_of = wish_of
        self._consumers = dict(consumers)
        self._restore = restore
        self._lock = asyncio.Lock()

    async def plan(self, *, actor: str) -> Body:
        """`plan`."""
        del actor
        next_seq = self._core.bus.next_seq
        candidate = await self._generations.candidate()
        wish = self._wish_of(candidate.config)
        actions = await self._core.reconciler.plan(wish)
        notes = (
            *notes_of(candidate.changes),
            *notes_between(self._core.reconciler.wish, wish),
            *self._generations.objections(candidate),
        )
        return _plan_body(wish.specs, actions, notes, next_seq)

    async def apply(self, *, actor: str) -> Body:
        """`apply`."""
        async with self._lock:
            next_seq = self._core.bus.next_seq
            before = self._core.reconciler.wish
            candidate = await self._reviewed(actor)
            wish = self._wish_of(candidate.config)
            with self._refusing(actor):
                applied = await self._core.reconciler.apply(
                    wish, actor, lambda: self._generations.accept(candidate, actor=actor)
                )
            await self._take_over(candidate, actor, applied.failure)
        notes = (*notes_of(candidate.changes), *notes_between(before, wish))
        return _plan_body(wish.specs, applied.actions, notes, next_seq)

    async def config_reload(
        self, *, dry_run: bool = False, actor: str, automatic: bool = False
    ) -> Body:
        """`config.reload`; `automatic` is for a change of the files that nobody has spoken of."""
        async with self._lock:
            return await self._reload(actor, dry_run=dry_run, automatic=automatic)

    async def files_changed(self) -> None:
        """Nobody has spoken, but the files differ from those last seen: read them.

        What keeps them from taking over is told in health, metrics and events; that the services
        role is away is waited for.
        """
        while self._core.configuration.rejected or await self._generations.edited():
            connections = self._core.connections
            try:
                done = await self.config_reload(actor="watch", automatic=True)
            except AtlasError as error:
                if error.code == "services.unreachable" and not self._core.services.connected:
                    await self._core.next_hello(connections)
                    continue
                _log.error("the configuration's files have changed: %s", error.message)
            else:
                _log.info(
                    "the configuration's files have changed: generation %d, %d steps done, "
                    "%d wait for `atlasctl apply`",
                    done["generation"],
                    len(done["applied"]),
                    len(done["pending"]),
                )
            return

    async def rollback(self, *, generation: int | None, force: bool, actor: str) -> Body:
        """`config.rollback`: its files are written back, and take over as the next generation."""
        async with self._lock:
            number, restored = await self._restore(generation, force)
            try:
                body = await self._reload(actor, dry_run=False, automatic=False)
            except AtlasError as error:
                if error.code != "config.partial":
                    await restored.undo()
                raise
        return {**body, "restored": number}

    async def _reload(self, actor: str, *, dry_run: bool, automatic: bool) -> Body:
        if dry_run:
            candidate = await self._generations.candidate()
            self._refuse(self._generations.objections(candidate))
        else:
            candidate = await self._reviewed(actor, automatic=automatic)
        wish = self._wish_of(candidate.config)
        with self._refusing(actor, quiet=dry_run):
            reloaded = await self._core.reconciler.reload(
                wish,
                actor,
                lambda: self._generations.accept(candidate, actor=actor),
                dry_run=dry_run,
            )
        if not dry_run:
            await self._take_over(candidate, actor, reloaded.failure)
        return {
            "generation": candidate.number,
            "dry_run": dry_run,
            "changes": [change_body(change) for change in candidate.changes],
            "applied": reloaded.applied,
            "pending": reloaded.pending,
            "notes": reloaded.notes,
        }

    async def _reviewed(self, actor: str, *, automatic: bool = False) -> Candidate[C]:
        """The candidate that nobody objects to."""
        with self._refusing(actor):
            candidate = await self._generations.candidate(automatic=automatic)
            self._refuse(self._generations.objections(candidate))
        return candidate

    def _refuse(self, objections: Sequence[str]) -> None:
        if objections:
            raise AtlasError(
                "config.refused",
                "\n".join(objections),
                hint="nothing was changed; mend what is named, or the plugin",
                details={"objections": list(objections)},
            )

    async def _take_over(
        self, candidate: Candidate[C], actor: str, failure: AtlasError | None
    ) -> None:
        """Have every part follow, whatever becomes of the others. Raises `config.partial`."""
        failures = [f"services: {failure.message}"] if failure is not None else []
        self._core.checks.configure(self._core.reconciler.wish.checks)
        for name, consumer in self._consumers.items():
            try:
                await consumer(candidate.config)
            except AtlasError as error:
                failures.append(f"{name}: {error.message}")
            except Exception as error:  # noqa: BLE001  whatever it is, the others follow
                _log.exception("%s could not take the configuration over", name)
                failures.append(f"{name}: {type(error).__name__}")
        board = self._core.configuration
        board.generation, board.loaded = candidate.number, self._core.clock.wall()
        board.rejected, board.failures = "", tuple(failures)
        await self._generations.settled(failures)
        self._core.metrics.reloads.labels("partial" if failures else "loaded").inc()
        self._core.bus.publish(
            ConfigurationLoaded(
                time=self._core.clock.wall(),
                actor=actor,
                generation=candidate.number,
                detail="; ".join((f"generation {candidate.number}", *failures)),
            )
        )
        self._core.changed()
        if failures:
            raise AtlasError(
                "config.partial",
                f"generation {candidate.number} is in force, but not everywhere: "
                + "; ".join(failures),
                hint="mend that and reload again, or `atlasctl config rollback`",
                details={"generation": candidate.number, "failures": failures},
            )

    def _refusing(self, actor: str, *, quiet: bool = False) -> "_Refusing":
        return _Refusing(self._core, "" if quiet else actor)


class _Refusing:
    """Tells of what keeps a configuration from taking over: in health, metrics and events."""

    def __init__(self, core: Core, actor: str) -> None:
        self._core = core
        self._actor = actor

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, AtlasError) or not self._actor:
            return
        if error.code.startswith(("config.", "secret.", "settings.", "plugin.")):
            # It is the files that are wrong; that services is away, say, is told elsewhere.
            self._core.configuration.rejected = error.message
        self._core.metrics.reloads.labels("refused").inc()
        self._core.bus.publish(
            ConfigurationRefused(
                time=self._core.clock.wall(), actor=self._actor, detail=error.message
            )
        )


def notes_of(changes: Sequence[Change]) -> tuple[str, ...]:
    """What changes besides services and checks, of which a plan has its steps: a phrase each."""
    return tuple(
        f"{change.key} is {change.kind} ({change.effect})"
        for change in changes
        if not change.key.startswith(("services.", "checks."))
    )


def change_body(change: Change) -> Body:
    """A change as `atlasd.control.models.ConfigChange` has it."""
    return {
        "key": change.key,
        "kind": change.kind,
        "old": change.old,
        "new": change.new,
        "effect": change.effect,
        "where": change.where,
    }


def _plan_body(
    specs: Mapping[str, ServiceSpec],
    actions: tuple[ActionBody, ...],
    notes: tuple[str, ...],
    next_seq: int,
) -> Body:
    instances = sum(spec.instances for spec in specs.values())
    touched = sum(
        1
        for action in actions
        if action["service"] in specs and action["instance"] < specs[action["service"]].instances
    )
    return {
        "actions": actions,
        "unchanged": max(0, instances - touched),
        "notes": notes,
        "next_seq": next_seq,
    }
