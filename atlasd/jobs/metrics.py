"""The job engine's metrics, in Prometheus' terms."""

from collections.abc import Mapping, Sequence

from atlasd.contracts.collectors import Buckets, Histogram, Metric, Sample
from atlasd.contracts.queue import BreakerRow, Distribution, QueueCount
from atlasd.jobs.circuit import STATES
from atlasd.jobs.ledger import Ledger
from atlasd.jobs.measures import BOUNDS, Measures, Spread
from atlasd.states import JobState

OUTCOMES = {
    "lost": "Jobs that lost their worker.",
    "lease_lost": "Outcomes that came too late: the lease had ended.",
    "expired": "Jobs that expired before anybody began them.",
}
MOST = 200
"""Breakers that have metrics."""
_SECONDS = tuple(bound / 1000.0 for bound in BOUNDS)


def metrics_of(
    counts: Sequence[QueueCount],
    *,
    now: int,
    settled: Mapping[str, int],
    workers: int,
    measures: Measures,
    ledger: Ledger,
    breakers: Sequence[BreakerRow],
    numbers: Mapping[str, float | Distribution],
) -> list[Metric | Histogram]:
    """All of them; `now` is the store's clock, `numbers` are the store's own."""
    return [
        _metric(
            "atlasd_queue_jobs",
            "Jobs by queue and state.",
            [
                Sample(value=one.jobs, labels={"queue": one.queue, "state": one.state.value})
                for one in counts
            ],
        ),
        _metric(
            "atlasd_queue_oldest_seconds",
            "How long the first in line of a queue has been due.",
            [
                Sample(value=max(0.0, (now - one.oldest) / 1000.0), labels={"queue": one.queue})
                for one in counts
                if one.state is JobState.AVAILABLE and one.oldest
            ],
        ),
        _metric(
            "atlasd_job_workers", "Workers that are connected.", [Sample(value=float(workers))]
        ),
        _histogram(
            "atlasd_job_wait_seconds",
            "Time from the moment at which a job was due until a worker took it.",
            measures.waits,
        ),
        _histogram("atlasd_job_run_seconds", "Time that handlers took.", measures.runs),
        *_counted(measures, ledger),
        *(
            _counter(f"atlasd_jobs_{word}_total", text, [Sample(value=float(settled.get(word, 0)))])
            for word, text in OUTCOMES.items()
        ),
        _metric(
            "atlasd_breaker_state",
            "Whether a circuit breaker is in the state: 1 in one of them, 0 in the others.",
            [
                Sample(
                    value=float(row.state == state), labels={"target": row.target, "state": state}
                )
                for row in breakers[:MOST]
                for state in STATES
            ],
        ),
        *_of_store(numbers),
    ]


def _counted(measures: Measures, ledger: Ledger) -> list[Metric]:
    return [
        _counter(
            "atlasd_jobs_outcomes_total",
            "Runs of jobs by what became of them: finished, failed or released.",
            [
                Sample(value=count, labels={"queue": queue, "kind": kind, "outcome": word})
                for (queue, kind, word), count in sorted(measures.outcomes.items())
            ],
        ),
        _counter(
            "atlasd_jobs_retries_total",
            "Times that a job which failed or lost its worker was put off to be tried again.",
            [
                Sample(value=count, labels={"queue": queue, "kind": kind})
                for (queue, kind), count in sorted(ledger.retries.items())
            ],
        ),
        _counter(
            "atlasd_jobs_dead_total",
            "Jobs that were given up: exhausted, buried or worker_lost.",
            [
                Sample(value=count, labels={"queue": queue, "reason": reason})
                for (queue, reason), count in sorted(ledger.deaths.items())
            ],
        ),
        _counter(
            "atlasd_breaker_trips_total",
            "Times that a circuit breaker opened by its rules.",
            [
                Sample(value=count, labels={"target": target})
                for target, count in sorted(ledger.trips.items())
            ],
        ),
    ]


def _of_store(numbers: Mapping[str, float | Distribution]) -> list[Metric | Histogram]:
    found: list[Metric | Histogram] = []
    for name, value in sorted(numbers.items()):
        if isinstance(value, Distribution):
            buckets = Buckets(bounds=value.bounds, counts=value.counts, sum=value.sum)
            found.append(Histogram(name=name, help=value.help, samples=(buckets,)))
        elif name.endswith("_total"):
            found.append(_counter(name, "A counter of the queue's store.", [Sample(value=value)]))
        else:
            found.append(_metric(name, "A gauge of the queue's store.", [Sample(value=value)]))
    return found


def _histogram(name: str, text: str, spreads: Mapping[str, Spread]) -> Histogram:
    return Histogram(
        name=name,
        help=text,
        samples=tuple(
            Buckets(
                bounds=_SECONDS,
                counts=tuple(spread.counts),
                sum=spread.sum / 1000.0,
                labels={"queue": queue},
            )
            for queue, spread in sorted(spreads.items())
        ),
    )


def _metric(name: str, text: str, samples: Sequence[Sample]) -> Metric:
    return Metric(name=name, help=text, kind="gauge", samples=tuple(samples))


def _counter(name: str, text: str, samples: Sequence[Sample]) -> Metric:
    return Metric(name=name, help=text, kind="counter", samples=tuple(samples))
