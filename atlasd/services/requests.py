"""What may be asked of a single service: start, stop, pause, restart, reload, signal, scale."""

from dataclasses import replace

from atlasd.errors import AtlasError, nearest
from atlasd.services import order
from atlasd.services.plan import Action
from atlasd.services.service import Service
from atlasd.services.supervisor import Supervisor
from atlasd.services.unit import Unit
from atlasd.states import Lifecycle, Reason, Wanted


class Requests:
    """Each returns at once; what comes of it is seen in events."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def service(self, name: str) -> Service:
        """The service; raises `AtlasError` service.unknown."""
        found = self._supervisor.services.get(name)
        if found is None:
            raise AtlasError(
                "service.unknown",
                f"no service is called {name!r}",
                hint=nearest(name, list(self._supervisor.services)),
            )
        return found

    def _units(self, name: str, index: int | None) -> list[Unit]:
        service = self.service(name)
        if index is None:
            return [service.unit(i) for i in range(service.spec.instances)]
        if not 0 <= index < service.spec.instances:
            raise AtlasError(
                "instance.unknown",
                f"service {name!r} has no instance {index}",
                hint=f"it has {service.spec.instances}, counted from 0",
            )
        return [service.unit(index)]

    def start(self, name: str, index: int | None, *, actor: str) -> list[int]:
        """Start what is not running, and what it requires; failed ones anew, counters cleared."""
        self._refuse_while_stopping()
        self._supervisor.rolls.cancel(name)
        units = self._units(name, index)
        self._wanted_again(name)
        starts = self._pulled_in(name)
        starts += [(unit, "") for unit in units]
        self._supervisor.start_units(starts, Reason.REQUEST, actor)
        return [u.index for u in units]

    def _wanted_again(self, name: str) -> None:
        if self.service(name).removed:
            raise AtlasError(
                "service.unknown",
                f"service {name!r} is no longer configured, and is being stopped",
                hint="put it back into the configuration: atlasctl apply",
            )
        self._supervisor.stops.forget(name)
        self._want(name, Wanted.UP)

    def _pulled_in(self, name: str) -> list[tuple[Unit, str]]:
        """What a start of the service starts too: what it requires and wants, and so on."""
        found: list[tuple[Unit, str]] = []
        for other in sorted(
            order.pulled_in(self._supervisor.dependencies.graph(), [name]) - {name}
        ):
            needed = self._supervisor.services[other]
            if needed.wanted is not Wanted.UP or needed.has_failed:
                self._wanted_again(other)
                found += [(unit, f"{name} needs it") for unit in self._units(other, None)]
        return found

    def stop(
        self, name: str, index: int | None, *, actor: str, timeout: float | None = None
    ) -> list[int]:
        """Stop; a second stop may shorten what is left before KILL, never lengthen it."""
        self._supervisor.rolls.cancel(name)
        units = self._units(name, index)
        if index is None:
            self._want(name, Wanted.DOWN)
        for unit in units:
            unit.asked_down = index is not None
            unit.want(Wanted.DOWN, actor=actor)
            if timeout is not None:
                unit.machine.hurry(self._supervisor.clock.monotonic(), timeout)
        return [u.index for u in units]

    def pause(self, name: str, *, actor: str) -> None:
        """Keep it as it is: running instances go on, dead ones are not restarted."""
        for unit in self._units(name, None):
            unit.want(Wanted.PAUSED, actor=actor)
        self._want(name, Wanted.PAUSED)

    def restart(self, name: str, index: int | None, *, actor: str, detail: str = "") -> list[int]:
        """Restart; several instances one by one, each ready before the next is touched."""
        self._refuse_while_stopping()
        supervisor, units = self._supervisor, self._units(name, index)
        self._wanted_again(name)
        needed = self._pulled_in(name)
        for unit in units:
            unit.asked_down = False
        supervisor.start_units(needed, Reason.REQUEST, actor)
        supervisor.rolls.begin(units, reason=Reason.REQUEST, detail=detail, actor=actor)
        return [u.index for u in units]

    def reload(self, name: str, index: int | None, *, actor: str) -> list[int]:
        """Tell running instances to reload; never restarts.

        Raises `AtlasError` service.reload when the service declares no way, service.state when
        nothing of it runs.
        """
        service = self.service(name)
        units = self._units(name, index)
        if service.spec.reload.kind == "none":
            raise AtlasError(
                "service.reload",
                f"service {name!r} declares no way to reload",
                hint='set reload = { signal = "HUP" } (or exec, notify), or use `atlasctl restart`',
            )
        running = [u for u in units if u.machine.state is Lifecycle.RUNNING]
        if not running:
            raise AtlasError(
                "service.state",
                f"service {name!r} is {service.summary()}, so it cannot be reloaded",
                hint=f"start it: atlasctl start {name}",
            )
        for unit in running:
            unit.machine.begin_reload(self._supervisor.clock.monotonic(), actor=actor)
        return [u.index for u in running]

    def signal(self, name: str, index: int | None, signal: str, *, actor: str) -> list[int]:
        """Send a signal to the main processes. Raises `AtlasError` when nothing runs."""
        units = [u for u in self._units(name, index) if u.pid is not None]
        if not units:
            raise AtlasError(
                "service.state",
                f"no process of service {name!r} is running",
                hint=f"see: atlasctl why {name}",
            )
        for unit in units:
            unit.signal(signal, everyone=False)
            self._supervisor.journal.add(
                "signal", service=name, instance=unit.index, detail=signal, actor=actor
            )
        return [u.index for u in units]

    def scale(self, name: str, instances: int, *, actor: str) -> list[Action]:
        """Change the number of instances, live."""
        self._refuse_while_stopping()
        supervisor, service = self._supervisor, self.service(name)
        specs = [
            replace(s.spec, instances=instances) if s is service else s.spec
            for s in self._supervisor.services.values()
            if not s.removed
        ]
        wanted = {n: s.wanted for n, s in self._supervisor.services.items()}
        return supervisor.apply(
            specs, wanted, supervisor.policy, actor=actor, reason=Reason.REQUEST
        )

    def _want(self, name: str, wanted: Wanted) -> None:
        self._supervisor.services[name].wanted = wanted
        self._supervisor.save_target()

    def _refuse_while_stopping(self) -> None:
        if self._supervisor.stopping:
            raise AtlasError("core.stopping", "atlasd is shutting down", hint="start it again")
