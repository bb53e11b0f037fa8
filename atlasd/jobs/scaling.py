"""How many instances of a service its backlog wants: up at once, down slowly, never to and fro.

Pure but for what a `Scaler` remembers; the clock is whatever it is told. What one instance gets
done in a second is measured while there is enough to do for all: only then does it say something.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SETTLE = (2.0, 15.0)
"""Bounds, in seconds, of the time that new instances have to show their effect: half of the target
within them."""
WEIGHT = 0.3
"""Part that the latest measurement has in the rate."""
SLOWEST = 1e-6
"""Jobs a second and instance below which a rate is as good as unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalePolicy:
    """What a service wants of its scaling; times in seconds."""

    low: int
    high: int
    target_wait: float
    """Time that a job may wait before it is begun."""
    quiet: float = 60.0
    """Time in which fewer instances would have done all along, before any is stopped."""
    slots: int = 1
    """Jobs that one instance runs at once."""


class Backlog(NamedTuple):
    """One queue that the service works."""

    queue: str
    available: int
    """Jobs that could be begun now, were there anybody."""
    oldest: float
    """Seconds that the first of them has been due."""
    running: int
    ended: int
    """Runs that have ended, counted from any moment on."""
    held_back: bool = False
    """Whether more instances would get nothing more: it is paused, or at its limit."""


class Wish(NamedTuple):
    """Another number of instances, and why."""

    instances: int
    reason: str


class Scaler:
    """Decides for one service, look by look."""

    def __init__(self, policy: ScalePolicy) -> None:
        self.policy = policy
        self._current: int | None = None
        self._changed = 0.0
        """When the number of instances was last another."""
        self._up_from = 0.0
        """Not before that are there to be more."""
        self._needs: deque[tuple[float, int]] = deque()
        """What would have done, look by look, for the length of `quiet`."""
        self._rate = 0.0
        """Jobs that one instance gets done in a second; 0: not known."""
        self._last: tuple[float, int] | None = None

    def look(self, now: float, current: int, queues: Sequence[Backlog]) -> Wish | None:
        """What is to change; None when nothing is. `now` in monotonic seconds."""
        policy = self.policy
        self._note(now, current)
        open_queues = [one for one in queues if not one.held_back]
        self._measure(now, current, queues, busy=any(one.available for one in open_queues))
        if current < policy.low:
            return Wish(policy.low, f"there are to be at least {policy.low}")
        if current > policy.high:
            return Wish(policy.high, f"there are to be at most {policy.high}")
        need, why = self._need(current, queues, open_queues)
        need = min(max(need, policy.low), policy.high)
        self._needs.append((now, need))
        while self._needs[0][0] < now - policy.quiet:
            self._needs.popleft()
        if need > current:
            return Wish(need, why) if now >= self._up_from else None
        if now - self._changed < policy.quiet:
            return None
        enough = max(one for _, one in self._needs)
        fewer = max(enough, current // 2)
        if fewer >= current:
            return None
        would = f"{enough} would have done" if enough else "there was nothing to do"
        return Wish(fewer, f"{would} for the last {policy.quiet:.0f} s")

    def _note(self, now: float, current: int) -> None:
        """Whoever has changed the number: what was seen before says nothing about it."""
        if current == self._current:
            return
        if self._current is not None:
            settle = min(max(self.policy.target_wait / 2, SETTLE[0]), SETTLE[1])
            self._up_from = now + settle
        else:
            self._up_from = now
        self._current, self._changed = current, now
        self._needs.clear()
        self._last = None

    def _measure(self, now: float, current: int, queues: Sequence[Backlog], *, busy: bool) -> None:
        if not busy or not current or now < self._up_from:
            self._last = None
            return
        ended = sum(one.ended for one in queues)
        if self._last is not None:
            since, before = self._last
            if ended < before or now <= since:  # counted anew
                self._last = (now, ended)
                return
            rate = (ended - before) / (now - since) / current
            self._rate = rate if not self._rate else self._rate + WEIGHT * (rate - self._rate)
        self._last = (now, ended)

    def _need(
        self, current: int, queues: Sequence[Backlog], open_queues: Sequence[Backlog]
    ) -> tuple[int, str]:
        """How many instances would do, and what asks for more than there are."""
        slots, target = self.policy.slots, self.policy.target_wait
        # Workers fetch ahead: what they hold beyond their slots keeps none of them busy.
        busy = min(math.ceil(sum(one.running for one in queues) / slots), current)
        waiting = sum(one.available for one in open_queues)
        if not waiting:
            return busy, ""
        first = max((one for one in open_queues if one.available), key=lambda one: one.oldest)
        late = first.oldest > target
        # One for each job that waits is all that can be of use.
        most = current + math.ceil(waiting / slots)
        if self._rate < SLOWEST:
            need = min(max(2 * current, 1), most) if late else current
        else:
            need = min(math.ceil(waiting / (self._rate * target)), most)
            if late or not current:
                need = max(need, current, 1)
        if late:
            why = f"oldest job of {first.queue} waits {first.oldest:.0f} s, target {target:g} s"
        else:
            seconds = waiting / (self._rate * max(current, 1)) if self._rate else 0.0
            names = ", ".join(one.queue for one in open_queues if one.available)
            why = f"{waiting} jobs of {names} wait, work for {seconds:.0f} s, target {target:g} s"
        return max(need, busy), why
