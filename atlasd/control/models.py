"""The shapes of the control socket's requests and answers; strict, and every field described."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, field_validator

from atlasd.contracts.settings import parse_duration
from atlasd.states import Health, Lifecycle, Traffic, Wanted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ServiceName = Annotated[
    str, Field(min_length=1, max_length=200, description="Name of a service.", examples=["web"])
]
Index = Annotated[int, Field(ge=0, le=1_000_000, description="Index of an instance, from 0.")]
Seconds = Annotated[float, Field(ge=0, description="A duration in seconds.")]
Verdict = Literal["pass", "warn", "fail", "unknown"]
# The words of atlasd.states, which handlers may give as the plain strings of a snapshot.
WantedWord = Annotated[Wanted, Field(strict=False)]
LifecycleWord = Annotated[Lifecycle, Field(strict=False)]
HealthWord = Annotated[Health, Field(strict=False)]
TrafficWord = Annotated[Traffic, Field(strict=False)]


class Model(BaseModel):
    """What all shapes have in common: strict, frozen, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Model):
    """A request without fields."""


def moment(value: object) -> object:
    """A point in time from `10m` (that long ago) or an ISO 8601 time.

    Anything else goes through, for pydantic to judge; a time without a zone is taken as UTC.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if not isinstance(value, str):
        return value
    text = value.strip()
    now = datetime.now(UTC)
    try:
        return max(now - parse_duration(text), _EPOCH)
    except OverflowError:
        return _EPOCH
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "expected a duration such as 10m, or a time such as 2026-11-23T17:44:43Z"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


# --- services: requests


class ServiceRequest(Model):
    """Which service."""

    service: ServiceName


class InstanceRequest(ServiceRequest):
    """Which service, and which of its instances."""

    instance: Index | None = Field(default=None, description="One instance; null: all of them.")


class SignalRequest(InstanceRequest):
    """Which signal goes to which instances."""

    signal: str = Field(
        max_length=32,
        pattern=r"^(SIG)?[A-Z][A-Z0-9+]*$|^[0-9]{1,2}$",
        description="Name, with or without SIG, or number.",
        examples=["HUP", "USR1"],
    )


class ScaleRequest(ServiceRequest):
    """How many instances a service is to have."""

    instances: int = Field(ge=0, le=1000, description="Wanted number of instances.")


class WhyRequest(ServiceRequest):
    """Whose story, and how much of it."""

    limit: int = Field(default=20, ge=1, le=1000, description="At most this many past events.")


class _LogFilter(Model):
    """Which output is wanted."""

    follow: bool = Field(default=False, description="Go on with new lines as they come.")
    since: Annotated[datetime, BeforeValidator(moment)] | None = Field(
        default=None,
        description="Only lines since then: `10m`, or an ISO 8601 time.",
        examples=["10m", "2026-11-23T17:44:43Z"],
        json_schema_extra={"format": ""},
    )
    grep: str | None = Field(
        default=None, max_length=500, description="Only lines in which this regular expression is."
    )
    lines: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="At most this many past lines, the last ones; null: all.",
    )
    stream: Literal["stdout", "stderr"] | None = Field(
        default=None, description="One of the two streams; null: both."
    )
    instance: Index | None = Field(default=None, description="One instance; null: all of them.")

    @field_validator("grep")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except (re.error, OverflowError, RecursionError) as fault:
                raise ValueError(f"not a regular expression: {fault}") from None
        return value


class LogsRequest(_LogFilter):
    """Which output of which services."""

    service: tuple[ServiceName, ...] = Field(
        default=(), max_length=100, description="Services, repeated for several; none: all."
    )


class ServiceLogsRequest(_LogFilter):
    """Which output of one service."""

    service: ServiceName


class EventsRequest(Model):
    """Which events."""

    follow: bool = Field(default=False, description="Go on with new events as they happen.")
    since: int | None = Field(
        default=None, ge=0, description="Only events with this `seq` or a later one."
    )
    limit: int | None = Field(
        default=None, ge=0, le=100_000, description="At most this many past events, the last ones."
    )
    service: ServiceName | None = Field(default=None, description="Only events of this service.")
    kind: str | None = Field(default=None, max_length=64, description="Only events of this kind.")


class ShutdownRequest(Model):
    """How the daemon is to end."""

    keep_services: bool = Field(
        default=False, description="Leave the services running; the next daemon adopts them."
    )


class UpgradeRequest(Model):
    """To which program."""

    executable: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Python interpreter of the new atlasd; null: the one that runs now.",
    )


# --- services: answers


class Instance(Model):
    """One instance of a service."""

    index: int = Field(description="From 0.")
    state: LifecycleWord = Field(description="Where its lifecycle stands.")
    pid: int | None = Field(description="Main process; null when none runs.")
    health: HealthWord = Field(description="What its probes say.")
    traffic: TrafficWord = Field(description="Whether it should be given work.")
    since: datetime = Field(description="When it entered `state`.")
    restarts: int = Field(description="Starts after a failure, since its definition.")
    reason: str = Field(description="Reason code of the last change of state.")
    memory_bytes: int | None = Field(description="Memory in use; null when none runs.")
    cpu_seconds: float | None = Field(description="CPU time used; null when none runs.")


class ServiceState(Model):
    """One service in the status."""

    name: str = Field(description="Its name in the configuration.")
    wanted: WantedWord = Field(description="What it is wanted to be.")
    health: HealthWord = Field(description="The worst of its instances and required checks.")
    instances: tuple[Instance, ...] = Field(description="In the order of their index.")


class Status(Model):
    """What every service is wanted to be, and is."""

    services: tuple[ServiceState, ...] = Field(description="In the order of their names.")


class InstanceDetail(Instance):
    """One instance, with all that is known."""

    detail: str = Field(default="", description="The reason in plain words.")
    failures: int = Field(default=0, description="Consecutive failures since a stable run.")
    next_start_in: float | None = Field(
        default=None, description="Seconds to the next try, in backoff."
    )
    tasks: int | None = Field(default=None, description="Processes and threads.")
    invocation: str | None = Field(default=None, description="Id of this run of the program.")
    status_text: str = Field(default="", description="What the program says of itself (STATUS=).")
    leftovers: tuple[int, ...] = Field(
        default=(), description="Processes of an ended run that would not die."
    )
    crash_loop: bool = Field(default=False, description="Failed five times within ten minutes.")


class ServiceDetail(Model):
    """One service, with all that is known."""

    name: str = Field(description="Its name in the configuration.")
    wanted: WantedWord = Field(description="What it is wanted to be.")
    health: HealthWord = Field(description="The worst of its instances and required checks.")
    type: str = Field(description="simple or oneshot.")
    critical: bool = Field(description="Whether its failure is the host's failure.")
    ready: bool = Field(description="Whether all wanted instances are ready.")
    waiting_for: tuple[str, ...] = Field(
        default=(), description="Dependencies that are not yet as they must be."
    )
    restarts_by_reason: dict[str, int] = Field(
        default_factory=dict, description="Restarts after failures, by reason code."
    )
    oom_kills: int = Field(default=0, description="Times the kernel killed it for want of memory.")
    last_exit: datetime | None = Field(default=None, description="When a process last ended.")
    command: tuple[str, ...] = Field(default=(), description="What is run.")
    instances: tuple[InstanceDetail, ...] = Field(description="In the order of their index.")


class Accepted(Model):
    """The operation was accepted; what becomes of it is seen in events and the status."""

    service: str = Field(description="The service.")
    affected: tuple[int, ...] = Field(description="Indexes of the instances that it concerns.")
    next_seq: int = Field(
        default=0, description="`seq` of the first event that can be a consequence."
    )


class Action(Model):
    """One step of a plan."""

    service: str = Field(description="The service.")
    instance: int = Field(description="The instance's index.")
    action: Literal["start", "stop", "restart", "update", "none"] = Field(
        description="What is done; update: the running process is given new limits or policies."
    )
    reason: str = Field(description="Reason code.")
    detail: str = Field(default="", description="The reason in plain words: `command changed`.")


class Scaled(Model):
    """What changing the number of instances does."""

    service: str = Field(description="The service.")
    instances: int = Field(description="Wanted number of instances.")
    actions: tuple[Action, ...] = Field(description="What is done to reach it.")
    next_seq: int = Field(
        default=0, description="`seq` of the first event that can be a consequence."
    )


class Plan(Model):
    """What is to be done, or was begun, so that the host is as the configuration says."""

    actions: tuple[Action, ...] = Field(description="Steps, `none` left out.")
    unchanged: int = Field(description="Instances of which nothing is asked.")
    notes: tuple[str, ...] = Field(
        default=(), description="What else changes: checks, host policy, plugins' settings."
    )
    next_seq: int = Field(
        default=0, description="`seq` of the first event that can be a consequence."
    )


class ConfigReloaded(Model):
    """What was taken over from the configuration, and what waits for `apply`."""

    applied: tuple[Action, ...] = Field(description="Steps that were done; none is a restart.")
    pending: tuple[Action, ...] = Field(description="Steps that only `apply` does.")
    notes: tuple[str, ...] = Field(default=(), description="What else changed.")


class LogRecord(Model):
    """One line of output."""

    time: datetime = Field(description="When it was read from the program.")
    service: str = Field(description="The service.")
    instance: int = Field(description="The instance's index.")
    stream: Literal["stdout", "stderr"] = Field(description="Where the program wrote it.")
    message: str = Field(description="The line, without its end.")


class Event(Model):
    """One fact; fields that do not apply are left out of a line."""

    seq: int = Field(description="Grows by one with each event of this daemon.")
    time: datetime = Field(description="When it happened.")
    kind: str = Field(
        description="transition, crash, health, plan, …; `events-lost`: the reader was too slow, "
        "and `data.count` events are missing here."
    )
    service: str | None = Field(default=None, description="The service it concerns.")
    instance: int | None = Field(default=None, description="The instance it concerns.")
    old: str | None = Field(default=None, description="State before a transition.")
    new: str | None = Field(default=None, description="State after a transition.")
    reason: str | None = Field(default=None, description="Reason code.")
    detail: str | None = Field(default=None, description="In plain words.")
    actor: str | None = Field(default=None, description="Who asked for it: `uid:0`, `core`, …")
    pid: int | None = Field(default=None, description="The process it concerns.")
    data: dict[str, object] = Field(default_factory=dict, description="What belongs to the kind.")


class Crash(Model):
    """Equal crashes of a service, counted."""

    fingerprint: str = Field(description="The same for equal crashes.")
    count: int = Field(description="How often.")
    first: datetime = Field(description="When it was first seen.")
    last: datetime = Field(description="When it was last seen.")
    reason: str = Field(description="Reason code.")
    detail: str = Field(default="", description="In plain words: `exit code 3`.")
    exit_code: int | None = Field(default=None, description="Exit code of the last one.")
    signal: str | None = Field(default=None, description="Signal that ended the last one.")
    oom: bool = Field(default=False, description="Whether the kernel killed it for memory.")
    instance: int | None = Field(default=None, description="Instance of the last one.")
    uptime_seconds: float | None = Field(default=None, description="How long the last one lived.")
    memory_bytes: int | None = Field(default=None, description="Memory of the last one at death.")
    cpu_seconds: float | None = Field(default=None, description="CPU time of the last one.")
    restarts_in_window: int | None = Field(
        default=None, description="Failures within the restart window, this one included."
    )
    output: tuple[str, ...] = Field(default=(), description="Last output of the last one.")


class Why(Model):
    """How a service came to be as it is."""

    service: str = Field(description="The service.")
    story: tuple[str, ...] = Field(description="In plain words, a sentence each, newest last.")
    next: tuple[str, ...] = Field(default=(), description="What the operator can do, if anything.")
    crashes: tuple[Crash, ...] = Field(default=(), description="Crashes, the latest first.")
    events: tuple[Event, ...] = Field(default=(), description="Past events, newest last.")


# --- plugins, health, checks


class Offer(Model):
    """One thing that a plugin supplies."""

    kind: str = Field(description="check type, config source, subscriber, …")
    name: str = Field(description="Under which it is chosen.")
    summary: str = Field(default="", description="One line of help.")


class Plugin(Model):
    """One plugin that was found."""

    name: str = Field(description="Its name.")
    origin: str = Field(description="Distribution, or file.")
    version: str = Field(default="", description="Of the distribution; empty for a drop-in.")
    state: str = Field(description="admitted, refused or failing.")
    reason: str = Field(default="", description="Why it was refused or is failing.")
    offers: tuple[Offer, ...] = Field(default=(), description="What it supplies.")
    failures: int = Field(default=0, description="Failures at work since the start.")


class Plugins(Model):
    """Every plugin that was found."""

    plugins: tuple[Plugin, ...] = Field(description="In the order of their names.")


class HealthCheck(Model):
    """One verdict in a health body."""

    componentId: str | None = Field(default=None, description="Instance or check.")  # noqa: N815
    componentType: str | None = Field(  # noqa: N815
        default=None, description="component, datastore or system."
    )
    observedValue: float | int | str | None = Field(  # noqa: N815
        default=None, description="What was measured."
    )
    observedUnit: str | None = Field(default=None, description="Its unit.")  # noqa: N815
    status: Verdict = Field(description="The verdict.")
    affectedEndpoints: tuple[str, ...] | None = Field(  # noqa: N815
        default=None, description="What cannot be reached."
    )
    time: datetime | None = Field(default=None, description="When it was observed.")
    output: str | None = Field(default=None, description="Why it is not pass.")


class HealthBody(Model):
    """Health in the shape of `application/health+json`."""

    status: Literal["pass", "warn", "fail"] = Field(description="The verdict of all together.")
    version: str | None = Field(default=None, description="atlasd's version.")
    serviceId: str | None = Field(default=None, description="Host or service.")  # noqa: N815
    description: str | None = Field(default=None, description="Whose health this is.")
    notes: tuple[str, ...] | None = Field(default=None, description="What to know beside it.")
    output: str | None = Field(default=None, description="Why it is not pass.")
    checks: dict[str, tuple[HealthCheck, ...]] = Field(
        default_factory=dict, description="Verdicts by `component:measurement`."
    )
    links: dict[str, str] | None = Field(default=None, description="Where to look next.")


class CheckResult(Model):
    """One check's verdict."""

    name: str = Field(min_length=1, max_length=200, description="Name in the configuration.")
    type: str = Field(max_length=100, description="Type of the check: http, tcp, exec, …")
    status: Verdict = Field(description="The verdict.")
    time: datetime = Field(description="When it was observed.")
    service: str | None = Field(
        default=None, max_length=200, description="Service whose health it is part of."
    )
    required: bool = Field(
        default=True, description="Whether it can make its service fail; else at most warn."
    )
    interval_seconds: Seconds | None = Field(
        default=None, description="Time between two runs; after three it counts as unknown."
    )
    duration_seconds: Seconds | None = Field(default=None, description="How long it took.")
    output: str = Field(default="", max_length=10_000, description="What it said.")
    observed_value: float | int | str | None = Field(default=None, description="Measured value.")
    observed_unit: str | None = Field(default=None, max_length=100, description="Its unit.")


class CheckReport(Model):
    """Verdicts from the monitoring role."""

    checks: tuple[CheckResult, ...] = Field(max_length=1000, description="One for each check.")


class Reported(Model):
    """How many verdicts were taken."""

    accepted: int = Field(description="Number of verdicts.")


class Checks(Model):
    """The last verdict of every configured check."""

    checks: tuple[CheckResult, ...] = Field(description="In the order of their names.")


# --- the daemon


class Capability(Model):
    """One thing that a host may offer."""

    name: str = Field(description="systemd, cgroup v2, root, pidfd exit info, …")
    available: bool = Field(description="Whether this host offers it.")
    detail: str = Field(default="", description="What was found.")
    reduced: str = Field(default="", description="What atlasd cannot do without it.")
    hint: str = Field(default="", description="How to get it.")


class Doctor(Model):
    """What this host offers, and what is reduced."""

    capabilities: tuple[Capability, ...] = Field(description="In a fixed order.")


class RoleVersion(Model):
    """One running role."""

    version: str = Field(description="Of atlasd's code that it runs.")
    pid: int = Field(description="Its process.")
    since: datetime | None = Field(default=None, description="When it started.")


class Version(Model):
    """Versions of the roles."""

    version: str = Field(description="Of core.")
    python: str = Field(description="Of the interpreter that runs core.")
    core: RoleVersion = Field(description="The role that answers.")
    services: RoleVersion | None = Field(description="The services role; null: it is gone.")


class ShuttingDown(Model):
    """What the daemon is doing as its last."""

    keep_services: bool = Field(description="Whether services run on.")
    services: tuple[str, ...] = Field(default=(), description="Those that are stopped, or kept.")


class Upgraded(Model):
    """The services role after its upgrade."""

    version: str = Field(description="That runs now.")
    pid: int = Field(description="Its process, the same as before.")


class OpenApi(RootModel[dict[str, object]]):
    """An OpenAPI 3.1 document."""


class ErrorBody(Model):
    """What went wrong."""

    code: str = Field(description="Stable and dotted; see the reference of errors.")
    message: str = Field(description="What is wrong, and where.")
    hint: str = Field(default="", description="What to do next.")
    details: dict[str, object] = Field(default_factory=dict, description="For programs.")


class Error(Model):
    """The answer of an operation that failed."""

    error: ErrorBody = Field(description="What went wrong.")
