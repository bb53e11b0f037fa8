"""The supervisor: all services of the host, and what is wanted of them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from atlasd.clock import Clock
from atlasd.errors import AtlasError, nearest
from atlasd.services import handed_files, order
from atlasd.services.cgroup import open_cgroups
from atlasd.services.cgroup_place import Place
from atlasd.services.dependencies import Dependencies
from atlasd.services.effects import Effects
from atlasd.services.journal import Journal
from atlasd.services.plan import Action, plan
from atlasd.services.records import replace_json
from atlasd.services.restart import Budget
from atlasd.services.rolling import Rolls, Turn
from atlasd.services.service import Service
from atlasd.services.spec import HostPolicy, ServiceSpec, to_wire
from atlasd.services.stopping import Stops
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
        self.dependencies = Dependencies(self)
        self.rolls = Rolls(self)
        self.stops = Stops(self)
        self._on_idle: list[Callable[[], None]] = []
        self.records_due: set[Unit] = set()
        self._has_policy = False
        self._cannot_keep = False
        self._told_of_disk = False
        self._has_swept = False
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
        if not self._has_swept:
            self.loop.call_soon(self.sweep_secrets)
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
        turns: dict[str, list[Turn]] = {}
        starts: list[tuple[Unit, str]] = []
        delivers: list[tuple[Unit, Action]] = []
        self.stops.forget_all()  # the plan names those again that are still to be stopped
        for action in actions:
            service = self.services[action.service]
            unit = service.unit(action.instance)
            if action.action == "start":
                starts.append((unit, action.detail))
            elif action.action == "stop":
                self.stops.add(unit, reason=action.reason, detail=action.detail, actor=actor)
            elif action.action == "restart":
                turn = Turn(unit=unit, reason=action.reason, detail=action.detail)
                turns.setdefault(action.service, []).append(turn)
            else:
                # From here on its output shows nothing of what it is handed next.
                unit.update(service.spec)
                if action.action == "deliver":
                    delivers.append((unit, action))
        self.stops.go_on()
        for unit, action in delivers:
            turns.setdefault(action.service, []).extend(self._deliver(unit, action))
        for those in turns.values():
            # What doesn't run has its turn first: nobody's service is interrupted by it.
            those.sort(key=lambda turn: turn.unit.machine.live)
            self.rolls.take_turns(those, actor=actor, after_others=True)
        self.start_units(starts, reason, actor)

    def _deliver(self, unit: Unit, action: Action) -> list[Turn]:
        """Hand what has changed to an instance, now or in its turn, as its service wants it."""
        spec = unit.service.spec
        way = spec.on_change.kind
        if unit.machine.live and way in ("swap", "none"):
            if way == "swap":
                unit.swap_files()
            else:
                unit.handed.what_can_be(files=False)
            return []
        unit.write_record()  # a successor is to know which it lacks
        how = way if way in ("reload", "signal") else "restart"
        detail = action.detail.partition(";")[0]  # what has changed; the rest is what is done
        return [Turn(unit=unit, reason=action.reason, detail=detail, how=how, careful=True)]

    def start_units(self, starts: Iterable[tuple[Unit, str]], reason: Reason, actor: str) -> None:
        """Start instances, each with its detail, as if all at the same moment.

        So that none of them passes another that it waits for and that stands later in the list.
        """
        starts, dependencies = list(starts), self.dependencies
        dependencies.coming = {unit.service.name for unit, _ in starts}
        for unit, detail in starts:
            unit.want(Wanted.UP, reason=reason, detail=detail, actor=actor, manual=True)
        coming, dependencies.coming = dependencies.coming, set()
        for name in sorted(coming):
            dependencies.changed(name)

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

    def secrets_are_on_disk(self) -> None:
        """Files of secrets were written: say once if they are not in memory."""
        if self._told_of_disk:
            return
        self._told_of_disk = True
        from atlasd.services import hostfacts  # once in a while; see `main`

        folder = self.effects.secrets_dir
        kind = hostfacts.filesystem_of(os.path.realpath(folder))
        if kind not in hostfacts.IN_MEMORY:
            self.loop.report(
                f"{folder} is on {kind or 'a disk'}: secrets that are delivered as files are "
                "written to it; put the run directory on a tmpfs"
            )

    def sweep_secrets(self) -> None:
        """Remove the files that a predecessor has handed to nobody who is still there."""
        self._has_swept = True
        handed_files.remove_strangers(self.effects.secrets_dir, self.services)
        for service in self.services.values():
            service.deliveries.sweep()

    def leave_no_files(self) -> None:
        """The role ends: files of services that don't run go, and a start makes them anew."""
        for service in self.services.values():
            if not service.any_live:
                service.deliveries.close()

    def record_soon(self, unit: Unit) -> None:
        """Write down what became of an instance once this turn is over."""
        if not self.records_due:
            self.loop.call_soon(self.write_records)
        self.records_due.add(unit)

    def write_records(self) -> None:
        """Do so now: whoever is told of a state must find it in a successor too."""
        due, self.records_due = self.records_due, set()
        for unit in due:
            unit.turn_is_over()

    def take_back(self) -> None:
        """A peer has given descriptors back: take those that nobody asks for by himself."""
        for service in self.services.values():
            service.take_back_sockets()
            for unit in service.units.values():
                unit.attendants.take_back()

    # ------------------------------------------------------------------ what happens

    def moved(self, unit: Unit, old: Lifecycle, new: Lifecycle) -> None:
        """An instance has changed its state: tell, and look whom it concerns."""
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
        self.dependencies.moved(unit, old, new)
        if new in (Lifecycle.STOPPED, Lifecycle.EXITED, Lifecycle.FAILED, Lifecycle.LOST):
            self.loop.call_soon(self.settle)

    def settle(self) -> None:
        """Forget what is stopped and no longer configured, and stop what waited for it."""
        for name, service in list(self.services.items()):
            for index, unit in list(service.units.items()):
                surplus = service.removed or index >= service.spec.instances
                if surplus and unit.machine.state is Lifecycle.STOPPED:
                    unit.close()
                    del service.units[index]
            if service.removed and not service.units:
                self.forget(name)
        self.stops.go_on()
        if self.stopping and not any(s.any_live for s in self.services.values()):
            waiting, self._on_idle = self._on_idle, []
            for done in waiting:
                done()

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
        self.rolls.cancel_all()
        self._on_idle.append(when_done)
        for service in self.services.values():
            for unit in service.units.values():
                if unit.machine.state not in (Lifecycle.STOPPED, Lifecycle.LOST):
                    self.stops.add(unit, reason=Reason.REQUEST, detail="atlasd stops", actor=actor)
        self.loop.call_soon(self.settle)
