"""Facts: what has happened, as frozen values in the past tense, and their form on the wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What every fact has; `kind` is its word on the wire, in the journal and in the docs."""

    kind: ClassVar[str] = ""
    time: float
    """When it happened: wall time, seconds since the epoch."""
    seq: int = 0
    """Number that the bus gave it, growing by one; 0 while it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceEvent(Event):
    """A fact about one service; `instance` is null when it is about all of them."""

    service: str
    instance: int | None = None
    reason: str = ""
    """Reason code, see `atlasd.states.Reason`."""
    detail: str = ""
    """The reason in plain words."""
    actor: str = ""
    """Who asked for it: `uid:0`, `core`, `services`; empty when nobody did."""
    pid: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceMoved(ServiceEvent):
    """An instance went from one lifecycle state to another."""

    kind = "transition"
    old: str
    new: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceCrashed(ServiceEvent):
    """An instance ended unplanned; `data` is the crash record."""

    kind = "crash"
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthChanged(ServiceEvent):
    """The probes of an instance came to another verdict."""

    kind = "health"
    new: str
    old: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficChanged(ServiceEvent):
    """An instance should be given work from now on, or no longer."""

    kind = "traffic"
    new: str
    old: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusSaid(ServiceEvent):
    """A program described what it is doing (STATUS= of the notify protocol)."""

    kind = "status"


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftoversFound(ServiceEvent):
    """Processes of an instance outlived KILL; `data` names them."""

    kind = "leftovers"
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class HookRan(ServiceEvent):
    """A pre or post command of a service ended; `data` says how."""

    kind = "hook"
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputLost(ServiceEvent):
    """Captured output could not be kept; `data` says how much."""

    kind = "lost-output"
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanApplied(ServiceEvent):
    """One step of a plan was begun: what is wanted of an instance differed from what it was."""

    kind = "plan"
    action: str = ""
    """start | stop | restart | deliver | update"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalSent(ServiceEvent):
    """A signal was sent to an instance's main process on request; `detail` names it."""

    kind = "signal"


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered(ServiceEvent):
    """A running instance was given changed secrets or settings; `detail` names them, and how."""

    kind = "delivery"


@dataclass(frozen=True, kw_only=True, slots=True)
class RollHalted(ServiceEvent):
    """Going from one instance to the next stopped at one that did not come up, or not reload."""

    kind = "roll-halted"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceScaled(ServiceEvent):
    """The backlog of its queues wanted another number of instances; `detail` says why."""

    kind = "scaled"
    old: str
    """Instances before."""
    new: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ServicesUpgraded(Event):
    """The services role replaced its own program, or went back to the old one."""

    kind = "upgrade"
    detail: str = ""
    actor: str = ""
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServicesConnected(Event):
    """Core reached the services role."""

    kind = "services-connected"
    pid: int
    version: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServicesDisconnected(Event):
    """The services role stopped answering; the services themselves go on."""

    kind = "services-disconnected"
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreStarted(Event):
    """Core is up: configuration loaded, plugins admitted, control socket open."""

    kind = "core-started"
    pid: int
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreStopped(Event):
    """Core was told to end."""

    kind = "core-stopped"
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationLoaded(Event):
    """A configuration was read, validated and swapped in; `detail` says what didn't follow."""

    kind = "config-loaded"
    actor: str = ""
    detail: str = ""
    generation: int = 0
    """Its number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationRefused(Event):
    """A configuration had errors; the running one stayed as it was."""

    kind = "config-refused"
    actor: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretChanged(Event):
    """A secret that is in use has another version, or another value, than before."""

    kind = "secret-changed"
    secret: str
    backend: str = ""
    version: str = ""
    environment: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretRevoked(Event):
    """A secret that is in use was deleted, disabled or denied; `reason` is the error's code."""

    kind = "secret-revoked"
    secret: str
    backend: str = ""
    environment: str = ""
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretStale(Event):
    """A backend does not answer, and values from before are used; told once for an outage."""

    kind = "secret-stale"
    secret: str
    backend: str = ""
    environment: str = ""
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretRotated(Event):
    """A step of a rotation was done, or the rotation failed and the current value stays."""

    kind = "secret-rotated"
    secret: str
    step: str
    """create | set | test | promote | retire | failed"""
    backend: str = ""
    version: str = ""
    environment: str = ""
    actor: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationPerformed(Event):
    """Somebody asked for an operation that changes something, and it was done or refused."""

    kind = "operation"
    operation: str
    actor: str
    service: str = ""
    instance: int | None = None
    detail: str = ""
    error: str = ""
    """Error code, when it was refused or failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReported(Event):
    """A check came to another verdict than the last time."""

    kind = "check"
    check: str
    old: str
    new: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginFailed(Event):
    """A plugin raised, hung or flooded at work."""

    kind = "plugin-failed"
    plugin: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsDied(Event):
    """Jobs were given up; told for each group of them once a minute at most."""

    kind = "jobs-died"
    fingerprint: str
    """The group, as `atlasctl dead groups` has it; empty: too many groups to tell them apart."""
    queue: str
    job_kind: str
    count: int
    """How many since this group was told last."""
    job: int
    """Id of the last of them."""
    reason: str = ""
    """exhausted | buried | worker_lost"""
    detail: str = ""
    """How many of what, and the last failure of that one, in plain words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueJudged(Event):
    """A queue of jobs does better or worse: ok, degraded or stalled."""

    kind = "queue-health"
    queue: str
    old: str
    new: str
    detail: str = ""
    """Why, in plain words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerMoved(Event):
    """The circuit breaker of what jobs call went to another state by its rules."""

    kind = "breaker"
    target: str
    old: str
    new: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventsLost(Event):
    """Events did not reach this reader: it was too slow, or away for too long."""

    kind = "events-lost"
    count: int
    detail: str = ""


KINDS: Mapping[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        InstanceMoved,
        InstanceCrashed,
        HealthChanged,
        TrafficChanged,
        StatusSaid,
        LeftoversFound,
        HookRan,
        OutputLost,
        PlanApplied,
        SignalSent,
        Delivered,
        RollHalted,
        ServiceScaled,
        ServicesUpgraded,
        ServicesConnected,
        ServicesDisconnected,
        CoreStarted,
        CoreStopped,
        ConfigurationLoaded,
        ConfigurationRefused,
        SecretChanged,
        SecretRevoked,
        SecretStale,
        SecretRotated,
        OperationPerformed,
        CheckReported,
        PluginFailed,
        JobsDied,
        QueueJudged,
        BreakerMoved,
        EventsLost,
    )
}
"""Every kind of fact by its word."""


COLUMNS = frozenset(
    {"seq", "time", "service", "instance", "old", "new", "reason", "detail", "actor", "pid"}
)
"""Fields that stand beside `kind` on the wire; the others of a fact stand in `data`."""


def to_wire(event: Event) -> dict[str, object]:
    """The fact as JSON-able material: `kind`, the `COLUMNS` that it has, and `data`."""
    body: dict[str, object] = {"kind": event.kind}
    data: dict[str, object] = {}
    for f in fields(event):
        value = getattr(event, f.name)
        if f.name in COLUMNS:
            body[f.name] = value
        elif f.name == "data":
            data.update(value)
        else:
            data[f.name] = value
    if data:
        body["data"] = data
    return body


def from_wire(body: Mapping[str, object]) -> Event | None:
    """The fact that `to_wire` or the services role wrote.

    Unknown fields are passed over and missing ones take their defaults, so that two versions
    understand each other; None for an unknown kind or when a field that must be there is missing.
    """
    cls = KINDS.get(str(body.get("kind", "")))
    if cls is None:
        return None
    data = body.get("data")
    extra = data if isinstance(data, Mapping) else {}
    values: dict[str, object] = {}
    for f in fields(cls):
        if f.name == "data":
            values["data"] = dict(extra)
        elif f.name in extra and f.name not in COLUMNS:
            values[f.name] = extra[f.name]
        elif f.name in body:
            values[f.name] = body[f.name]
    try:
        return cls(**values)  # type: ignore[arg-type]
    except TypeError:
        return None
