"""What is answered about services: how they are, what is done to them, what they wrote."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from atlasd.control.models.base import (
    HealthWord,
    LifecycleWord,
    Model,
    TrafficWord,
    WantedWord,
)


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
    delivery: Literal["", "due", "halted"] = Field(
        default="",
        description="due: changed secrets or settings are still to be handed over; halted: that "
        "was given up at an instance that did not take them.",
    )
    outdated: tuple[str, ...] = Field(
        default=(),
        description="Names of secrets and settings of which its process has something older than "
        "is configured.",
    )
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
    action: Literal["start", "stop", "restart", "deliver", "update", "none"] = Field(
        description="What is done; deliver: changed secrets or settings are handed over as the "
        "service's `on_change` says; update: the running process is given new limits or policies."
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
