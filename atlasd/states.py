"""The words for what a service is wanted to be and what it is, and which moves are legal."""

from collections.abc import Mapping
from enum import StrEnum


class Wanted(StrEnum):
    """What the operator and the configuration ask for."""

    UP = "up"
    DOWN = "down"
    PAUSED = "paused"
    """Kept as it is: a running instance goes on, a dead one is not restarted."""


class Lifecycle(StrEnum):
    """Where an instance stands."""

    STOPPED = "stopped"
    WAITING = "waiting"
    """A dependency is not yet as it must be, or the host's restart budget is spent."""
    STARTING = "starting"
    RUNNING = "running"
    RELOADING = "reloading"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    EXITED = "exited"
    """Finished as expected."""
    FAILED = "failed"
    """Given up: only a manual start, a new definition or a dependency's new release revives it."""
    LOST = "lost"
    """Was ours; cannot be found, or cannot be proven to be ours. Never signalled."""


class Health(StrEnum):
    """What the probes say."""

    UNKNOWN = "unknown"
    PASS = "pass"  # noqa: S105  a verdict, no password
    WARN = "warn"
    FAIL = "fail"


class Traffic(StrEnum):
    """Whether an instance should be given work."""

    IN = "in"
    DRAINING = "draining"
    OUT = "out"


class JobState(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    """Not before its time: delayed, or waiting to be tried again."""
    AVAILABLE = "available"
    RUNNING = "running"
    """Held by a worker, until its lease ends."""
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DEAD = "dead"
    """Given up: kept for a person to look at."""


JOB_WAITING = frozenset({JobState.SCHEDULED, JobState.AVAILABLE})
JOB_FINAL = frozenset({JobState.COMPLETED, JobState.CANCELLED, JobState.DEAD})
"""States that only a requeue leaves."""


class Reason(StrEnum):
    """Why a transition happened."""

    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    OOM_KILL = "oom-kill"
    WATCHDOG = "watchdog"
    START_TIMEOUT = "start-timeout"
    SPAWN = "spawn"
    """The program could not be started at all: missing, not executable, no such user."""
    LIVENESS = "liveness"
    READINESS = "readiness"
    RESOURCE = "resource"
    DEPENDENCY = "dependency"
    BUDGET = "budget"
    """The host-wide budget for restarts after failures is spent for the moment."""
    LIMIT = "limit"
    """The service's own restart limit is reached."""
    REQUEST = "request"
    DEPLOY = "deploy"
    CONFIG = "config"
    DELIVERY = "delivery"
    """What the service is handed, a secret or a setting, has changed, and nothing else of it."""
    ADOPTED = "adopted"
    BOOT = "boot"
    BACKOFF = "backoff"
    """The delay before a restart is over."""
    READY = "ready"
    COMPLETED = "completed"
    LEFTOVERS = "leftovers"
    """Processes of the instance would not die."""


LIVE = frozenset({Lifecycle.STARTING, Lifecycle.RUNNING, Lifecycle.RELOADING, Lifecycle.STOPPING})
"""States in which a process exists."""

SETTLED = frozenset({Lifecycle.STOPPED, Lifecycle.EXITED, Lifecycle.FAILED, Lifecycle.LOST})
"""States that nothing but an outside event leaves."""

MOVES: Mapping[Lifecycle, frozenset[Lifecycle]] = {
    Lifecycle.STOPPED: frozenset({Lifecycle.WAITING, Lifecycle.STARTING, Lifecycle.FAILED}),
    Lifecycle.WAITING: frozenset({Lifecycle.STARTING, Lifecycle.STOPPED, Lifecycle.FAILED}),
    Lifecycle.STARTING: frozenset(
        {
            Lifecycle.RUNNING,
            Lifecycle.STOPPING,
            Lifecycle.BACKOFF,
            Lifecycle.EXITED,
            Lifecycle.FAILED,
            Lifecycle.STOPPED,
            Lifecycle.LOST,
        }
    ),
    Lifecycle.RUNNING: frozenset(
        {
            Lifecycle.RELOADING,
            Lifecycle.STOPPING,
            Lifecycle.BACKOFF,
            Lifecycle.EXITED,
            Lifecycle.FAILED,
            Lifecycle.STOPPED,
            Lifecycle.STARTING,
            Lifecycle.WAITING,
            Lifecycle.LOST,
        }
    ),
    Lifecycle.RELOADING: frozenset(
        {
            Lifecycle.RUNNING,
            Lifecycle.STOPPING,
            Lifecycle.BACKOFF,
            Lifecycle.EXITED,
            Lifecycle.FAILED,
            Lifecycle.STOPPED,
            Lifecycle.STARTING,
            Lifecycle.WAITING,
            Lifecycle.LOST,
        }
    ),
    Lifecycle.STOPPING: frozenset(
        {
            Lifecycle.STOPPED,
            Lifecycle.BACKOFF,
            Lifecycle.WAITING,
            Lifecycle.STARTING,
            Lifecycle.FAILED,
            Lifecycle.EXITED,
            Lifecycle.LOST,
        }
    ),
    Lifecycle.BACKOFF: frozenset(
        {Lifecycle.STARTING, Lifecycle.WAITING, Lifecycle.STOPPED, Lifecycle.FAILED}
    ),
    Lifecycle.EXITED: frozenset({Lifecycle.WAITING, Lifecycle.STARTING, Lifecycle.STOPPED}),
    Lifecycle.FAILED: frozenset({Lifecycle.WAITING, Lifecycle.STARTING, Lifecycle.STOPPED}),
    Lifecycle.LOST: frozenset(
        {Lifecycle.WAITING, Lifecycle.STARTING, Lifecycle.STOPPED, Lifecycle.FAILED}
    ),
}
"""Every legal move of an instance's lifecycle."""


def worst(*states: Health) -> Health:
    """The worst of several verdicts; unknown counts as warn unless there is nothing else."""
    known = [s for s in states if s is not Health.UNKNOWN]
    if not known:
        return Health.UNKNOWN
    if Health.FAIL in known:
        return Health.FAIL
    return Health.WARN if len(known) < len(states) or Health.WARN in known else Health.PASS
