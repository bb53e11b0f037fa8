"""A restart of several instances, one by one: the next is touched when the last is ready again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atlasd.clock import Clock
from atlasd.services.journal import Journal
from atlasd.states import Lifecycle, Reason, Wanted

if TYPE_CHECKING:
    from atlasd.services.supervisor import Supervisor
    from atlasd.services.unit import Unit


class Rolling:
    """The restart under way of one service."""

    def __init__(
        self,
        *,
        units: Sequence["Unit"],
        reason: Reason,
        detail: str,
        actor: str,
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._left = list(units)
        self._now: Unit | None = None
        self._began = -1.0
        self._reason, self._detail, self._actor = reason, detail, actor
        self._clock = clock
        self._journal = journal

    def step(self) -> bool:
        """Go on as far as possible; true when there is nothing left to do.

        An instance that doesn't come up ends it: what still runs of the old definition is worth
        more than a service that is down altogether.
        """
        while True:
            if self._now is not None:
                machine = self._now.machine
                fresh = machine.started_at >= self._began
                up = fresh and machine.traffic.value == "in"
                finished = fresh and machine.state is Lifecycle.EXITED
                broken = machine.state in (Lifecycle.FAILED, Lifecycle.LOST) or (
                    machine.state is Lifecycle.BACKOFF
                )
                if broken:
                    if self._left:
                        self._journal.add(
                            "roll-halted",
                            service=self._now.service.name,
                            instance=self._now.index,
                            detail=f"{machine.detail}; instances "
                            + ", ".join(str(u.index) for u in self._left)
                            + " were left as they are",
                        )
                    return True
                if not (up or finished or self._is_done_for(self._now)):
                    return False
            self._left = [unit for unit in self._left if not self._is_gone(unit)]
            if not self._left:
                return True
            self._now = self._left.pop(0)
            self._began = self._clock.monotonic()
            self._now.update(self._now.service.spec)
            self._now.machine.restart(
                self._began, reason=self._reason, detail=self._detail, actor=self._actor
            )
            if not self._left:
                return True

    @staticmethod
    def _is_gone(unit: "Unit") -> bool:
        service = unit.service
        return (
            service.removed
            or unit.index >= service.spec.instances
            or service.units.get(unit.index) is not unit
        )

    def _is_done_for(self, unit: "Unit") -> bool:
        # Somebody wants something else of it meanwhile: waiting for it would be for ever.
        return self._is_gone(unit) or unit.machine.wanted is not Wanted.UP


class Rolls:
    """The restarts under way, one for each service at most."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._rolling: dict[str, Rolling] = {}

    def begin(
        self, units: Sequence["Unit"], *, reason: Reason, detail: str, actor: str = ""
    ) -> None:
        """Restart instances of one service one by one; takes the place of what is under way."""
        supervisor = self._supervisor
        if supervisor.stopping or not units:
            return  # it was put off to the end of a turn, and things have changed
        name = units[0].service.name
        rolling = Rolling(
            units=units,
            reason=reason,
            detail=detail,
            actor=actor,
            clock=supervisor.clock,
            journal=supervisor.journal,
        )
        self._rolling[name] = rolling
        self.step(name)

    def step(self, name: str) -> None:
        """Something has changed with a service: go on, if there is something to go on with."""
        rolling = self._rolling.get(name)
        if rolling is not None and rolling.step() and self._rolling.get(name) is rolling:
            del self._rolling[name]

    def under_way(self, name: str) -> bool:
        """Whether the service is being restarted."""
        return name in self._rolling

    def cancel(self, name: str) -> None:
        """Leave those instances of a service as they are whose turn has not come."""
        self._rolling.pop(name, None)

    def cancel_all(self) -> None:
        """The same for all services."""
        self._rolling.clear()
