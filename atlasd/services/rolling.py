"""Going from one instance to the next: the next is touched when the last is ready again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlasd.clock import Clock
from atlasd.services.journal import Journal
from atlasd.states import SETTLED, Lifecycle, Reason, Traffic, Wanted

if TYPE_CHECKING:
    from atlasd.services.supervisor import Supervisor
    from atlasd.services.unit import Unit

SETTLING = 1.0
"""Seconds after a signal or a reload before it can be seen how a program took it."""


BROKEN = frozenset({Lifecycle.FAILED, Lifecycle.LOST, Lifecycle.BACKOFF})


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What is done with one instance."""

    unit: "Unit"
    reason: Reason
    detail: str
    how: str = "restart"
    """restart | reload | signal; what has no process is started, whatever this says."""
    careful: bool = False
    """Wait, also at the last instance, until its probes have passed anew."""


@dataclass(kw_only=True, slots=True)
class Current:
    """The turn that it is, and how far it has come."""

    turn: Turn
    acted: bool = False
    """Whether something was done with the instance; until then its state isn't the right one."""
    began: float = -1.0


class Rolling:
    """The turns of one service's instances, one after the other."""

    def __init__(
        self,
        *,
        turns: Sequence[Turn],
        actor: str,
        clock: Clock,
        journal: Journal,
        after: Current | None = None,
    ) -> None:
        """`after` is the turn of an earlier roll, which is not over yet: it is waited for first."""
        self._left = list(turns)
        self.now = after
        self._actor = actor
        self._clock = clock
        self._journal = journal

    def step(self) -> bool:
        """Go on as far as possible; true when there is nothing left to do.

        An instance that doesn't come up ends it: what still runs of the old definition is worth
        more than a service that is down altogether.
        """
        while True:
            if self.now is not None:
                problem = self._problem(self.now)
                if problem:
                    self._halt(self.now.turn, problem)
                    return True
                if not self._is_over(self.now):
                    return False
            self._left = [turn for turn in self._left if not _is_gone(turn.unit)]
            if not self._left:
                return True
            self.now = Current(turn=self._left.pop(0))
            self._begin(self.now)
            if not self._left and not self.now.turn.careful:
                return True

    def _begin(self, current: Current) -> None:
        """Act on the instance, unless it isn't yet in the state for it."""
        turn, unit, now = current.turn, current.turn.unit, self._clock.monotonic()
        machine = unit.machine
        unit.update(unit.service.spec)
        if turn.how == "restart" or not machine.live:
            current.began, current.acted = now, True
            machine.restart(now, reason=turn.reason, detail=turn.detail, actor=self._actor)
        elif machine.state is Lifecycle.RUNNING:
            current.began, current.acted = now, True
            unit.deliver(turn.how, turn.detail, self._actor)

    @staticmethod
    def _problem(current: Current) -> str:
        """Why nobody else may have his turn after this one; empty when nothing is wrong."""
        unit = current.turn.unit
        machine = unit.machine
        if machine.state in BROKEN:
            return machine.detail or machine.reason.value
        if current.acted and current.turn.how != "restart":
            return unit.delivery_problem
        return ""

    def _halt(self, turn: Turn, problem: str) -> None:
        left = [str(other.unit.index) for other in self._left]
        if left or turn.careful:
            others = f"; instances {', '.join(left)} were left as they are" if left else ""
            self._journal.add(
                "roll-halted",
                service=turn.unit.service.name,
                instance=turn.unit.index,
                reason=turn.reason.value,
                detail=problem + others,
            )

    def _is_over(self, current: Current) -> bool:
        turn, unit = current.turn, current.turn.unit
        machine = unit.machine
        # Somebody wants something else of it meanwhile: waiting for it would be for ever.
        if _is_gone(unit) or machine.wanted is not Wanted.UP:
            return True
        if not current.acted:
            if machine.state in SETTLED:
                return True
            if unit.handed.digest == unit.service.deliveries.digest:
                # It was started anew meanwhile, and has it.
                current.began, current.acted = machine.started_at, True
            else:
                self._begin(current)
            return False
        fresh = machine.started_at >= current.began
        if turn.how == "restart" and not fresh:
            return False
        if machine.state is Lifecycle.EXITED:
            return True
        if machine.traffic is not Traffic.IN:
            return False
        return not turn.careful or self._took_it_well(current, fresh=fresh)

    def _took_it_well(self, current: Current, *, fresh: bool) -> bool:
        unit = current.turn.unit
        if unit.machine.state is not Lifecycle.RUNNING:
            return False  # it reloads
        if fresh:
            return unit.attendants.passed_since(unit.machine.started_at)
        settled = current.began + SETTLING
        return self._clock.monotonic() >= settled and unit.attendants.passed_since(settled)


def _is_gone(unit: "Unit") -> bool:
    service = unit.service
    return (
        service.removed
        or unit.index >= service.spec.instances
        or service.units.get(unit.index) is not unit
    )


class Rolls:
    """The rolls under way, one for each service at most."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._rolling: dict[str, Rolling] = {}

    def begin(
        self, units: Sequence["Unit"], *, reason: Reason, detail: str, actor: str = ""
    ) -> None:
        """Restart instances of one service one by one; takes the place of what is under way."""
        self.take_turns([Turn(unit=u, reason=reason, detail=detail) for u in units], actor=actor)

    def take_turns(
        self, turns: Sequence[Turn], *, actor: str = "", after_others: bool = False
    ) -> None:
        """Go from one instance of a service to the next; takes the place of what is under way.

        `after_others`: an instance whose turn was begun there is waited for first.
        """
        supervisor = self._supervisor
        if supervisor.stopping or not turns:
            return  # it was put off to the end of a turn, and things have changed
        name = turns[0].unit.service.name
        before = self._rolling.get(name)
        if all(turn.careful for turn in turns) and self._has_failed_with_it(turns):
            return
        waited = before.now if before is not None and after_others else None
        if waited is not None and any(turn.unit is waited.turn.unit for turn in turns):
            waited = None
        self._rolling[name] = Rolling(
            turns=turns,
            actor=actor,
            clock=supervisor.clock,
            journal=supervisor.journal,
            after=waited,
        )
        self.step(name)

    def _has_failed_with_it(self, turns: Sequence[Turn]) -> bool:
        """Whether an instance that was handed the same has not come up: then nobody else gets it.

        An earlier roll halted there, and only somebody's word, or other contents, goes on with it.
        """
        first = turns[0]
        service = first.unit.service
        mine = {turn.unit for turn in turns}
        for unit in service.units.values():
            has_it = unit.handed.digest == service.deliveries.digest and not _is_gone(unit)
            if unit not in mine and has_it and unit.machine.state in BROKEN:
                self._supervisor.journal.add(
                    "roll-halted",
                    service=service.name,
                    instance=unit.index,
                    reason=first.reason.value,
                    detail=f"{unit.machine.detail or unit.machine.state.value}; it has what the "
                    "others were to get, which keep what they have",
                )
                return True
        return False

    def step(self, name: str) -> None:
        """Something has changed with a service: go on, if there is something to go on with."""
        rolling = self._rolling.get(name)
        if rolling is not None and rolling.step() and self._rolling.get(name) is rolling:
            del self._rolling[name]

    def step_soon(self, name: str) -> None:
        """The same once this turn of the loop is over."""
        if name in self._rolling:
            self._supervisor.loop.call_soon(lambda: self.step(name))

    def under_way(self, name: str) -> bool:
        """Whether instances of the service have their turns."""
        return name in self._rolling

    def cancel(self, name: str) -> None:
        """Leave those instances of a service as they are whose turn has not come."""
        self._rolling.pop(name, None)

    def cancel_all(self) -> None:
        """The same for all services."""
        self._rolling.clear()
