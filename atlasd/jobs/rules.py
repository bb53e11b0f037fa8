"""The engine's decisions, as a store asks for them: every rule with its settings at hand."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from atlasd.contracts.queue import (
    BreakerRow,
    Failure,
    Lane,
    Pick,
    QueueLimits,
    Row,
    Transition,
    Turns,
)
from atlasd.jobs import circuit, fairness, outcome
from atlasd.jobs.circuit import CircuitPolicy
from atlasd.states import JobState

DAY = 86_400_000
STRICT_STEP = 1 << 44
"""Milliseconds (some 557 years) by which one step of a strict priority outranks every time."""

URGENT = 0
USUAL = 5
"""Priority of a job for which none was said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """For how long final jobs are kept (milliseconds), and how many of each queue."""

    completed: int = DAY
    cancelled: int = 7 * DAY
    dead: int = 180 * DAY
    most: int = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueRules:
    """`atlasd.contracts.queue.Rules`, as the configuration has it."""

    queues: Mapping[str, QueueLimits] = field(default_factory=dict)
    otherwise: QueueLimits = field(default_factory=QueueLimits)
    """Of queues that the configuration doesn't name."""
    circuits: Mapping[str, CircuitPolicy] = field(default_factory=dict)
    circuit: CircuitPolicy = field(default_factory=CircuitPolicy)
    """Of targets that the configuration doesn't name."""
    retention: Retention = field(default_factory=Retention)
    held_for: int = 30_000
    """Milliseconds that a worker holds a job without a heartbeat."""
    chance: Callable[[], float] = random.random
    generation: int = 0
    """Number of the configuration that these are from; failures remember it."""

    def lease(self) -> int:
        """See `Rules`."""
        return self.held_for

    def limits(self, queue: str) -> QueueLimits:
        """See `Rules`."""
        return self.queues.get(queue, self.otherwise)

    def rank(self, queue: str, priority: int, run_at: int) -> int:
        """See `Rules`. Static ageing: a step of priority is worth so much waiting, and no more."""
        found = self.limits(queue)
        return run_at + priority * (STRICT_STEP if found.strict else found.aging)

    def bound(self, queue: str, priority: int) -> int | None:
        """Milliseconds that fresh work of the highest priority can hold a job up; None: for ever.

        What waits before it already comes on top.
        """
        found = self.limits(queue)
        return None if found.strict and priority else priority * found.aging

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
        """See `Rules`."""
        return fairness.pick(
            lanes,
            limit,
            now,
            limits={lane.queue: self.limits(lane.queue) for lane in lanes},
            paused=paused,
            breakers=breakers,
            probes=lambda target: self._circuit(target).probes,
            running=running,
            turns=turns,
        )

    def failed(self, row: Row, failure: Failure, now: int) -> Transition:
        """See `Rules`."""
        return outcome.failed(row, failure, now, self.chance(), generation=self.generation)

    def lost(self, row: Row, now: int, *, why: str) -> Transition:
        """See `Rules`."""
        return outcome.lost(row, now, self.chance(), why=why, generation=self.generation)

    def breaker(
        self, row: BreakerRow, results: Sequence[tuple[bool, int, int]], now: int
    ) -> BreakerRow:
        """See `Rules`."""
        return circuit.after(row, results, now, self._circuit(row.target))

    def tick(self, row: BreakerRow, now: int) -> BreakerRow:
        """See `Rules`."""
        return circuit.tick(row, now)

    def keep(self, state: JobState, queue: str) -> tuple[int, int]:
        """See `Rules`."""
        ages = {
            JobState.COMPLETED: self.retention.completed,
            JobState.CANCELLED: self.retention.cancelled,
            JobState.DEAD: self.retention.dead,
        }
        return ages[state], self.retention.most

    def _circuit(self, target: str) -> CircuitPolicy:
        return self.circuits.get(target, self.circuit)
