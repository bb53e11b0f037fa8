"""What a queue store counts of its commits: how many requests share one, and how long they take.

A store's `numbers` has it, so that the metrics are the same whatever keeps the jobs. The time of a
commit is that of an fsync of the store's log and little else.
"""

from bisect import bisect_left
from collections.abc import Mapping

from atlasd.contracts.queue import Distribution

REQUESTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Tally:
    """Counted once a commit, never once a job."""

    def __init__(self) -> None:
        self.commits = 0
        self.requests = 0
        """Requests that commits carried."""
        self.seconds = 0.0
        self._sizes = [0] * (len(REQUESTS) + 1)
        self._times = [0] * (len(SECONDS) + 1)

    def committed(self, requests: int, seconds: float) -> None:
        """A commit with so many requests took so long."""
        self.commits += 1
        self.requests += requests
        self.seconds += seconds
        self._sizes[bisect_left(REQUESTS, requests)] += 1
        self._times[bisect_left(SECONDS, seconds)] += 1

    def numbers(self) -> Mapping[str, float | Distribution]:
        """By metric name."""
        return {
            "atlasd_queue_commit_requests": Distribution(
                "Requests that shared a commit of the queue.",
                REQUESTS, tuple(self._sizes), float(self.requests),
            ),
            "atlasd_queue_commit_seconds": Distribution(
                "Time that a commit of the queue took, its fsync included.",
                SECONDS, tuple(self._times), self.seconds,
            ),
        }  # fmt: skip
