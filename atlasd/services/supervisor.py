"""The supervisor: all services of the host, what is wanted of them, and who waits for whom."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from atlasd.clock import Clock
from atlasd.errors import AtlasError, nearest
from atlasd.services import order
from atlasd.services.cgroup import open_cgroups
from atlasd.services.cgroup_place import Place
from atlasd.services.effects import Effects
from atlasd.services.journal import Journal
from atlasd.services.plan import Action, Present, plan
from atlasd.services.records import replace_json
from atlasd.services.restart import Budget
from atlasd.services.rolling import Rolling
from atlasd.services.service import Service
from atlasd.services.spec import Edge, HostPolicy, ServiceSpec, to_wire
from atlasd.services.unit import Unit
from atlasd.states import Lifecycle, Reason, Wanted


class Supervisor:
    """Owner of every service. Its methods return at once; what comes of them is seen in events."""

    def __init__(self, effects: Effects) -> None:
        self.effects = effects
        self.loop = effects.loop
        self.clock: Clock = effects.loop.clock
        self.journal = Journal(self.clock)
        self.services: dict[str, Service] = {}
        self.policy = HostPolicy()
        self.budget = Budget(
            rate=self.policy.restart_rate,
            burst=self.policy.restart_burst,
            now=self.clock.monotonic(),
        )
        self.by_pid: dict[int, Unit] = {}
        self.spawns_total = 0
        self.stopping = False
        self._recheck: set[str] = set()
        self._on_idle: Callable[[], None] | None = None
        self._rolling: dict[str, Rolling] = {}
        self._has_policy = False
        self.place: Place | None = None
        """Where the cgroups are, or why there are none."""

    # ------------------------------------------------------------------ the whole target

    @property
    def target_path(self) -> str:
        """Where the last target is kept for a successor: in the run directory, 0600."""
        return os.path.join(self.effects.run_dir, "target.json")

    def apply(
        self,
        specs: Sequence[ServiceSpec],
        wanted: Mapping[str, Wanted],
        policy: HostPolicy,
        *,
        actor: str = "",
        dry_run: bool = False,
        reason: Reason = Reason.CONFIG,
    ) -> list[Action]:
        """Make the specifications and what is wanted the new target, and act on the difference.

        With `dry_run` only says what it would do. Raises `AtlasError` for a bad graph; nothing is
        changed then.
        """
        new = {spec.name: spec for spec in specs}
        self._check(new)
        actions = plan(
            old={name: s.spec for name, s in self.services.items()},
            new=new,
            wanted=wanted,
            present={name: s.present() for name, s in self.services.items()},
        )
        if dry_run or self.stopping:
            return actions
        self.set_policy(policy)
        for name, spec in new.items():
            service = self.services.get(name)
            if service is None:
                service = self.services[name] = Service(self, spec)
            service.define(spec)
            service.wanted = wanted.get(name, Wanted.UP if spec.enabled else Wanted.DOWN)
        self.save_target()
        for action in actions:
            self.journal.add("plan", **action.to_wire(), actor=actor)
        self._act(actions, actor, reason)
        return actions

    def set_policy(self, policy: HostPolicy) -> None:
        """Take over what holds for the whole host."""
        before, self.policy = self.policy, policy
        self.budget.change(
            rate=policy.restart_rate, burst=policy.restart_burst, now=self.clock.monotonic()
        )
        self.effects.capture.set_policy(policy)
        if self._has_policy and before.cgroup == policy.cgroup:
            return
        self._has_policy = True
        self.effects.cgroups, self.place = open_cgroups(policy.cgroup, self.effects.run_dir)
        for service in self.services.values():
            for unit in service.units.values():
                unit.leave_cgroup()

    def _check(self, new: Mapping[str, ServiceSpec]) -> None:
        try:
            order.check_graph({name: spec.edges for name, spec in new.items()})
        except order.UnknownServiceError as error:
            raise AtlasError(
                "config.invalid", str(error), hint=nearest(error.edge.service, list(new))
            ) from None
        except order.CycleError as error:
            raise AtlasError(
                "config.invalid",
                str(error),
                hint="take one of these dependencies out; `after` is enough where only the order "
                "matters, but it may not go in circles either",
            ) from None

    def _act(self, actions: Iterable[Action], actor: str, reason: Reason) -> None:
        restarts: dict[str, list[int]] = {}
        for action in actions:
            service = self.services[action.service]
            unit = service.unit(action.instance)
            if action.action == "start":
                unit.want(Wanted.UP, reason=reason, detail=action.detail, actor=actor, manual=True)
            elif action.action == "stop":
                unit.want(Wanted.DOWN, reason=action.reason, detail=action.detail, actor=actor)
                if action.detail.startswith("removed"):
                    service.removed = True
            elif action.action == "restart":
                restarts.setdefault(action.service, []).append(action.instance)
            else:
                unit.update(service.spec)
        for name, indexes in restarts.items():
            details = {a.instance: a.detail for a in actions if a.service == name}
            self.roll(name, indexes, Reason.CONFIG, details[indexes[0]], actor)
        for name in [n for n, s in self.services.items() if s.removed and not s.units]:
            self.forget(name)

    def save_target(self) -> None:
        """Keep the target for a successor."""
        replace_json(
            self.target_path,
            {
                "policy": to_wire(self.policy),
                "services": [to_wire(s.spec) for s in self.services.values() if not s.removed],
                "wanted": {name: s.wanted.value for name, s in self.services.items()},
            },
        )

    # ------------------------------------------------------------------ single services

    def service(self, name: str) -> Service:
        """The service; raises `AtlasError` service.unknown."""
        found = self.services.get(name)
        if found is None:
            raise AtlasError(
                "service.unknown",
                f"no service is called {name!r}",
                hint=nearest(name, list(self.services)),
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
        self._cancel_roll(name)
        units = self._units(name, index)
        for other in order.pulled_in(self.graph(), [name]) - {name}:
            needed = self.services[other]
            if needed.wanted is not Wanted.UP or needed.has_failed:
                self._want(other, Wanted.UP)
                for unit in self._units(other, None):
                    unit.want(Wanted.UP, detail=f"{name} needs it", actor=actor, manual=True)
        self._want(name, Wanted.UP)
        for unit in units:
            unit.want(Wanted.UP, actor=actor, manual=True)
        return [u.index for u in units]

    def stop(
        self, name: str, index: int | None, *, actor: str, timeout: float | None = None
    ) -> list[int]:
        """Stop; a second stop may shorten what is left before KILL, never lengthen it."""
        self._cancel_roll(name)
        units = self._units(name, index)
        if index is None:
            self._want(name, Wanted.DOWN)
        for unit in units:
            unit.want(Wanted.DOWN, actor=actor)
            if timeout is not None:
                unit.machine.hurry(self.clock.monotonic(), timeout)
        return [u.index for u in units]

    def pause(self, name: str, *, actor: str) -> None:
        """Keep it as it is: running instances go on, dead ones are not restarted."""
        for unit in self._units(name, None):
            unit.want(Wanted.PAUSED, actor=actor)
        self._want(name, Wanted.PAUSED)

    def restart(self, name: str, index: int | None, *, actor: str, detail: str = "") -> list[int]:
        """Restart; several instances one by one, each ready before the next is touched."""
        self._refuse_while_stopping()
        units = self._units(name, index)
        self._want(name, Wanted.UP)
        self.roll(name, [u.index for u in units], Reason.REQUEST, detail, actor)
        return [u.index for u in units]

    def roll(
        self, name: str, indexes: Sequence[int], reason: Reason, detail: str, actor: str
    ) -> None:
        """Restart the instances one by one; takes the place of a roll that is under way."""
        self._cancel_roll(name)
        rolling = Rolling(
            units=[self.services[name].unit(i) for i in indexes],
            reason=reason,
            detail=detail,
            actor=actor,
            clock=self.clock,
            journal=self.journal,
        )
        if not rolling.step():
            self._rolling[name] = rolling

    def _cancel_roll(self, name: str) -> None:
        self._rolling.pop(name, None)

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
                hint='set reload = { signal = "HUP" } (or exec, or notify), or use `atlasctl restart`',
            )
        running = [u for u in units if u.machine.state is Lifecycle.RUNNING]
        if not running:
            raise AtlasError(
                "service.state",
                f"service {name!r} is {units[0].machine.state.value}, so it cannot be reloaded",
                hint=f"start it: atlasctl start {name}",
            )
        for unit in running:
            unit.machine.begin_reload(self.clock.monotonic(), actor=actor)
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
            self.journal.add(
                "signal", service=name, instance=unit.index, detail=signal, actor=actor
            )
        return [u.index for u in units]

    def scale(self, name: str, instances: int, *, actor: str) -> list[Action]:
        """Change the number of instances, live."""
        self._refuse_while_stopping()
        service = self.service(name)
        specs = [
            replace(s.spec, instances=instances) if s is service else s.spec
            for s in self.services.values()
            if not s.removed
        ]
        wanted = {n: s.wanted for n, s in self.services.items()}
        return self.apply(specs, wanted, self.policy, actor=actor, reason=Reason.REQUEST)

    def _want(self, name: str, wanted: Wanted) -> None:
        self.services[name].wanted = wanted
        self.save_target()

    def _refuse_while_stopping(self) -> None:
        if self.stopping:
            raise AtlasError("core.stopping", "atlasd is shutting down", hint="start it again")

    # ------------------------------------------------------------------ who waits for whom

    def graph(self) -> dict[str, tuple[Edge, ...]]:
        """Service → its edges."""
        return {name: s.spec.edges for name, s in self.services.items()}

    def blocked(self, name: str) -> str | None:
        """What a start of the service has to wait for, in words."""
        for edge in self.services[name].spec.edges:
            other = self.services.get(edge.service)
            if other is None or other.removed or other.meets(edge.condition):
                continue
            if edge.kind != "requires" and not other.is_under_way:
                continue  # `wants` and `after` wait for what is on its way, and for nothing else
            return f"waiting for {edge.service} to be {edge.condition} (it is {other.summary()})"
        return None

    def moved(self, unit: Unit, old: Lifecycle, new: Lifecycle) -> None:
        """An instance has changed its state: tell, and look who waited for it."""
        machine = unit.machine
        self.journal.add(
            "transition",
            service=unit.service.name,
            instance=unit.index,
            old=old.value,
            new=new.value,
            reason=machine.reason.value,
            detail=machine.detail,
            actor=machine.actor,
            pid=unit.pid,
        )
        self.changed(unit.service.name)
        if new is Lifecycle.FAILED:
            self._fail_dependents(unit.service.name)
        if new is Lifecycle.STOPPING and machine.wanted is Wanted.UP:
            self._restart_companions(unit.service.name)
        if new in (Lifecycle.STOPPED, Lifecycle.EXITED, Lifecycle.FAILED, Lifecycle.LOST):
            self.loop.call_soon(self._settle)

    def changed(self, name: str) -> None:
        """Readiness, health or state of a service changed: dependents are looked at in this turn."""
        if not self._recheck:
            self.loop.call_soon(self._look_again)
        self._recheck.add(name)

    def _look_again(self) -> None:
        changed, self._recheck = self._recheck, set()
        now = self.clock.monotonic()
        graph = self.graph()
        for name in changed:
            rolling = self._rolling.get(name)
            if rolling is not None and rolling.step():
                self._rolling.pop(name, None)
            for dependent in order.dependents(graph, name):
                for unit in list(self.services[dependent].units.values()):
                    unit.machine.dependency_changed(now)

    def _fail_dependents(self, name: str) -> None:
        for dependent, edges in self.graph().items():
            hard = any(e.service == name and e.kind == "requires" for e in edges)
            if hard and not self.services[name].can_still_meet:
                for unit in list(self.services[dependent].units.values()):
                    unit.machine.dependency_failed(f"it requires {name}, which has failed")

    def _restart_companions(self, name: str) -> None:
        for other, service in self.services.items():
            if name in service.spec.restart_with and service.wanted is Wanted.UP:
                live = [u.index for u in service.units.values() if u.machine.live]
                if live and other not in self._rolling:
                    detail = f"{name} is restarted"
                    self.loop.call_soon(
                        partial(self.roll, other, live, Reason.DEPENDENCY, detail, "")
                    )

    def _settle(self) -> None:
        for name, service in list(self.services.items()):
            for index, unit in list(service.units.items()):
                surplus = service.removed or index >= service.spec.instances
                if surplus and unit.machine.state is Lifecycle.STOPPED:
                    unit.close()
                    del service.units[index]
            if service.removed and not service.units:
                self.forget(name)
        if self.stopping:
            self._stop_next()

    def forget(self, name: str) -> None:
        """The service is no longer configured and nothing of it is left."""
        service = self.services.pop(name, None)
        if service is not None:
            service.close()
            self.save_target()

    def take_budget(self) -> float:
        """Take a restart from the host's budget."""
        return self.budget.take(self.clock.monotonic())

    # ------------------------------------------------------------------ the end

    def stop_all(self, when_done: Callable[[], None], *, actor: str) -> None:
        """Stop every service in reverse order, in parallel; `when_done` is called at the end.

        What is wanted stays as it is: the next start of atlasd starts the same services.
        """
        self.stopping = True
        self._rolling.clear()
        self._on_idle = when_done
        self._actor = actor
        self.loop.call_soon(self._stop_next)

    def _stop_next(self) -> None:
        graph = self.graph()
        alive = {n for n, s in self.services.items() if s.any_live}
        for name in sorted(self.services):
            service = self.services[name]
            held_back = name in alive and not order.may_stop(graph, name, alive)
            for unit in list(service.units.values()):
                if unit.machine.state is Lifecycle.STOPPING or (held_back and unit.machine.live):
                    continue
                if unit.machine.state not in (Lifecycle.STOPPED, Lifecycle.LOST):
                    unit.want(Wanted.DOWN, detail="atlasd stops", actor=self._actor)
        if not any(s.any_live for s in self.services.values()) and self._on_idle is not None:
            done, self._on_idle = self._on_idle, None
            done()

    def present(self) -> dict[str, list[Present]]:
        """Every instance, for the plan."""
        return {name: s.present() for name, s in self.services.items()}
