"""The escalation of one stop: which signal is next, to whom, and until when is waited for it."""

from atlasd.services.spec import Stop

FOR_EVER = float("inf")


def stop_steps(stop: Stop) -> list[tuple[str, bool, float]]:
    """The escalation as (signal, to everyone, seconds to wait); the last step waits for ever."""
    everyone = stop.kill_mode == "control-group"
    steps = [(stop.signal, everyone, stop.timeout)]
    steps += [(name, everyone, wait) for name, wait in stop.escalation]
    if stop.kill_mode == "none":
        name, everyone, _ = steps[-1]
        steps[-1] = (name, everyone, FOR_EVER)
    else:
        steps.append(("KILL", stop.kill_mode != "process", FOR_EVER))
    return steps


class Escalation:
    """The steps that are left of one stop. Times are monotonic seconds."""

    def __init__(self, stop: Stop, *, first: str = "") -> None:
        """With `first`, that signal takes the place of the one that the stop begins with."""
        self._steps = stop_steps(stop)
        if first:
            self._steps[0] = (first, *self._steps[0][1:])
        self._ends = FOR_EVER
        self._kill_by: float | None = None

    def next(self, now: float) -> tuple[str, bool, float] | None:
        """The next (signal, to everyone, seconds to wait); null when none is left."""
        if self._kill_by is not None and now >= self._kill_by - 1e-6:
            del self._steps[:-1]
        if not self._steps:
            return None
        name, everyone, wait = self._steps.pop(0)
        if self._kill_by is not None and self._steps:
            wait = min(wait, max(0.0, self._kill_by - now))
        self._ends = now + wait
        return name, everyone, wait

    def hurry(self, now: float, timeout: float) -> float | None:
        """Have the last step by then at the latest: may only shorten what is left.

        The seconds after which `next` is to be called now; null when nothing changes.
        """
        by = now + max(0.0, timeout)
        if not self._steps or (self._kill_by is not None and by >= self._kill_by):
            return None
        self._kill_by = by
        return by - now if by < self._ends else None

    def extend(self, now: float, seconds: float) -> float | None:
        """Wait longer for the step under way, unless somebody is in a hurry; as `hurry`."""
        if self._kill_by is not None or not now < self._ends < now + seconds:
            return None
        self._ends = now + seconds
        return seconds
