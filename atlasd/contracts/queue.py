"""What a queue store promises: jobs that survive, each held by one worker at a time, by lease.

The engine (`atlasd.jobs`) owns states and rules; a store keeps rows and has transactions. Where a
rule needs what only the store knows (the row that fails, the lanes that have jobs), the store asks
the `Rules` that it was opened with, inside its transaction, and writes what they answer.

All times here are whole milliseconds: moments since the Unix epoch by the **store's** clock, never
a worker's. This is the hot path: what passes through it in bulk is a named tuple of plain values.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import NoSettings
from atlasd.states import JOB_FINAL as JOB_FINAL  # noqa: PLC0414  plugins take them from here
from atlasd.states import JobState as JobState  # noqa: PLC0414

UNTIL_CLAIMED = -1
"""`NewJob.unique_until` of a key that is free again once the job is claimed."""
UNTIL_FINISHED = 0
"""`NewJob.unique_until` of a key that is free again once the job is final."""

ON_CONFLICT = ("return_existing", "reject", "replace_args", "move_run_at")


class NewJob(NamedTuple):
    """A job as it is enqueued."""

    queue: str
    kind: str
    """The handler's name: `email.send`."""
    args: str
    """A JSON object, as text."""
    run_at: int = 0
    """When it may run at the earliest; 0: `delay` from now."""
    delay: int = 0
    """Milliseconds from now, where `run_at` is 0."""
    priority: int = 5
    """0 (the most urgent) to 9."""
    max_attempts: int = 10
    fair_key: str = ""
    """Whose share of the queue it takes: a customer, a tenant."""
    target: str = ""
    """What its circuit breaker belongs to: a host, an API; empty: it has none."""
    unique_key: str = ""
    unique_until: int = UNTIL_FINISHED
    """`UNTIL_CLAIMED`, `UNTIL_FINISHED`, or the length of a window in milliseconds from now."""
    on_conflict: str = "return_existing"
    """One of `ON_CONFLICT`: what becomes of it when another job has its key."""
    expires_in: int = 0
    """Milliseconds after which a job that waits is cancelled, and never claimed; 0: never."""
    options: str = ""
    """What the engine keeps with it (time-outs, retry policy, tags …): a JSON object as text, or
    nothing. A store doesn't look inside."""


class Enqueued(NamedTuple):
    """What became of one new job."""

    id: int
    """Of the job that stands for it: the new one, or the one that has its key."""
    state: JobState
    outcome: str = "created"
    """created | existing | rejected | replaced | moved"""


class Claimed(NamedTuple):
    """A job that a worker holds until `lease_until`, and the token that proves it."""

    id: int
    token: int
    """Grows with each claim of the job and is never reset: a fencing token."""
    attempt: int
    """From 1."""
    lease_until: int
    queue: str
    kind: str
    args: str
    priority: int
    run_at: int
    created_at: int
    max_attempts: int
    lost_count: int
    expires_at: int
    """0: never."""
    fair_key: str
    target: str
    options: str


class Finish(NamedTuple):
    """The job has done what it should."""

    id: int
    token: int
    result: str = ""
    """JSON text, or nothing."""
    took: int = 0
    """Milliseconds that it ran, for its breaker."""
    then: tuple[NewJob, ...] = ()
    """Enqueued in the same transaction."""


class Failure(NamedTuple):
    """The job has failed."""

    id: int
    token: int
    error: str
    """Type of the error: `TimeoutError`, `timeout`, `stalled`."""
    message: str = ""
    frames: tuple[str, ...] = ()
    """Where it happened, the innermost last: `shop.mail:send`."""
    verdict: str = "retry"
    """retry | discard (not worth another try, nobody to be told) | bury (a person has to look) |
    target (as retry; what it calls is to blame, and its breaker hears of it)"""
    retry_after: int = 0
    """Milliseconds that whatever it called asked for; never tried earlier."""
    took: int = 0


class Release(NamedTuple):
    """The worker gives the job back unfinished; the attempt is not counted."""

    id: int
    token: int
    delay: int = 0
    """Milliseconds until it may be claimed again: a snooze."""


Settlement = Finish | Failure | Release


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimAsk:
    """What a worker asks for."""

    worker: str
    """Identity of the worker's process: host, boot and a random part; never the host alone."""
    queues: tuple[str, ...]
    limit: int
    lease: int
    """Milliseconds."""
    wait: int = 0
    """Milliseconds to wait for a first job when there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """One lease that a worker says it still holds."""

    id: int
    token: int
    progress: str = ""
    """A progress report, JSON text; empty: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extended:
    """What became of the leases of one heartbeat."""

    lost: tuple[int, ...] = ()
    """Jobs that the worker no longer holds: stop, and do not finish them."""
    cancel: tuple[int, ...] = ()
    """Jobs that somebody wants cancelled."""


class Row(NamedTuple):
    """A job as it stands, with all that is known."""

    id: int
    state: JobState
    queue: str
    kind: str
    args: str
    priority: int
    run_at: int
    rank_at: int
    created_at: int
    attempt: int
    max_attempts: int
    token: int
    lost_count: int
    lease_until: int
    worker: str
    unique_key: str
    unique_until: int
    expires_at: int
    fair_key: str
    target: str
    cancel_requested: bool
    finalized_at: int
    """0 unless the state is final."""
    reason: str
    """Why it is final: `exhausted`, `buried`, `worker_lost`, `discarded`, `user`, `expired`."""
    fingerprint: str
    """Of its last error; equal for failures of one kind."""
    errors: str
    """JSON list of the last failures, the newest last."""
    result: str
    progress: str
    options: str
    requeued_from: str
    """State that it was requeued from; empty: it never was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which jobs are meant; what is not said is any."""

    ids: tuple[int, ...] = ()
    queue: str = ""
    kind: str = ""
    states: tuple[JobState, ...] = ()
    fair_key: str = ""
    target: str = ""
    fingerprint: str = ""
    tag: str = ""
    finalized_since: int = 0
    finalized_before: int = 0
    after: int = 0
    """Only ids above it: for paging."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transition:
    """What a rule decided for a job that is no longer held."""

    state: JobState
    run_at: int = 0
    reason: str = ""
    errors: str = ""
    """The new list of errors; empty: as it was."""
    fingerprint: str = ""
    lost: bool = False
    """Whether `lost_count` grows."""
    attempt_back: bool = False
    """Whether the attempt is not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLimits:
    """How one queue is worked; part of what core hands to the store."""

    size: int = 0
    """Waiting jobs that it takes; 0: any number."""
    concurrency: int = 0
    """Jobs that run at once, all workers together; 0: any number."""
    key_concurrency: int = 0
    """The same for each fair key."""
    rate: float = 0.0
    """Claims a second, evenly spread (GCRA); 0: any."""
    burst: int = 1
    key_rate: float = 0.0
    key_burst: int = 1
    weights: Mapping[str, float] = field(default_factory=dict)
    """Share of a fair key; 1 where it isn't named."""
    aging: int = 60_000
    """Milliseconds by which one step of priority is worth waiting."""
    strict: bool = False
    """Strict priority: the least urgent may wait for ever."""
    max_wait: int = 900_000
    """Milliseconds that the first in line may have waited before the queue counts as degraded."""


@dataclass(slots=True)
class Lane:
    """Jobs that are interchangeable for every limit: one queue, fair key and target.

    A store keeps one for each such triple that has jobs; `Rules.pick` reads and changes it.
    """

    id: int
    queue: str
    fair_key: str
    target: str
    available: int = 0
    """How many wait; a store that can't tell says 1 when there are any."""
    head: int = 0
    """`rank_at` of the first."""
    running: int = 0
    tag: float = 0.0
    """Start-time fair queueing: virtual time at which its next job starts."""


@dataclass(slots=True)
class Turns:
    """What `Rules.pick` remembers from one time to the next; a store keeps it, shared or not."""

    virtual: float = 0.0
    """Virtual time: the start tag of the last job that was picked."""
    rates: dict[str, float] = field(default_factory=dict)
    """Theoretical arrival times (GCRA), milliseconds, by `queue` and `queue/fair_key`."""


class Pick(NamedTuple):
    """Claim so many from a lane."""

    lane: int
    jobs: int


class BreakerRow(NamedTuple):
    """A circuit breaker as a store keeps it."""

    target: str
    state: str = "closed"
    """closed | open | half_open | forced_open | disabled | metrics_only"""
    epoch: int = 0
    """Grows with each change of state; results of calls from an older one are ignored."""
    open_until: int = 0
    trips: int = 0
    """Consecutive times that it opened."""
    successes: int = 0
    """Of probes, while half open."""
    buckets: str = "{}"
    """JSON: calls, failures and slow calls by bucket of time."""
    changed_at: int = 0


HELD = "held"
"""`SlotClaim.reason` of a slot whose job waits until the schedule's last one has ended."""
WITHOUT_JOB = -1
"""What `QueueStore.fire` says of a slot that was claimed for nothing to be enqueued."""


class SlotClaim(NamedTuple):
    """One slot of a schedule, and what becomes of it."""

    schedule: str
    slot: int
    """When it was due; 0: beside the plan, and no slot is taken."""
    job: NewJob | None
    """What it enqueues; None: nothing, and nobody fires it later."""
    reason: str = ""
    """Why it enqueues nothing: `HELD`, or a word that a store doesn't look at."""


class Slot(NamedTuple):
    """What became of a slot."""

    schedule: str
    slot: int
    job: int
    """0: none."""
    reason: str
    """Why there is none."""


class ScheduleRow(NamedTuple):
    """What a store remembers of a schedule."""

    schedule: str
    digest: str = ""
    """Of its plan; see `QueueStore.keep_schedules`."""
    since: int = 0
    """When its plan, or its working after a pause, began: nothing before is ever fired."""
    paused: bool = False
    slot: int = 0
    """The last that was claimed."""
    job: int = 0
    """The last that it enqueued."""
    held: int = 0
    """The slot that waits for that job's end; 0: none does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Maintained:
    """What one round of maintenance did."""

    promoted: int = 0
    lost: int = 0
    expired: int = 0
    pruned: int = 0
    next_due: int = 0
    """When something has to be done again; 0: nothing is known to be due."""


class QueueCount(NamedTuple):
    """How a queue stands."""

    queue: str
    state: JobState
    jobs: int
    oldest: int
    """`run_at` of the first in line where they are available, the oldest of all lanes; else 0."""


class DeadGroup(NamedTuple):
    """Dead jobs that failed in the same way."""

    fingerprint: str
    queue: str
    kind: str
    reason: str
    error: str
    """Type and message of the last failure of one of them."""
    jobs: int
    first: int
    last: int


class Distribution(NamedTuple):
    """How values are spread: a histogram as a store counts it."""

    help: str
    bounds: tuple[float, ...]
    """Upper ends of the buckets, in base units; one more bucket takes what is above."""
    counts: tuple[int, ...]
    """Values in each bucket, not cumulated: one more than there are bounds."""
    sum: float


class Rules(Protocol):
    """The engine's decisions: pure, quick, called inside a store's transaction."""

    def lease(self) -> int:
        """Milliseconds that a job is held without a heartbeat, by a worker that may come back."""

    def limits(self, queue: str) -> QueueLimits:
        """How a queue is worked."""

    def rank(self, queue: str, priority: int, run_at: int) -> int:
        """`rank_at`, by which the jobs of a lane are ordered.

        It is `run_at` and what depends on the queue and the priority alone, so that a store may
        add that to a moment of its own clock.
        """

    def pick(
        self,
        lanes: Sequence[Lane],
        limit: int,
        now: int,
        *,
        paused: frozenset[str],
        breakers: Mapping[str, BreakerRow],
        running: Mapping[str, int],
        turns: Turns,
    ) -> tuple[Sequence[Pick], int]:
        """How many jobs to take from which lanes, in that order; and when to ask again, 0: unknown.

        `lanes` are those of the asked queues that have jobs. `running` counts running jobs by
        `queue`, `queue/fair_key` (with a slash) and `target:NAME`. The lanes' tags and `turns` are
        changed here for what is picked.
        """

    def failed(self, row: Row, failure: Failure, now: int) -> Transition:
        """What becomes of a job that failed."""

    def lost(self, row: Row, now: int, *, why: str) -> Transition:
        """What becomes of a job whose worker is gone: its `lease` or `connection` ended."""

    def breaker(
        self, row: BreakerRow, results: Sequence[tuple[bool, int, int]], now: int
    ) -> BreakerRow:
        """The breaker after these results, each (failed, milliseconds, epoch at the claim)."""

    def tick(self, row: BreakerRow, now: int) -> BreakerRow:
        """The breaker at this moment: an open one whose time is over is half open."""

    def keep(self, state: JobState, queue: str) -> tuple[int, int]:
        """For how long (milliseconds) and how many final jobs of a queue are kept."""


class QueueStore(Protocol):
    """A store that has been opened. Every answer is durable when it comes.

    Raises `AtlasError` `job.store` when the store cannot be used now: nothing was done then; and
    `job.unsure` when a connection broke at a moment that leaves it open whether it was. What is
    awaited may be a future rather than a coroutine: then the hot path needs no task for it.
    """

    @property
    def durable(self) -> str:
        """What an acknowledged job survives, for people: `power loss`, or what else."""

    def now(self) -> Awaitable[int]:
        """The store's clock."""

    def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Awaitable[Sequence[Enqueued]]:
        """All of them or, with `AtlasError` `job.queue_full`, none; in order.

        The same idempotency key within a day gives the answer of the first time.
        """

    def exchange(
        self, settlements: Sequence[Settlement], ask: ClaimAsk | None
    ) -> Awaitable[tuple[Sequence[bool], Sequence[Claimed]]]:
        """Settle jobs and claim new ones, in one transaction.

        For each settlement whether it held: False means that the lease was lost, and nothing was
        done. Results come in order; so do claims, by rank. With `ask.wait` and nothing to claim,
        settlements are done at once and the answer waits. A job that is to be cancelled and is
        given back ends as cancelled, with reason `user`.
        """

    def nudge(self, worker: str) -> None:
        """Have the claims of a worker answered now that wait, or are about to."""

    def extend(self, worker: str, held: Sequence[Held], lease: int) -> Awaitable[Extended]:
        """Prolong leases by `lease` milliseconds from now; they are this worker's from then on.

        A job stands at most once in `held`.
        """

    def lose(self, worker: str, ids: Sequence[int], *, why: str) -> Awaitable[int]:
        """Take these jobs from a worker that is gone, by `Rules.lost`; how many it still held."""

    def maintain(self, limit: int = 1000) -> Awaitable[Maintained]:
        """Promote what is due, end what expired, take back what was lost, forget what is old.

        At most `limit` rows of each kind: call again at once while that many were done. After the
        store could not be used, it also proves that it can be written again.
        """

    def get(self, id: int) -> Awaitable[Row | None]:
        """One job."""

    def select(self, which: Filter, limit: int) -> Awaitable[Sequence[Row]]:
        """Jobs by id."""

    def ahead(self, id: int, limit: int) -> Awaitable[int]:
        """Available jobs of the same lane that rank before this one; at most `limit`."""

    def count(self) -> Awaitable[Sequence[QueueCount]]:
        """How many jobs of each queue are in each state."""

    def dead(self, limit: int) -> Awaitable[Sequence[DeadGroup]]:
        """Dead jobs by fingerprint, the largest group first."""

    def cancel(self, which: Filter, *, reason: str, limit: int) -> Awaitable[int]:
        """Cancel jobs that wait, and ask running ones to end; how many.

        Here and below, `limit` counts only the jobs that it can be done to.
        """

    def requeue(self, which: Filter, *, args: str = "", limit: int) -> Awaitable[Sequence[int]]:
        """Make final jobs available again, with a fresh budget of attempts; their ids.

        `args` replaces the arguments of a single job. Tokens go on, errors are kept; a unique key
        is not taken again, unless it is that of a window, which the job still has.
        """

    def edit(self, id: int, *, args: str) -> Awaitable[bool]:
        """Give a dead job other arguments, and leave it dead; False when it isn't dead."""

    def restore(self, rows: Sequence[Row]) -> Awaitable[Sequence[int]]:
        """Take in final jobs from elsewhere, with all that they were; their new ids, in order.

        All in one transaction. 0 for a row whose `unique_key` a job has, or one that was taken in
        had within a day: it is the same import again.
        """

    def purge(self, which: Filter, *, limit: int) -> Awaitable[int]:
        """Delete jobs that do not run; how many."""

    def pause(self, queue: str, *, paused: bool) -> Awaitable[None]:
        """Have nothing more claimed from a queue, or again."""

    def paused(self) -> Awaitable[frozenset[str]]:
        """Queues that are paused."""

    def breakers(self) -> Awaitable[Sequence[BreakerRow]]:
        """All breakers that were ever needed."""

    def set_breaker(self, target: str, state: str) -> Awaitable[BreakerRow]:
        """Force a breaker into a state; `closed` gives it back to its rules."""

    def fire(self, claims: Sequence[SlotClaim]) -> Awaitable[Sequence[int]]:
        """Claim slots and enqueue their jobs, in one transaction, whatever the queue's size.

        For each the job's id, `WITHOUT_JOB`, or 0 where somebody else has claimed the slot. Slots
        are claimed in order: one that isn't later than the schedule's last is taken, but for the
        one that is held, which may be claimed once more.
        """

    def schedules(self) -> Awaitable[Sequence[ScheduleRow]]:
        """All that is remembered of schedules, by name."""

    def keep_schedules(
        self, digests: Mapping[str, str], *, gone: Sequence[str] = ()
    ) -> Awaitable[Sequence[ScheduleRow]]:
        """Note which schedules there are, and forget those that are gone; as `schedules`.

        One that is new, or whose digest is another than before, begins now: `since` is the store's
        clock, no slot is held any longer, and one that was claimed for a later time (by a clock
        that was wrong) doesn't stand in the way.
        """

    def pause_schedule(self, schedule: str, *, paused: bool) -> Awaitable[None]:
        """Have a schedule fire no more; or again, and then it begins now, as a new one does."""

    def slots(self, schedule: str, limit: int) -> Awaitable[Sequence[Slot]]:
        """What became of its last slots, the latest first; some hundred are remembered."""

    def numbers(self) -> Mapping[str, "float | Distribution"]:
        """What it measures, by metric name; a counter ends in `_total`, others are gauges."""


@dataclass(frozen=True, kw_only=True)
class QueueStoreType:
    """A kind of store, as `register_queue_stores` returns it."""

    name: str
    """What configuration says: `store = "sqlite"`."""
    summary: str
    open: Callable[[Any, PluginContext, Rules], AbstractAsyncContextManager[QueueStore]]
    """Called once, in the loop of the job engine."""
    settings: type[BaseModel] = NoSettings
    shared: bool = False
    """Whether several hosts may use it at once."""
    requires: tuple[str, ...] = ()
    extra: str = ""
