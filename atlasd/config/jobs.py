"""Settings of the job engine: `[jobs]`, its queues and its circuit breakers."""

from pydantic import ConfigDict

from atlasd.config.fields import Duration, Section, setting
from atlasd.config.schedules import Schedule

_DAY = 86400.0


class Queue(Section):
    """How one queue is worked; a queue that has no table takes the defaults."""

    size: int | None = setting(
        None, "Waiting jobs that it takes; more are refused. Without it, any number.", ge=1
    )
    concurrency: int | None = setting(
        None, "Jobs of it that run at once, all workers together.", ge=1
    )
    key_concurrency: int | None = setting(None, "The same for each fair key.", ge=1)
    rate: float | None = setting(
        None, "Jobs that are begun a second, evenly spread.", gt=0, allow_inf_nan=False
    )
    burst: int = setting(1, "Jobs that may be begun at once within the rate.", ge=1)
    key_rate: float | None = setting(None, "The rate for each fair key.", gt=0, allow_inf_nan=False)
    key_burst: int = setting(1, "The burst for each fair key.", ge=1)
    weights: dict[str, float] = setting(
        {}, "Shares of fair keys; one that isn't named has the share 1."
    )
    aging: Duration = setting(
        60.0,
        "What a step of priority is worth: a job of priority P is overtaken by fresh urgent work "
        "for P times this, at most. Duration.",
    )
    strict: bool = setting(
        False, "true: priority is strict, and the least urgent may wait for ever."
    )
    max_wait: Duration = setting(
        900.0, "Wait of the first in line from which on the queue is degraded. Duration.", gt=0
    )


class Breaker(Section):
    """When the circuit breaker of one target opens, and for how long."""

    minimum_calls: int = setting(20, "Calls within a minute before it judges.", ge=1)
    failure_ratio: float = setting(
        0.5, "Part of them that fail, for it to open.", gt=0, le=1, allow_inf_nan=False
    )
    slow_after: Duration | None = setting(
        None, "A call that takes longer is slow; without it none is. Duration."
    )
    slow_ratio: float = setting(
        0.8, "Part of them that are slow, for it to open.", gt=0, le=1, allow_inf_nan=False
    )
    open_for: Duration = setting(
        15.0, "Time that it stays open; doubled by each trip in a row. Duration.", gt=0
    )
    open_cap: Duration = setting(600.0, "The longest time that it stays open. Duration.", gt=0)
    probes: int = setting(1, "Calls at once while it is half open.", ge=1)
    successes: int = setting(3, "Probes in a row that close it.", ge=1)


class Store(Section):
    """Settings of a queue store, in a table of the store's name; its keys are the store's own."""

    model_config = ConfigDict(extra="allow")


class Jobs(Section):
    """The queue of jobs: where it is kept, how its queues are worked, how long jobs are kept."""

    store: str = setting("sqlite", "Name of a queue store; see `atlasctl plugins`.")
    stores: dict[str, Store] = setting({}, "Settings of queue stores, by the store's name.")
    lease: Duration = setting(
        30.0,
        "Time that a worker holds a job without a heartbeat; three are due within it. Duration.",
        ge=1,
        le=3600,
    )
    keep_completed: Duration = setting(_DAY, "Time that a finished job is kept. Duration.")
    keep_cancelled: Duration = setting(7 * _DAY, "Time that a cancelled job is kept. Duration.")
    keep_dead: Duration = setting(180 * _DAY, "Time that a dead job is kept. Duration.")
    queues: dict[str, Queue] = setting({}, "Queues by name; the others take the defaults.")
    breakers: dict[str, Breaker] = setting({}, "Circuit breakers by target.")
    schedules: dict[str, Schedule] = setting({}, "Jobs that are enqueued by the clock, by name.")
