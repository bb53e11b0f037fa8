"""One service as the supervisor sees it: its definition, instances, sockets and counters."""

import os
import socket
from typing import TYPE_CHECKING

from atlasd.services.crash import CrashFile
from atlasd.services.deliveries import Deliveries
from atlasd.services.plan import Present
from atlasd.services.sockets import SocketError, adjust_socket, adopt_socket, open_socket
from atlasd.services.spec import ServiceSpec, Socket
from atlasd.services.unit import Unit
from atlasd.states import SETTLED, Health, Lifecycle, Wanted, worst

if TYPE_CHECKING:
    from atlasd.services.supervisor import Supervisor


class Service:
    """A service, whatever its instances are doing."""

    def __init__(self, supervisor: "Supervisor", spec: ServiceSpec) -> None:
        self.supervisor = supervisor
        self.spec = spec
        self.digest = spec.digest()
        """Of the definition; taken once, as every start needs it."""
        self.name = spec.name
        self.wanted = Wanted.UP
        self.removed = False
        """No longer configured; it goes once its last instance has stopped."""
        self.units: dict[int, Unit] = {}
        self.sockets: dict[str, socket.socket] = {}
        self.restarts_total: dict[str, int] = {}
        self.oom_kills_total = 0
        self.last_exit: float | None = None
        self.deliveries = Deliveries(self)
        self.crashes = CrashFile(os.path.join(supervisor.effects.state_dir, "crashes"), spec.name)

    def define(self, spec: ServiceSpec) -> None:
        """Take a new definition; running processes are not touched by it."""
        self.removed = False
        before, self.spec = self.spec, spec
        # Before anything is handed out: a program that has a secret may say it at once.
        for unit in self.units.values():
            unit.output.keep_out(spec.secrets)
        if before.sockets != spec.sockets:
            self._redefine_sockets(before)
        self.digest = spec.digest()
        if before.deliveries != spec.deliveries or self._owner(before) != self._owner(spec):
            self.deliveries.define()

    @staticmethod
    def _owner(spec: ServiceSpec) -> tuple[str | None, str | None]:
        return spec.user, spec.group

    def unit(self, index: int) -> Unit:
        """The instance, made if it isn't there yet."""
        found = self.units.get(index)
        if found is None:
            found = self.units[index] = Unit(self.supervisor, self, index)
        return found

    def complete(self) -> None:
        """Have every instance of the definition, those too that nothing was ever asked of."""
        for index in range(self.spec.instances):
            self.unit(index)

    # ------------------------------------------------------------------ sockets

    def listening(self) -> list[tuple[str, int]]:
        """Name and descriptor of each declared socket, opened if it isn't; for LISTEN_FDS.

        Raises `SocketError`.
        """
        self.take_back_sockets()
        for declared in self.spec.sockets:
            if declared.name not in self.sockets:
                self._keep(declared, open_socket(declared))
        return [(s.name, self.sockets[s.name].fileno()) for s in self.spec.sockets]

    def take_back_sockets(self) -> None:
        """Take those that a peer has given back, before it is too late: see `Held.settle`."""
        held = self.supervisor.effects.held
        for declared in self.spec.sockets:
            if declared.name not in self.sockets:
                fd = held.take(self._held_name(declared))
                opened = adopt_socket(fd, declared) if fd is not None else None
                if opened is not None:
                    self._keep(declared, opened)

    def open_sockets_early(self) -> None:
        """Open them before any instance is started, so that nobody is refused meanwhile."""
        try:
            self.listening()
        except SocketError:
            pass  # said again, with its reason, when an instance is started

    def _keep(self, declared: Socket, opened: socket.socket) -> None:
        self.sockets[declared.name] = opened
        self.supervisor.effects.held.hold(self._held_name(declared), opened.fileno())

    def _held_name(self, declared: Socket) -> str:
        return f"socket/{self.name}/{declared.name}"

    def _redefine_sockets(self, before: ServiceSpec) -> None:
        # An address that stays is listened on without a pause, by whatever name: to open it anew
        # would be refused as long as one of several instances still has it.
        known = {s.address: s.name for s in before.sockets if s.name in self.sockets}
        kept = [(s, known.pop(s.address)) for s in self.spec.sockets if s.address in known]
        moved = [(s, self._let_go(name)) for s, name in kept]
        for name in list(self.sockets):
            self._let_go(name).close()
        for declared, opened in moved:
            adjust_socket(opened, declared)
            self._keep(declared, opened)

    def _let_go(self, name: str) -> socket.socket:
        self.supervisor.effects.held.drop(f"socket/{self.name}/{name}")
        return self.sockets.pop(name)

    # ------------------------------------------------------------------ what others ask

    def present(self) -> list[Present]:
        """The instances, for the plan."""
        return [
            Present(
                index=i,
                state=u.machine.state,
                digest=u.digest,
                delivered=u.handed.digest,
                given=u.handed.given,
                wanted=u.machine.wanted,
                asked_down=u.asked_down,
            )
            for i, u in sorted(self.units.items())
        ]

    def _wanted_units(self) -> list[Unit]:
        return [u for i, u in self.units.items() if i < self.spec.instances]

    def meets(self, condition: str) -> bool:
        """Whether a dependency on the service is met: all instances for completed, else any."""
        units = self._wanted_units()
        if condition == "completed":
            return bool(units) and all(u.machine.meets(condition) for u in units)
        return any(u.machine.meets(condition) for u in units)

    @property
    def is_under_way(self) -> bool:
        """Whether it may yet come up by itself."""
        return self.wanted is Wanted.UP and any(
            u.machine.state not in SETTLED for u in self._wanted_units()
        )

    @property
    def given_up(self) -> bool:
        """Whether every instance was given up."""
        units = self._wanted_units()
        return bool(units) and all(u.machine.state is Lifecycle.FAILED for u in units)

    @property
    def has_failed(self) -> bool:
        """Whether an instance was given up."""
        return any(u.machine.state is Lifecycle.FAILED for u in self._wanted_units())

    @property
    def any_live(self) -> bool:
        """Whether a process of it exists."""
        return any(u.machine.live for u in self.units.values())

    @property
    def ready(self) -> bool:
        """Whether an instance is in traffic."""
        return self.meets("ready")

    def health(self) -> Health:
        """The worst of its instances, by state and by probes."""
        if self.wanted is Wanted.DOWN:
            return Health.UNKNOWN
        return worst(*(u.health() for u in self._wanted_units()))

    def summary(self) -> str:
        """Its state in a word or two: `starting`, `stopped, wanted down`."""
        states = sorted({u.machine.state.value for u in self._wanted_units()}) or ["stopped"]
        text = "/".join(states)
        return f"{text}, wanted {self.wanted.value}" if self.wanted is not Wanted.UP else text

    def count_restart(self, reason: str) -> None:
        """Count a start after a failure."""
        self.restarts_total[reason] = self.restarts_total.get(reason, 0) + 1

    def close(self) -> None:
        """Give everything back; the service is no more."""
        for name in list(self.sockets):
            self._let_go(name).close()
        for unit in self.units.values():
            unit.close()
        self.deliveries.close()
