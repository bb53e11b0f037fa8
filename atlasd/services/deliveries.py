"""What a service hands to its instances, and what each of their processes has of it."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from atlasd.services import delivery, spawn
from atlasd.services.handed_files import HandedFiles
from atlasd.services.loop import Timer
from atlasd.services.sealed import sealed
from atlasd.states import Reason

if TYPE_CHECKING:
    from atlasd.services.service import Service
    from atlasd.services.unit import Unit

KEPT = 30.0
"""Seconds for which old files stay when nobody refers to them any more: a program may be on its way
to one of them at the moment of the exchange."""


class Deliveries:
    """Those of one service: its files, and its descriptors, made anew for each start."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self.files = HandedFiles(service.supervisor.effects.secrets_dir, service.name)
        self.digest = ""
        """Of everything that is delivered; empty when nothing is."""
        self.fingerprints: Mapping[str, str] = {}
        """Name → a short digest of what is delivered under it."""
        self._has_files = False
        self._are_for: tuple[int, int] | None = None
        """Owner for whom the current files are known to be right."""
        self._sweep: Timer | None = None
        self.define()

    def define(self) -> None:
        """Take what the service's new definition says; nothing is handed to anybody yet."""
        spec = self._service.spec
        if not spec.deliveries and not self.fingerprints:
            return
        self.fingerprints = delivery.fingerprints(spec.deliveries)
        self.digest = delivery.digest(spec.deliveries)
        self._has_files = any(one.kind == "file" for one in spec.deliveries)
        self._are_for = None

    @property
    def generation(self) -> int:
        """Number of the current files; 0 when there are none to be handed over."""
        return self.files.generation if self._has_files else 0

    def hand_files(self, who: spawn.Account | None) -> None:
        """Have the files on tmpfs be as the definition says, for the user that the program runs as.

        Raises `SpawnError`; the files before are still there then.
        """
        if not self._has_files:
            return
        owner = (who.uid, who.gid) if who is not None else (os.geteuid(), os.getegid())
        if owner == self._are_for:
            return
        try:
            files = delivery.files(self._service.spec.deliveries)
            exchanged = self.files.exchange(files, *owner)
        except OSError as error:
            raise spawn.SpawnError(
                f"cannot write what it is handed to {self.files.folder}: {error.strerror}"
            ) from None
        self._are_for = owner
        if exchanged:
            self._service.supervisor.secrets_are_on_disk()
            self.sweep_soon()

    def seal(self) -> dict[str, int]:
        """Name → a new descriptor, which becomes the caller's. Raises `OSError`, `ValueError`."""
        made: dict[str, int] = {}
        try:
            for one in self._service.spec.deliveries:
                if one.kind == "fd":
                    made[one.name] = sealed(one.name, delivery.content(one))
        except BaseException:
            for fd in made.values():
                os.close(fd)
            raise
        return made

    # ------------------------------------------------------------------ old files

    def sweep_soon(self) -> None:
        """Have files removed that nobody needs any more, in a while."""
        if self._sweep is None and self.files.generation:
            self._sweep = self._service.supervisor.loop.call_later(KEPT, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep = None
        self.sweep()

    def sweep(self) -> None:
        """Remove the files of which no living process was told and that are not the current ones.

        All of them, when the service is handed no file any more and nobody has one.
        """
        live = [u for u in self._service.units.values() if u.machine.live]
        told = {unit.handed.generation for unit in live}
        if self._has_files or told - {0}:
            self.files.sweep(told)
        else:
            self.files.remove()

    def close(self) -> None:
        """The service is no more."""
        if self._sweep is not None:
            self._sweep.cancel()
        self.files.remove()


class Handed:
    """What the process of one instance has."""

    def __init__(self, unit: "Unit") -> None:
        self._unit = unit
        self.digest = ""
        """Of what it was started with, or told of since; `on_change` has been done for that."""
        self.given: Mapping[str, str] = {}
        """Name → `fingerprints` of what it has."""
        self.generation = 0
        """Of the files that it was told of last."""

    def everything(self) -> None:
        """A new process is being started, and has all of it."""
        deliveries = self._unit.service.deliveries
        self.digest, self.given = deliveries.digest, deliveries.fingerprints
        self.generation = deliveries.generation

    def what_can_be(self, done: str = "", *, files: bool) -> None:
        """What `on_change` says was done: the running process has the files, if `files` says so.

        It keeps its descriptors and variables. `done` tells in words what was done.
        """
        unit, deliveries = self._unit, self._unit.service.deliveries
        wanted = deliveries.fingerprints
        changed = delivery.differing(self.given, wanted)
        missed = delivery.out_of_reach(unit.service.spec, changed) if files else changed
        reached = [name for name in changed if name not in missed]
        if files:
            kept = {name: mark for name, mark in self.given.items() if name in missed}
            self.given = {n: mark for n, mark in wanted.items() if n not in missed} | kept
            self.generation = deliveries.generation
        self.digest = deliveries.digest
        told = [f"{', '.join(reached)}: {done}"] if reached or files else []
        told += [f"{', '.join(missed)}: {delivery.LATER}"] if missed else []
        unit.write_record()
        unit.supervisor.journal.add(
            "delivery",
            service=unit.service.name,
            instance=unit.index,
            reason=Reason.DELIVERY.value,
            detail="; ".join(told),
            pid=unit.pid,
        )

    def outdated(self) -> tuple[str, ...]:
        """Names under which the running process has something older than is configured."""
        unit = self._unit
        if not unit.machine.live or self.given is unit.service.deliveries.fingerprints:
            return ()
        return delivery.differing(self.given, unit.service.deliveries.fingerprints)

    @property
    def standing(self) -> str:
        """due: its turn is still to come, or goes on; halted: it was not to come; else empty."""
        unit = self._unit
        if not unit.machine.live or self.digest == unit.service.deliveries.digest:
            return ""
        return "due" if unit.supervisor.rolls.under_way(unit.service.name) else "halted"

    # ------------------------------------------------------------------ for a successor

    def to_record(self) -> dict[str, object]:
        """What stands of it in the instance's record; nothing, when nothing is handed."""
        if not self.digest and not self._unit.service.deliveries.digest:
            return {}
        return {
            "delivered": self.digest,
            "outdated": list(self.outdated()),
            "generation": self.generation,
        }

    def restore(self, record: Mapping[str, object]) -> None:
        """Take over what a predecessor wrote of a process that lives."""
        wanted = self._unit.service.deliveries.fingerprints
        outdated, generation = record.get("outdated"), record.get("generation")
        self.digest = str(record.get("delivered") or "")
        self.generation = generation if isinstance(generation, int) else 0
        old = {str(n) for n in outdated} if isinstance(outdated, list) else set()
        self.given = {n: "" if n in old else mark for n, mark in wanted.items()}
        self.given |= dict.fromkeys(old - wanted.keys(), "")
