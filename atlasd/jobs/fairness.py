"""Whose turn it is: which lanes the next jobs are taken from, within all limits; pure.

Among fair keys the one with the smallest start tag has its turn (start-time fair queueing: a tag
grows by 1/weight with each job taken), so that a key with a million jobs and one with a single job
share evenly. Among the lanes of one key, the job that ranks first decides, to within one batch.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from atlasd.contracts.queue import BreakerRow, Lane, Pick, QueueLimits, Turns
from atlasd.jobs import circuit, rate


@dataclass(slots=True)
class _Caps:
    """What is still free of the limits that lanes share, by the limit's key."""

    free: dict[str, int]

    def of(self, keys: Sequence[str]) -> int:
        return min((self.free[key] for key in keys if key in self.free), default=1 << 30)

    def take(self, keys: Sequence[str], count: int) -> None:
        for key in keys:
            if key in self.free:
                self.free[key] -= count


def pick(
    lanes: Sequence[Lane],
    limit: int,
    now: int,
    *,
    limits: Mapping[str, QueueLimits],
    paused: frozenset[str],
    breakers: Mapping[str, BreakerRow],
    probes: Callable[[str], int],
    running: Mapping[str, int],
    turns: Turns,
) -> tuple[list[Pick], int]:
    """The picks in order, and when a closed gate opens by itself (0: not known).

    `limits` has every queue of the lanes. See `atlasd.contracts.queue.Rules.pick`.
    """
    caps = _Caps(free={})
    wake = 0
    groups: dict[str, list[tuple[Lane, tuple[str, ...]]]] = {}
    for lane in lanes:
        if not lane.available or lane.queue in paused:
            continue
        keys, gate = _gates(
            lane, limits[lane.queue], now, breakers, probes, running, turns.rates, caps
        )
        if gate:
            wake = min(wake, gate) if wake else gate
        if caps.of(keys) > 0:
            groups.setdefault(lane.fair_key, []).append((lane, keys))
    if not groups:
        return [], wake
    taken = _share(groups, limit, limits, caps, turns)
    _charge(taken, limits, now, turns.rates)
    return [Pick(lane.id, jobs) for lane, jobs in taken.values()], wake


def _gates(
    lane: Lane,
    limits: QueueLimits,
    now: int,
    breakers: Mapping[str, BreakerRow],
    probes: Callable[[str], int],
    running: Mapping[str, int],
    rates: dict[str, float],
    caps: _Caps,
) -> tuple[tuple[str, ...], int]:
    """The shared limits that a lane is under, and when the first shut one opens by time."""
    keys: list[str] = []
    wake = 0

    def gate(name: str, free: int, opens: int = 0) -> None:
        nonlocal wake
        keys.append(name)
        caps.free.setdefault(name, free)
        if free <= 0 and opens:
            wake = min(wake, opens) if wake else opens

    by_key = f"{lane.queue}/{lane.fair_key}"
    if limits.concurrency:
        gate(f"c:{lane.queue}", limits.concurrency - running.get(lane.queue, 0))
    if limits.key_concurrency and lane.fair_key:
        gate(f"c:{by_key}", limits.key_concurrency - running.get(by_key, 0))
    for name, per_second, burst in (
        (lane.queue, limits.rate, limits.burst),
        (by_key, limits.key_rate, limits.key_burst),
    ):
        if per_second and (lane.fair_key or name == lane.queue):
            tat = rate.sane(rates.get(name, 0.0), now, rate=per_second, burst=burst)
            free = rate.allowed(tat, now, rate=per_second, burst=burst)
            gate(f"r:{name}", free, rate.next_allowed(tat, rate=per_second, burst=burst))
    breaker = breakers.get(lane.target) if lane.target else None
    if breaker is not None:
        if circuit.is_shut(breaker):
            opens = breaker.open_until if breaker.state == circuit.OPEN else 0
            gate(f"b:{lane.target}", 0, opens)
        elif breaker.state == circuit.HALF_OPEN:
            gate(f"b:{lane.target}", probes(lane.target) - running.get(f"target:{lane.target}", 0))
    return tuple(keys), wake


def _share(
    groups: dict[str, list[tuple[Lane, tuple[str, ...]]]],
    limit: int,
    limits: Mapping[str, QueueLimits],
    caps: _Caps,
    turns: Turns,
) -> dict[int, tuple[Lane, int]]:
    """How many from which lane, the lanes in the order in which they came to their turn."""
    taken: dict[int, tuple[Lane, int]] = {}
    # A key that had nothing to do gets no credit for it: its tag is at least the virtual time.
    heap = [
        (max(turns.virtual, *(lane.tag for lane, _ in group)), key) for key, group in groups.items()
    ]
    heapq.heapify(heap)
    left = limit
    while heap and left:
        tag, key = heapq.heappop(heap)
        group = groups[key]
        lane, keys = min(group, key=lambda one: (one[0].head, one[0].id))
        before = taken.get(lane.id, (lane, 0))[1]
        free = min(lane.available - before, caps.of(keys))
        if free <= 0:
            group.remove((lane, keys))
            if group:
                heapq.heappush(heap, (tag, key))
            continue
        # Alone, a key takes all at once; beside others a part, so that turns alternate.
        alone = not heap and len(group) == 1
        count = min(free, left, left if alone else max(1, left // (4 * (len(heap) + len(group)))))
        taken[lane.id] = (lane, before + count)
        turns.virtual = tag
        caps.take(keys, count)
        left -= count
        tag += count / limits[lane.queue].weights.get(key, 1.0)
        for other, _ in group:
            other.tag = tag
        heapq.heappush(heap, (tag, key))
    return taken


def _charge(
    taken: Mapping[int, tuple[Lane, int]],
    limits: Mapping[str, QueueLimits],
    now: int,
    rates: dict[str, float],
) -> None:
    for lane, count in taken.values():
        found = limits[lane.queue]
        by_key = f"{lane.queue}/{lane.fair_key}"
        for name, per_second, burst in (
            (lane.queue, found.rate, found.burst),
            (by_key, found.key_rate, found.key_burst),
        ):
            if per_second and (lane.fair_key or name == lane.queue):
                tat = rate.sane(rates.get(name, 0.0), now, rate=per_second, burst=burst)
                rates[name] = rate.take(tat, now, count, rate=per_second)
