"""The cgroup of one instance over the lives of its processes."""

from collections.abc import Callable, Sequence

from atlasd.services.cgroup import Cgroup
from atlasd.services.effects import Effects
from atlasd.services.spec import Limits

NO_LIMITS = (None, None, None)


class InstanceCgroup:
    """Where this host has cgroups for us, one; otherwise none, and what is unmet is said."""

    def __init__(
        self, effects: Effects, service: str, index: int, say_unmet: Callable[[Sequence[str]], None]
    ) -> None:
        self._effects = effects
        self._service, self._index = service, index
        self._say_unmet = say_unmet
        self.cgroup: Cgroup | None = None
        self._limits: tuple[int | None, float | None, int | None] = NO_LIMITS
        self._oom_kills = 0

    def enter(self, limits: Limits) -> None:
        """Have it ready for a process that is to be started. Raises `OSError`."""
        cgroups = self._effects.cgroups
        if cgroups is None:
            self._say([n for n in ("memory", "cpu", "tasks") if getattr(limits, n)])
            return
        if self.cgroup is not None and self.cgroup.killed and self.cgroup.remove():
            self.cgroup = None
            self._limits = NO_LIMITS
        if self.cgroup is None:
            self.cgroup = cgroups.create(self._service, self._index)
        self.limit(limits)
        if limits.memory is not None:
            self._oom_kills = self.cgroup.oom_kills() or 0

    def adopt(self, limits: Limits | None = None) -> None:
        """Take over the one that a predecessor's process is in. Raises `OSError`."""
        if self._effects.cgroups is not None:
            self.cgroup = self._effects.cgroups.create(self._service, self._index)
            if limits is not None:
                self.limit(limits)  # systemd may have taken controllers back meanwhile

    def leave(self) -> None:
        """Nobody is in it any more; the next process starts in a new one."""
        if self.cgroup is not None:
            self.cgroup.remove()
            self.cgroup = None
            self._limits = NO_LIMITS

    def limit(self, limits: Limits) -> None:
        """Set the limits of the definition, if they aren't its own already."""
        wanted = (limits.memory, limits.cpu, limits.tasks)
        # Most services have none, and looking for files that aren't there costs at every start.
        if self.cgroup is not None and wanted != self._limits:
            self._limits = wanted
            self._say(list(self.cgroup.apply_limits(limits)))

    def _say(self, unmet: Sequence[str]) -> None:
        if unmet:
            self._say_unmet(unmet)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of it for that since this was last asked."""
        if self.cgroup is None or self._limits[0] is None:
            return False
        before, self._oom_kills = self._oom_kills, self.cgroup.oom_kills() or 0
        return self._oom_kills > before
