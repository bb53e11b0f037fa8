"""Who waits for whom: what holds a start back, and whom a change of state concerns."""

from functools import partial
from typing import TYPE_CHECKING

from atlasd.services import order
from atlasd.services.spec import Edge
from atlasd.states import Lifecycle, Reason, Wanted

if TYPE_CHECKING:
    from atlasd.services.supervisor import Supervisor
    from atlasd.services.unit import Unit


class Dependencies:
    """The edges between services at work."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._loop = supervisor.loop
        self._recheck: set[str] = set()
        self.coming: set[str] = set()
        """Services that are being started in this very call; see `blocked`."""

    def graph(self) -> dict[str, tuple[Edge, ...]]:
        """Service → its edges."""
        return {name: s.spec.edges for name, s in self._supervisor.services.items()}

    def blocked(self, name: str) -> str | None:
        """What a start of the service has to wait for, in words."""
        for edge in self._supervisor.services[name].spec.edges:
            other = self._supervisor.services.get(edge.service)
            if other is None or other.removed or other.meets(edge.condition):
                continue
            coming = other.is_under_way or edge.service in self.coming
            if edge.kind != "requires" and not coming:
                continue  # `wants` and `after` wait for what is on its way, and for nothing else
            return f"waiting for {edge.service} to be {edge.condition} (it is {other.summary()})"
        return None

    def moved(self, unit: "Unit", old: Lifecycle, new: Lifecycle) -> None:
        """An instance has changed its state: look who waited for it, or goes with it."""
        name = unit.service.name
        self.changed(name)
        if new is Lifecycle.FAILED:
            self._fail_dependents(name)
        if new is Lifecycle.WAITING:
            self._loop.call_soon(partial(self._fail_if_hopeless, unit))
        if old in (Lifecycle.RUNNING, Lifecycle.RELOADING) and unit.machine.returns:
            self._restart_companions(name)

    def changed(self, name: str) -> None:
        """Readiness, health or state of a service changed: dependents are looked at this turn."""
        if not self._recheck:
            self._loop.call_soon(self._look_again)
        self._recheck.add(name)

    def _look_again(self) -> None:
        changed, self._recheck = self._recheck, set()
        now = self._supervisor.clock.monotonic()
        graph = self.graph()
        for name in changed:
            self._supervisor.rolls.step(name)
            for dependent in order.dependents(graph, name):
                for unit in list(self._supervisor.services[dependent].units.values()):
                    unit.machine.dependency_changed(now)

    def _fail_dependents(self, name: str) -> None:
        if self._supervisor.services[name].given_up:
            for dependent in order.dependents(self.graph(), name):
                for unit in list(self._supervisor.services[dependent].units.values()):
                    self._fail_if_hopeless(unit)

    def _fail_if_hopeless(self, unit: "Unit") -> None:
        """Fail an instance that waits for what was given up."""
        for edge in unit.service.spec.edges:
            other = self._supervisor.services.get(edge.service)
            if edge.kind == "requires" and other is not None and other.given_up:
                unit.machine.dependency_failed(f"it requires {edge.service}, which has failed")
                return

    def _restart_companions(self, name: str) -> None:
        for service in self._supervisor.services.values():
            if name in service.spec.restart_with and service.wanted is Wanted.UP:
                live = [u for u in service.units.values() if u.machine.live]
                if live and not self._supervisor.rolls.under_way(service.name):
                    self._loop.call_soon(
                        partial(
                            self._supervisor.rolls.begin,
                            live,
                            reason=Reason.DEPENDENCY,
                            detail=f"{name} is restarted",
                        )
                    )
