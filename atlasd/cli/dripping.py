"""Requeues dead jobs a few at a time, and watches what becomes of them.

The drip lives in this command: when the command ends, no more are requeued, and nothing else
happens. What was requeued is not dead any longer, so the same command goes on where it ended.
"""

import time
from collections.abc import Callable
from typing import Any

from atlasd.control.client import Client
from atlasd.errors import AtlasError

TICK = 0.2
"""Seconds between two drops: several jobs at once where the rate is higher."""
LOOK = 1.0
"""Seconds between two looks at what became of requeued jobs."""
ENOUGH = 5
"""Outcomes that are known before a part of them says anything."""
_IDS = 500


class Drip:
    """One command's requeueing."""

    def __init__(
        self,
        client: Client,
        chosen: dict[str, Any],
        *,
        rate: float,
        stop_at: float | None,
        say: Callable[[int, str], object],
    ) -> None:
        """`rate` jobs a second; `stop_at`: the part that may have failed again, None: any.

        `say` is told how many were requeued, and what is known of them.
        """
        self._client = client
        self._chosen = chosen
        self._rate = rate
        self._stop_at = stop_at
        self._say = say
        self.requeued = 0
        self.finished = 0
        self.failed = 0
        self._open: set[int] = set()
        self.stopped = False
        """Whether too many failed again."""

    def run(self, limit: int | None) -> None:
        """Requeue until no more are meant, `limit` are done, or too many have failed again."""
        began, looked = time.monotonic(), 0.0
        while not self.stopped:
            now = time.monotonic()
            due = int((now - began) * self._rate) + 1 - self.requeued
            if limit is not None:
                due = min(due, limit - self.requeued)
            if due > 0 and self._drop(min(due, 1000)) == 0:
                return
            if limit is not None and self.requeued >= limit:
                return
            if self._stop_at is not None and now - looked >= LOOK:
                looked = now
                self.look()
            self._say(self.requeued, self.known())
            time.sleep(max(TICK, min(1.0 / self._rate, LOOK)))

    def settle(self, patience: float) -> None:
        """Wait for the outcomes of what was requeued, no longer than `patience` seconds."""
        until = time.monotonic() + patience
        while self._open and not self.stopped and time.monotonic() < until:
            self.look()
            self._say(self.requeued, self.known())
            if self._open:
                time.sleep(TICK)

    def _drop(self, count: int) -> int:
        body = self._client.call("dead.requeue", limit=count, **self._chosen)
        self.requeued += body["jobs"]
        self._open.update(body["ids"])
        return int(body["jobs"])

    def look(self) -> None:
        """Learn what became of requeued jobs."""
        ids = sorted(self._open)
        for at in range(0, len(ids), _IDS):
            asked = ids[at : at + _IDS]
            found = self._client.call("job.list", id=asked, limit=_IDS)["jobs"]
            for one in found:
                outcome = judged(one["state"], one["attempt"])
                if outcome == "open":
                    continue
                self._open.discard(one["id"])
                self.finished += outcome == "finished"
                self.failed += outcome == "failed"
            # One that was finished and forgotten, or cancelled by hand, says nothing.
            self._open -= set(asked) - {one["id"] for one in found}
        known = self.finished + self.failed
        if self._stop_at is not None and known >= ENOUGH and self.failed >= self._stop_at * known:
            self.stopped = True

    def known(self) -> str:
        """What is known of the requeued jobs, in words."""
        return f"{self.finished} finished, {self.failed} failed again, {len(self._open)} open"

    def error(self, again: str) -> AtlasError:
        """What is said when it stopped; `again` is the command that goes on."""
        known = self.finished + self.failed
        return AtlasError(
            "dead.stopped",
            f"stopped after {self.requeued} jobs: {self.failed} of {known} failed again"
            f" ({100 * self.failed // known} %)",
            hint=f"the others are dead still; look at them with `atlasctl dead groups`, then go on "
            f"with `{again}`",
            details={
                "requeued": self.requeued, "finished": self.finished, "failed": self.failed,
                "open": len(self._open),
            },
        )  # fmt: skip


def judged(state: str, attempt: int) -> str:
    """What became of a requeued job, from its state and its attempts since it was requeued.

    open | finished | failed | cancelled. One that has failed once has failed, though it may be
    tried again.
    """
    if state == "dead" or attempt > 1 or (state == "scheduled" and attempt):
        return "failed"
    if state == "completed":
        return "finished"
    return "cancelled" if state == "cancelled" else "open"
