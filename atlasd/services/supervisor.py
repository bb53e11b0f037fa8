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
        self._coming: set[str] = set()
        """Services that are being started in this very call; see `blocked`."""
        self._on_idle: list[Callable[[], None]] = []
        self._actor = ""
        self._rolling: dict[str, Rolling] = {}
        self._has_policy = False
        self._cannot_keep = False
        self.left_behind: Callable[[Supervisor, list[Service]], object] | None = None
        """Takes over what a predecessor left and no target has named yet; see `adoption`."""
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
        old = {name: s.spec for name, s in self.services.items()}
        if not dry_run and not self.stopping:
            self.set_policy(policy)
            self._define(new)
        actions = plan(
            old=old,
            new=new,
            wanted=wanted,
            present={name: s.present() for name, s in self.services.items()},
        )
        if dry_run or self.stopping:
            return actions
        for name, spec in new.items():
            service = self.services[name]
            service.define(spec)
            service.wanted = wanted.get(name, Wanted.UP if spec.enabled else Wanted.DOWN)
        for name, service in self.services.items():
            if name not in new:
                service.removed, service.wanted = True, Wanted.DOWN
        self.save_target()
        for action in actions:
            self.journal.add("plan", **action.to_wire(), actor=actor)
        self._act(actions, actor, reason)
        for name in new:
            self.services[name].complete()
            self._agree(self.services[name], actor)
        self.loop.call_soon(self.settle)
        return actions

    def _define(self, new: Mapping[str, ServiceSpec]) -> None:
        made = [Service(self, spec) for name, spec in new.items() if name not in self.services]
        self.services.update({service.name: service for service in made})
        left_behind, self.left_behind = self.left_behind, None
        if left_behind is not None:
            left_behind(self, made)

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
        starts: list[tuple[Unit, str]] = []
        for action in actions:
            service = self.services[action.service]
            unit = service.unit(action.instance)
            if action.action == "start":
                starts.append((unit, action.detail))
            elif action.action == "stop":
                unit.want(Wanted.DOWN, reason=action.reason, detail=action.detail, actor=actor)
            elif action.action == "restart":
                restarts.setdefault(action.service, []).append(action.instance)
            else:
                unit.update(service.spec)
        for name, indexes in restarts.items():
            details = {a.instance: a.detail for a in actions if a.service == name}
            self.roll(name, indexes, Reason.CONFIG, details[indexes[0]], actor)
        self.start_units(starts, reason, actor)

    def start_units(self, starts: Iterable[tuple[Unit, str]], reason: Reason, actor: str) -> None:
        """Start instances, each with its detail, as if all at the same moment.

        So that none of them passes another that it waits for and that stands later in the list.
        """
        starts = list(starts)
        self._coming = {unit.service.name for unit, _ in starts}
        for unit, detail in starts:
            unit.want(Wanted.UP, reason=reason, detail=detail, actor=actor, manual=True)
        coming, self._coming = self._coming, set()
        for name in sorted(coming):
            self.changed(name)

    def _agree(self, service: Service, actor: str) -> None:
        # What calls for no action may still be wanted otherwise than before, from now on.
        for unit in list(service.units.values()):
            machine = unit.machine
            if unit.index >= service.spec.instances or machine.wanted is service.wanted:
                continue
            if service.wanted is Wanted.DOWN:
                if not machine.live:
                    machine.wanted = Wanted.DOWN
            elif machine.wanted is Wanted.PAUSED or (
                service.wanted is Wanted.PAUSED and machine.wanted is Wanted.UP
            ):
                unit.want(service.wanted, reason=Reason.CONFIG, actor=actor)

    def save_target(self) -> None:
        """Keep the target for a successor."""
        self.keep(
            partial(replace_json, self.target_path),
            {
                "policy": to_wire(self.policy),
                "services": [to_wire(s.spec) for s in self.services.values()],
                "wanted": {name: s.wanted.value for name, s in self.services.items()},
                "removed": [name for name, s in self.services.items() if s.removed],
            },
        )

    def keep(self, write: Callable[[dict[str, object]], object], body: dict[str, object]) -> None:
        """Write what a successor needs. A full run directory must not stop what runs."""
        try:
            write(body)
        except OSError as error:
            if not self._cannot_keep:
                self.loop.report(
                    f"cannot write to {self.effects.run_dir}: {error.strerror}; the services go on,"
                    " but another start of this role could not take them over"
                )
            self._cannot_keep = True
        else:
            self._cannot_keep = False

    def take_back(self) -> None:
        """A peer has given descriptors back: take those that nobody asks for by himself."""
        for service in self.services.values():
            service.take_back_sockets()
            for unit in service.units.values():
                unit.attendants.stored.take_back()

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
        starts = self._pulled_in(name)
        self._want(name, Wanted.UP)
        starts += [(unit, "") for unit in units]
        self.start_units(starts, Reason.REQUEST, actor)
        return [u.index for u in units]

    def _pulled_in(self, name: str) -> list[tuple[Unit, str]]:
        """What a start of the service starts too: what it requires and wants, and so on."""
        found: list[tuple[Unit, str]] = []
        for other in sorted(order.pulled_in(self.graph(), [name]) - {name}):
            needed = self.services[other]
            if needed.wanted is not Wanted.UP or needed.has_failed:
                self._want(other, Wanted.UP)
                found += [(unit, f"{name} needs it") for unit in self._units(other, None)]
        return found

    def stop(
        self, name: str, index: int | None, *, actor: str, timeout: float | None = None
    ) -> list[int]:
        """Stop; a second stop may shorten what is left before KILL, never lengthen it."""
        self._cancel_roll(name)
        units = self._units(name, index)
        if index is None:
            self._want(name, Wanted.DOWN)
        for unit in units:
            unit.asked_down = index is not None
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
        needed = self._pulled_in(name)
        self._want(name, Wanted.UP)
        for unit in units:
            unit.asked_down = False
        self.start_units(needed, Reason.REQUEST, actor)
        self.roll(name, [u.index for u in units], Reason.REQUEST, detail, actor)
        return [u.index for u in units]

    def roll(
        self, name: str, indexes: Sequence[int], reason: Reason, detail: str, actor: str
    ) -> None:
        """Restart the instances one by one; takes the place of a roll that is under way."""
        if self.stopping or name not in self.services:
            return  # it was put off to the end of a turn, and things have changed
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
                hint='set reload = { signal = "HUP" } (or exec, notify), or use `atlasctl restart`',
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
            coming = other.is_under_way or edge.service in self._coming
            if edge.kind != "requires" and not coming:
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
        if new is Lifecycle.WAITING:
            self.loop.call_soon(partial(self._fail_if_hopeless, unit))
        if old in (Lifecycle.RUNNING, Lifecycle.RELOADING) and machine.returns:
            self._restart_companions(unit.service.name)
        if new in (Lifecycle.STOPPED, Lifecycle.EXITED, Lifecycle.FAILED, Lifecycle.LOST):
            self.loop.call_soon(self.settle)

    def changed(self, name: str) -> None:
        """Readiness, health or state of a service changed: dependents are looked at this turn."""
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
        if self.services[name].given_up:
            for dependent in order.dependents(self.graph(), name):
                for unit in list(self.services[dependent].units.values()):
                    self._fail_if_hopeless(unit)

    def _fail_if_hopeless(self, unit: Unit) -> None:
        """Fail an instance that waits for what was given up."""
        for edge in unit.service.spec.edges:
            other = self.services.get(edge.service)
            if edge.kind == "requires" and other is not None and other.given_up:
                unit.machine.dependency_failed(f"it requires {edge.service}, which has failed")
                return

    def _restart_companions(self, name: str) -> None:
        for other, service in self.services.items():
            if name in service.spec.restart_with and service.wanted is Wanted.UP:
                live = [u.index for u in service.units.values() if u.machine.live]
                if live and other not in self._rolling:
                    detail = f"{name} is restarted"
                    self.loop.call_soon(
                        partial(self.roll, other, live, Reason.DEPENDENCY, detail, "")
                    )

    def settle(self) -> None:
        """Forget instances and services that are stopped and no longer configured."""
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
        self._on_idle.append(when_done)
        self._actor = actor
        self.loop.call_soon(self._stop_next)

    def _stop_next(self) -> None:
        graph = self.graph()
        alive = {n for n, s in self.services.items() if s.any_live}
        for name in sorted(self.services):
            service = self.services[name]
            held_back = name in alive and not order.may_stop(graph, name, alive)
            for unit in list(service.units.values()):
                machine = unit.machine
                if machine.state is Lifecycle.STOPPING:
                    if machine.wanted is not Wanted.DOWN:  # it would be started again afterwards
                        unit.want(Wanted.DOWN, detail="atlasd stops", actor=self._actor)
                elif held_back and machine.live:
                    continue
                elif machine.state not in (Lifecycle.STOPPED, Lifecycle.LOST):
                    unit.want(Wanted.DOWN, detail="atlasd stops", actor=self._actor)
        if not any(s.any_live for s in self.services.values()):
            waiting, self._on_idle = self._on_idle, []
            for done in waiting:
                done()

    def present(self) -> dict[str, list[Present]]:
        """Every instance, for the plan."""
        return {name: s.present() for name, s in self.services.items()}
