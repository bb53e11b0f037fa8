"""Workers that are connected: what each holds, and what becomes of it when the connection ends."""

from dataclasses import dataclass, field

from atlasd.contracts.queue import Claimed

UNFLUSHED = 256
"""Jobs that a worker may have done without having said so: it gathers its answers for a moment."""


@dataclass(slots=True)
class Session:
    """One connection of a worker."""

    worker: str
    """Identity that its leases carry; of this connection alone."""
    said: str
    """How the worker calls itself: host, boot, process."""
    concurrency: int = 1
    """Jobs that it runs at once; it begins them in the order of their claims."""
    lease: int = 30_000
    held: dict[int, Claimed] = field(default_factory=dict)
    """Unsettled jobs by id, in the order of their claims."""
    draining: bool = False
    queues: tuple[str, ...] = ()
    """Queues that it last asked for."""
    continuing: bool = False
    """Whether it was ever given a job that others come after: else nobody looks for that."""

    def given_up(self) -> tuple[list[int], list[Claimed]]:
        """Of the held jobs those that it may have begun, and those that it surely has not.

        A worker begins jobs in the order in which it was given them, so what runs is among the
        first; behind them stands what it had only fetched ahead. The former have lost their worker
        and count it; the latter just go back.
        """
        held = list(self.held.values())
        begun = self.concurrency + (UNFLUSHED if len(held) > self.concurrency else 0)
        return [job.id for job in held[:begun]], held[begun:]


@dataclass(frozen=True, slots=True)
class Visitor:
    """A worker without a connection: it is there as long as it says something now and then."""

    said: str
    """How the worker calls itself."""
    queues: tuple[str, ...]
    seen: float
    """Monotonic seconds."""
