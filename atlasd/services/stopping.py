"""Stopping several services in reverse order, in parallel."""

from typing import TYPE_CHECKING

from atlasd.services import order
from atlasd.states import Lifecycle, Reason, Wanted

if TYPE_CHECKING:
    from atlasd.services.supervisor import Supervisor
    from atlasd.services.unit import Unit


class Stops:
    """Instances to be stopped, each as soon as nobody needs it who is to be stopped too."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._due: dict[Unit, tuple[Reason, str, str]] = {}
        self._on_their_way: set[Unit] = set()

    def add(self, unit: "Unit", *, reason: Reason, detail: str, actor: str) -> None:
        """Have an instance stopped in its turn; `go_on` begins."""
        self._due[unit] = (reason, detail, actor)

    def forget(self, service: str) -> None:
        """Stop nobody of a service whose turn has not come: it is wanted again."""
        for unit in [u for u in self._due if u.service.name == service]:
            del self._due[unit]

    def forget_all(self) -> None:
        """Stop nobody whose turn has not come."""
        self._due.clear()

    def go_on(self) -> None:
        """Stop those whose turn it is; called again whenever an instance has gone."""
        if not self._due:
            self._on_their_way.clear()
            return
        self._on_their_way = {u for u in self._on_their_way if u.machine.live}
        alive = {u.service.name for u in self._on_their_way}
        alive |= {u.service.name for u in self._due if u.machine.live}
        graph = self._supervisor.dependencies.graph()
        for unit, (reason, detail, actor) in list(self._due.items()):
            machine = unit.machine
            # What stops already, or doesn't run, waits for nobody: it must only not come back.
            runs = machine.live and machine.state is not Lifecycle.STOPPING
            if runs and not order.may_stop(graph, unit.service.name, alive):
                continue
            del self._due[unit]
            self._on_their_way.add(unit)
            if machine.wanted is not Wanted.DOWN or machine.state not in (
                Lifecycle.STOPPED,
                Lifecycle.STOPPING,
            ):
                unit.want(Wanted.DOWN, reason=reason, detail=detail, actor=actor)
