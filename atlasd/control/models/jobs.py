"""Jobs, queues, dead letters and circuit breakers: what is asked, and what is answered."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from atlasd.control.models.base import Model

_QUEUE = Field(min_length=1, max_length=128, description="Name of a queue.", examples=["email"])
_STATES = Literal["scheduled", "available", "running", "completed", "cancelled", "dead"]


class EnqueueRequest(Model):
    """Jobs that are to be done."""

    jobs: tuple[dict[str, Any], ...] = Field(
        min_length=1,
        max_length=10_000,
        description="Each { kind, queue, args, delay, run_at, priority, max_attempts, retry, "
        "timeout, stall_after, expires_in, fair_key, target, unique, tags, then, keep_result }; "
        "only `kind` is required.",
        examples=[[{"kind": "email.send", "args": {"to": "ops@example.org"}}]],
    )
    key: str = Field(
        default="",
        max_length=500,
        description="Idempotency key: the same one within a day gives the first answer again.",
    )


class EnqueuedJob(Model):
    """What became of one of them."""

    id: int = Field(description="Of the job that stands for it.")
    state: _STATES = Field(description="Where that job stands.")
    outcome: Literal["created", "existing", "rejected", "replaced", "moved"] = Field(
        description="created; or what was done about another job with its unique key."
    )


class Enqueued(Model):
    """What became of new jobs, in their order; it is durable."""

    jobs: tuple[EnqueuedJob, ...] = Field(description="One for each that was asked.")


class JobRequest(Model):
    """Which job."""

    id: int = Field(ge=1, le=2**62, description="Id of a job.")


class JobWatchRequest(JobRequest):
    """Which job, and for how long."""

    follow: bool = Field(default=False, description="Go on until it has ended.")


class JobRetryRequest(JobRequest):
    """Which job, and with which arguments."""

    args: dict[str, Any] | None = Field(
        default=None, description="Arguments in place of its own; null: as they were."
    )


class JobsRequest(Model):
    """Which jobs."""

    id: tuple[int, ...] = Field(default=(), max_length=1000, description="Only these.")
    queue: str | None = Field(default=None, max_length=128, description="Only of this queue.")
    kind: str | None = Field(default=None, max_length=128, description="Only of this kind.")
    state: tuple[_STATES, ...] = Field(
        default=(), max_length=6, description="Only in these states; none: any."
    )
    fair_key: str | None = Field(default=None, max_length=128, description="Only of this share.")
    target: str | None = Field(default=None, max_length=128, description="Only for this target.")
    tag: str | None = Field(default=None, max_length=128, description="Only with this tag.")
    after: int = Field(default=0, ge=0, le=2**62, description="Only with a larger id; for paging.")
    limit: int = Field(default=100, ge=1, le=10_000, description="At most this many.")


class Job(Model):
    """A job in brief."""

    id: int = Field(description="Its id.")
    state: _STATES = Field(description="Where it stands.")
    queue: str = Field(description="Its queue.")
    kind: str = Field(description="Its handler.")
    priority: int = Field(description="0 (the most urgent) to 9.")
    attempt: int = Field(description="How often it was begun.")
    max_attempts: int = Field(description="After how many failures it is dead.")
    run_at: datetime | None = Field(description="When it may run.")
    created: datetime | None = Field(description="When it was enqueued.")
    finalized: datetime | None = Field(description="When it ended; null: it hasn't.")
    reason: str = Field(description="Why it ended as it did.")


class Jobs(Model):
    """Jobs by id."""

    jobs: tuple[Job, ...] = Field(description="In the order of their ids.")


class JobError(Model):
    """One failure of a job."""

    at: datetime | None = Field(description="When.")
    attempt: int = Field(description="Which attempt it was.")
    error: str = Field(description="Type of the error.")
    message: str = Field(description="What it says.")
    frames: tuple[str, ...] = Field(default=(), description="Where, the innermost last.")
    generation: int = Field(
        default=0, description="The configuration that was in force; 0: not known."
    )


class JobDetail(Job):
    """A job with all that is known."""

    args: dict[str, Any] = Field(description="Its arguments.")
    token: int = Field(description="Fencing token of its last claim.")
    lost_count: int = Field(description="How often it lost its worker.")
    worker: str = Field(description="Who holds it; empty: nobody.")
    fair_key: str = Field(description="Whose share of the queue it takes.")
    target: str = Field(description="Whose breaker it is under.")
    unique_key: str = Field(description="The key that no other job may have.")
    expires: datetime | None = Field(description="When it is cancelled if nobody has begun it.")
    cancel_requested: bool = Field(description="Whether its worker is asked to stop it.")
    fingerprint: str = Field(description="Of its last failure.")
    errors: tuple[JobError, ...] = Field(description="Its last failures, the newest last.")
    result: Any = Field(description="What its handler returned.")
    progress: Any = Field(description="What its handler last reported.")
    options: dict[str, Any] = Field(description="Time-outs, retry policy, tags and so on.")
    requeued_from: str = Field(description="State that it was requeued from.")


class JobStep(Job):
    """A job as it is after a change."""

    progress: Any = Field(description="What its handler last reported.")
    result: Any = Field(description="What its handler returned.")
    cancel_requested: bool = Field(description="Whether its worker is asked to stop it.")
    error: JobError | None = Field(description="Its last failure.")
    gone: bool = Field(default=False, description="It was deleted meanwhile; this is what it was.")


class JobExplained(Model):
    """Why a job is where it is."""

    id: int = Field(description="Its id.")
    state: _STATES = Field(description="Where it stands.")
    reason: str = Field(
        description="One word: running, scheduled, retrying, paused, breaker, concurrency, rate, "
        "no_worker, waiting; or how it ended."
    )
    detail: str = Field(description="In plain words.")


class WorkRequest(Model):
    """What became of jobs, and how many more are wanted: a worker that speaks HTTP."""

    worker: str = Field(min_length=1, max_length=200, description="The worker's own name.")
    queues: tuple[str, ...] = Field(
        default=(), max_length=100, description="Queues to claim from; none: `default`."
    )
    limit: int = Field(default=0, ge=0, le=1000, description="Jobs to claim at most.")
    wait_seconds: float = Field(
        default=0.0, ge=0, le=50, description="How long to wait for a first one."
    )
    finish: tuple[tuple[Any, ...], ...] = Field(
        default=(), max_length=10_000, description="Done: [id, token], [id, token, result], …"
    )
    fail: tuple[dict[str, Any], ...] = Field(
        default=(),
        max_length=10_000,
        description="Failed: { id, token, error, message, frames, verdict, retry_after, took }.",
    )
    release: tuple[tuple[int, ...], ...] = Field(
        default=(), max_length=10_000, description="Given back: [id, token], [id, token, delay]."
    )


class WorkJob(Model):
    """A claimed job."""

    id: int = Field(description="Its id: the key that makes its effects idempotent.")
    token: int = Field(description="Proof of the claim; a fencing token.")
    attempt: int = Field(description="From 1.")
    queue: str = Field(description="Its queue.")
    kind: str = Field(description="Its handler.")
    args: dict[str, Any] = Field(description="Its arguments.")
    max_attempts: int = Field(description="After how many failures it is dead.")
    lease_until: datetime | None = Field(description="Until when it is held without a heartbeat.")
    run_at: datetime | None = Field(description="When it was due.")
    options: dict[str, Any] = Field(description="Time-outs, tags and so on.")


class Work(Model):
    """Claimed jobs, and those of the settled ones that were no longer held."""

    jobs: tuple[WorkJob, ...] = Field(description="By rank.")
    lost: tuple[int, ...] = Field(default=(), description="Nothing was done for these.")


class BeatRequest(Model):
    """Which leases a worker still holds."""

    worker: str = Field(min_length=1, max_length=200, description="The worker's own name.")
    held: tuple[tuple[int, int], ...] = Field(max_length=10_000, description="[id, token] of each.")


class Beat(Model):
    """What became of the leases."""

    lost: tuple[int, ...] = Field(description="No longer held: stop, and don't finish them.")
    cancel: tuple[int, ...] = Field(description="Somebody wants these cancelled.")


class QueueRequest(Model):
    """Which queue."""

    queue: str = _QUEUE


class QueuePurgeRequest(QueueRequest):
    """What of which queue is to be deleted."""

    state: tuple[Literal["scheduled", "available", "completed", "cancelled", "dead"], ...] = Field(
        default=(), max_length=5, description="Jobs in these states; none: those that wait."
    )
    dry_run: bool = Field(default=False, description="Only count them.")


class QueueWatchRequest(QueueRequest):
    """Which queue, and for how long."""

    follow: bool = Field(default=False, description="Go on until nothing waits or runs.")


class Queue(Model):
    """How a queue stands."""

    name: str = Field(description="Its name.")
    paused: bool = Field(description="Whether nothing is claimed from it.")
    scheduled: int = Field(description="Jobs that are not due.")
    available: int = Field(description="Jobs that wait for a worker.")
    running: int = Field(description="Jobs that workers hold.")
    completed: int = Field(description="Jobs that are done, as far as they are kept.")
    cancelled: int = Field(description="Jobs that were cancelled, as far as they are kept.")
    dead: int = Field(description="Jobs that were given up.")
    oldest_seconds: float | None = Field(description="How long the first in line has waited.")
    aging_seconds: float = Field(
        description="What a step of priority is worth: a job of priority P is overtaken by fresh "
        "urgent work for P times this, at most."
    )
    strict: bool = Field(description="Whether priority is strict: then there is no bound.")
    verdict: Literal["ok", "degraded", "stalled"] = Field(description="How it does.")
    verdict_reason: str = Field(description="Why, in plain words.")
    workers: int = Field(description="Workers that ask this host for jobs of it.")


class QueueLimitsBody(Model):
    """The limits that a queue is worked within; null: none."""

    size: int | None = Field(description="Waiting jobs that it takes.")
    concurrency: int | None = Field(description="Jobs of it that run at once.")
    key_concurrency: int | None = Field(description="The same for each fair key.")
    rate: float | None = Field(description="Jobs that are begun a second.")
    key_rate: float | None = Field(description="The same for each fair key.")
    max_wait_seconds: float = Field(
        description="Wait of the first in line from which on it is degraded."
    )


class QueueWorker(Model):
    """A worker that asks for jobs of a queue."""

    worker: str = Field(description="How it calls itself.")
    concurrency: int | None = Field(description="Jobs that it runs at once; null: not known.")
    held: int | None = Field(description="Jobs that it holds, of all queues; null: not known.")


class QueueDetail(Queue):
    """All that is known of a queue."""

    verdict_since: datetime | None = Field(description="Since when it does so.")
    finished_per_minute: int = Field(description="Jobs that this host's workers finished.")
    failed_per_minute: int = Field(description="Runs that failed.")
    workers_asking: tuple[QueueWorker, ...] = Field(description="Those that ask this host.")
    limits: QueueLimitsBody = Field(description="What it is worked within.")
    wait_bounds: tuple[float | None, ...] = Field(
        description="By priority, 0 to 9: seconds for which urgent work that comes later can "
        "overtake a job, at most; null: for ever."
    )
    open_breakers: tuple[str, ...] = Field(description="Targets of its jobs that are held.")
    survives: str = Field(description="What an acknowledged job survives.")


class Queues(Model):
    """All queues."""

    queues: tuple[Queue, ...] = Field(description="By name.")
    survives: str = Field(description="What an acknowledged job survives.")


class QueuePaused(Model):
    """Whether a queue is paused now."""

    queue: str = Field(description="Its name.")
    paused: bool = Field(description="Whether it is.")


class Touched(Model):
    """How many jobs it was done to."""

    jobs: int = Field(description="How many.")
    dry_run: bool = Field(description="Whether they were only counted.")


class BreakerTargetRequest(Model):
    """Which breaker."""

    target: str = Field(min_length=1, max_length=128, description="What it protects.")


class BreakerRequest(BreakerTargetRequest):
    """What is to become of which breaker."""

    new: bool = Field(default=False, description="Also where no job is known to have the target.")
    state: Literal["closed", "forced_open", "disabled", "metrics_only"] = Field(
        description="closed gives it back to its rules; forced_open holds every job of the target; "
        "disabled ignores failures; metrics_only counts them."
    )


class Breaker(Model):
    """A circuit breaker."""

    target: str = Field(description="What it protects.")
    state: Literal["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"] = (
        Field(description="Whether jobs of the target are claimed.")
    )
    since: datetime | None = Field(description="When it changed last.")
    half_open_in_seconds: float | None = Field(description="When a probe is let through.")
    trips: int = Field(description="How often in a row it opened.")
    calls: int = Field(description="Within the last minute.")
    failures: int = Field(description="Of those, how many the target was to blame for.")
    slow: int = Field(description="Of those, how many were slow.")


class Breakers(Model):
    """Every breaker that was ever needed."""

    breakers: tuple[Breaker, ...] = Field(description="By target.")
