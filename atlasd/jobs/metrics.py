"""The job engine's metrics, in Prometheus' terms."""

from collections.abc import Mapping, Sequence

from atlasd.contracts.collectors import Metric, Sample
from atlasd.contracts.queue import QueueCount
from atlasd.states import JobState

OUTCOMES = {
    "settled": "Jobs that workers finished or gave back.",
    "failed": "Runs of jobs that failed.",
    "lost": "Jobs that lost their worker.",
    "lease_lost": "Outcomes that came too late: the lease had ended.",
    "expired": "Jobs that expired before anybody began them.",
}


def metrics_of(
    counts: Sequence[QueueCount],
    *,
    now: int,
    settled: Mapping[str, int],
    workers: int,
    numbers: Mapping[str, float],
) -> list[Metric]:
    """All of them; `now` is the store's clock, `numbers` are the store's own counters."""
    found = [
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
    ]
    found += [
        _counter(f"atlasd_jobs_{word}_total", text, float(settled.get(word, 0)))
        for word, text in OUTCOMES.items()
    ]
    found += [
        _counter(name, "A counter of the queue's store.", value)
        for name, value in sorted(numbers.items())
    ]
    return found


def _metric(name: str, text: str, samples: Sequence[Sample]) -> Metric:
    return Metric(name=name, help=text, kind="gauge", samples=tuple(samples))


def _counter(name: str, text: str, value: float) -> Metric:
    return Metric(name=name, help=text, kind="counter", samples=(Sample(value=value),))
