"""Dead jobs: what is asked, and what is answered."""

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, Field

from atlasd.control.models.base import Model
from atlasd.control.models.jobs import Job, JobRequest


class DeadGroupsRequest(Model):
    """How many groups of dead jobs."""

    limit: int = Field(default=50, ge=1, le=1000, description="At most this many, largest first.")


class DeadGroup(Model):
    """Dead jobs that failed in the same way."""

    fingerprint: str = Field(description="Equal for equal failures.")
    queue: str = Field(description="Their queue.")
    kind: str = Field(description="Their handler.")
    reason: str = Field(description="exhausted, buried or worker_lost.")
    error: str = Field(description="The last failure of one of them.")
    jobs: int = Field(description="How many.")
    first: datetime | None = Field(description="When the first of them died.")
    last: datetime | None = Field(description="When the last of them died.")


class DeadGroups(Model):
    """Dead jobs by what killed them."""

    groups: tuple[DeadGroup, ...] = Field(description="The largest first.")


class DeadRequest(Model):
    """Which dead jobs; what is not said is any."""

    ids: tuple[int, ...] = Field(default=(), max_length=1000, description="Only these.")
    queue: str | None = Field(default=None, max_length=128, description="Only of this queue.")
    kind: str | None = Field(default=None, max_length=128, description="Only of this kind.")
    fingerprint: str | None = Field(default=None, max_length=64, description="Only of this group.")
    target: str | None = Field(default=None, max_length=128, description="Only for this target.")
    tag: str | None = Field(default=None, max_length=128, description="Only with this tag.")
    since: AwareDatetime | None = Field(default=None, description="Only those that died since.")
    before: AwareDatetime | None = Field(default=None, description="Only those that died before.")


class DeadListRequest(DeadRequest):
    """Which dead jobs, a page of them."""

    after: int = Field(default=0, ge=0, le=2**62, description="Only with a larger id; for paging.")
    limit: int = Field(default=100, ge=1, le=10_000, description="At most this many.")


class DeadJob(Job):
    """A dead job in brief."""

    fingerprint: str = Field(description="Its group.")
    error: str = Field(description="Its last failure.")


class DeadJobs(Model):
    """Dead jobs by id."""

    jobs: tuple[DeadJob, ...] = Field(description="In the order of their ids.")


class DeadEditRequest(JobRequest):
    """Which job, and its new arguments."""

    args: dict[str, Any] = Field(description="Arguments in place of its own.")
    requeue: bool = Field(default=False, description="Make it available at once.")


class DeadChangeRequest(DeadRequest):
    """What is to be done to which dead jobs, or only counted."""

    dry_run: bool = Field(default=False, description="Only count them.")


class DeadRequeueRequest(DeadChangeRequest):
    """Which dead jobs, and how many of them."""

    limit: int | None = Field(
        default=None, ge=1, le=2**53, description="At most this many, the oldest ids; null: all."
    )


class DeadTouchedGroup(Model):
    """Jobs of one group to which it was done."""

    fingerprint: str = Field(description="Equal for equal failures.")
    queue: str = Field(description="Their queue.")
    kind: str = Field(description="Their handler.")
    error: str = Field(description="The last failure of one of them.")
    jobs: int = Field(description="How many.")


class DeadTouched(Model):
    """To how many dead jobs it was done."""

    jobs: int = Field(description="How many.")
    dry_run: bool = Field(description="Whether they were only counted.")
    ids: tuple[int, ...] = Field(default=(), description="Which; at most 10,000 are named.")
    groups: tuple[DeadTouchedGroup, ...] = Field(
        description="By what killed them, the largest group first; at most 100."
    )


class DeadImportRequest(Model):
    """Dead jobs that are to be taken in."""

    jobs: tuple[dict[str, Any], ...] = Field(
        min_length=1, max_length=1000, description="Each as `dead.export` wrote it."
    )
    first_line: int = Field(
        default=1, ge=1, le=2**53, description="Line of the first one in its file, for errors."
    )
    dry_run: bool = Field(default=False, description="Only say whether they could be taken in.")


class DeadImported(Model):
    """What became of them."""

    jobs: int = Field(description="How many were taken in.")
    known: int = Field(description="How many were here already.")
    dry_run: bool = Field(description="Whether they were only looked at.")


class DeadRecord(Model):
    """A dead job with all that is known, to be taken in elsewhere."""

    id: int = Field(description="Its id here.")
    queue: str = Field(description="Its queue.")
    kind: str = Field(description="Its handler.")
    args: dict[str, Any] = Field(description="Its arguments.")
    priority: int = Field(description="0 (the most urgent) to 9.")
    max_attempts: int = Field(description="After how many failures it is dead.")
    fair_key: str = Field(description="Whose share of the queue it takes.")
    target: str = Field(description="Whose breaker it is under.")
    attempt: int = Field(description="How often it was begun.")
    lost_count: int = Field(description="How often it lost its worker.")
    token: int = Field(description="Fencing token of its last claim; it goes on from there.")
    created: datetime = Field(description="When it was enqueued.")
    run_at: datetime = Field(description="When it was due last.")
    died: datetime = Field(description="When it was given up.")
    reason: str = Field(description="exhausted, buried or worker_lost.")
    fingerprint: str = Field(description="Its group.")
    requeued_from: str = Field(description="State that it was requeued from.")
    errors: tuple[dict[str, Any], ...] = Field(description="Its failures, the newest last.")
    options: dict[str, Any] = Field(description="Time-outs, retry policy, tags and so on.")
