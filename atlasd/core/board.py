"""What is known without asking: the last verdict of each check, the state of each instance."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from atlasd.core.health import CheckState, Verdict
from atlasd.services.protocol import SnapshotBody
from atlasd.states import Health, Lifecycle


class CheckBoard:
    """The last verdict of every configured check, and of those that were reported besides."""

    def __init__(self) -> None:
        self._states: dict[str, CheckState] = {}
        self._configured: frozenset[str] = frozenset()
        self.last_report: float | None = None
        """Wall time of the last report from the monitoring role."""

    def configure(self, checks: Iterable[CheckState]) -> None:
        """Take over the configured checks; what is known of them is kept, others are forgotten.

        Each comes as it is before its first verdict: unknown, at the time of the configuration.
        """
        states: dict[str, CheckState] = {}
        for check in checks:
            known = self._states.get(check.name)
            states[check.name] = (
                check
                if known is None or known.type != check.type
                else replace(
                    known, service=check.service, required=check.required, interval=check.interval
                )
            )
        self._states = states
        self._configured = frozenset(states)

    def report(self, check: CheckState, *, now: float) -> CheckState | None:
        """Take a verdict; what was known before if the verdict differs, else None.

        What belongs to a check (its service, whether it is required) is the configuration's to
        say; a check that core does not know yet is taken as it is reported.
        """
        self.last_report = now
        before = self._states.get(check.name)
        if before is not None and check.name in self._configured:
            check = replace(
                check, service=before.service, required=before.required, interval=before.interval
            )
        self._states[check.name] = check
        if before is None:
            before = replace(check, status=Health.UNKNOWN)
        return before if before.status is not check.status else None

    def all(self) -> tuple[CheckState, ...]:
        """Every check, by name."""
        return tuple(self._states[name] for name in sorted(self._states))

    def of(self, service: str) -> tuple[CheckState, ...]:
        """The checks of one service, by name."""
        return tuple(check for check in self.all() if check.service == service)


class ConfigBoard:
    """The generation of the configuration that is in force, and what is wrong with it."""

    def __init__(self) -> None:
        self.generation = 0
        self.loaded: float | None = None
        """Wall time at which it took over, seconds since the epoch."""
        self.rejected = ""
        """Why what the files hold now has not taken over; empty when it has."""
        self.failures: tuple[str, ...] = ()
        """Parts that could not take the generation over."""

    def verdict(self) -> Verdict:
        """Whether what is configured is in force."""
        if self.rejected:
            said = self.rejected.splitlines()
            more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
            return Verdict(
                status=Health.WARN,
                output=f"the configuration's files are not in force, generation {self.generation} "
                f"is: {said[0]}{more}",
            )
        if self.failures:
            return Verdict(
                status=Health.WARN,
                output=f"generation {self.generation} is in force in part only: "
                + "; ".join(self.failures),
            )
        return Verdict(status=Health.PASS)

    def numbers(self) -> dict[str, float]:
        """Its gauges, by the names of `atlasd.core.metrics.CORE_NUMBERS`."""
        found = {
            "atlasd_config_generation": float(self.generation),
            "atlasd_config_rejected": float(bool(self.rejected)),
            "atlasd_config_partial": float(bool(self.failures)),
        }
        if self.loaded is not None:
            found["atlasd_config_last_reload_timestamp_seconds"] = self.loaded
        return found


class StateBoard:
    """The lifecycle of every instance, kept up to date by events: enough for one line of status."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, int], Lifecycle] = {}

    def take(self, snapshot: SnapshotBody) -> None:
        """Begin anew with what services says."""
        self._states = {
            (service["name"], instance["index"]): Lifecycle(instance["state"])
            for service in snapshot["services"]
            for instance in service["instances"]
        }

    def move(self, service: str, instance: int, new: str) -> None:
        """An instance has moved."""
        self._states[(service, instance)] = Lifecycle(new)

    def settled(self, services: int) -> bool:
        """Whether that many services are known, and none of them is on its way up."""
        known = {service for service, _ in self._states}
        under_way = (Lifecycle.STARTING, Lifecycle.WAITING)
        return len(known) >= services and not any(s in under_way for s in self._states.values())

    def line(self) -> str:
        """As `20 services: 19 running, 1 backoff (web)`."""
        return describe(self._states)


_ORDER = tuple(Lifecycle)
_QUIET = frozenset({Lifecycle.RUNNING, Lifecycle.EXITED, Lifecycle.STOPPED})


def describe(states: Mapping[tuple[str, int], Lifecycle]) -> str:
    """Counts of services by their worst instance, and the names of those in trouble."""
    services: dict[str, Lifecycle] = {}
    for (service, _), state in states.items():
        before = services.get(service)
        if before is None or _badness(state) > _badness(before):
            services[service] = state
    counts = Counter(services.values())
    parts = []
    order = sorted(counts, key=lambda s: (s is not Lifecycle.RUNNING, _ORDER.index(s)))
    for state in order:
        part = f"{counts[state]} {state}"
        if state not in _QUIET:
            names = sorted(name for name, of in services.items() if of is state)
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            part += f" ({shown})"
        parts.append(part)
    total = len(services)
    head = f"{total} service{'' if total == 1 else 's'}"
    return f"{head}: {', '.join(parts)}" if parts else head


def _badness(state: Lifecycle) -> int:
    order = (
        Lifecycle.STOPPED,
        Lifecycle.EXITED,
        Lifecycle.RUNNING,
        Lifecycle.RELOADING,
        Lifecycle.STARTING,
        Lifecycle.STOPPING,
        Lifecycle.WAITING,
        Lifecycle.BACKOFF,
        Lifecycle.LOST,
        Lifecycle.FAILED,
    )
    return order.index(state)
