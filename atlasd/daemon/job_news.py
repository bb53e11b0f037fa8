"""What the job engine has to tell: from its thread to the bus of core."""

import time
from collections.abc import Callable

from atlasd.clock import Clock
from atlasd.contracts.queue import BreakerRow
from atlasd.events import BreakerMoved, Event, JobsDied, QueueJudged
from atlasd.jobs.deaths import Deaths, Mourning
from atlasd.jobs.ledger import Died
from atlasd.jobs.verdict import OK, QueueHealth


class JobNews:
    """Facts about jobs, each published as often as a person can bear."""

    def __init__(self, publish: Callable[[Event], object], clock: Clock) -> None:
        """`publish` is called in the engine's thread."""
        self._publish = publish
        self._clock = clock
        self._mourning = Mourning()

    def died(self, died: Died) -> None:
        """A job was given up."""
        news = self._mourning.note(died, time.monotonic())
        if news is not None:
            self._tell(news)

    def tick(self) -> None:
        """Time has passed."""
        for news in self._mourning.due(time.monotonic()):
            self._tell(news)

    def _tell(self, news: Deaths) -> None:
        last = news.last
        jobs = "one job" if news.count == 1 else f"{news.count} jobs"
        self._publish(
            JobsDied(
                time=self._clock.wall(), fingerprint=last.fingerprint, queue=last.queue,
                job_kind=last.kind, count=news.count, job=last.job, reason=last.reason,
                detail=f"{jobs} of {last.kind or 'several kinds'}, the last of them {last.job}: "
                f"{last.error[:500]}",
            )
        )  # fmt: skip

    def moved(self, old: BreakerRow, new: BreakerRow) -> None:
        """A breaker went to another state."""
        detail = ""
        if new.state == "open":
            rest = max(0, new.open_until - new.changed_at) / 1000.0
            detail = f"too many calls failed or were slow; jobs are held for {rest:.0f} s"
        self._publish(
            BreakerMoved(
                time=self._clock.wall(), target=new.target, old=old.state, new=new.state,
                detail=detail,
            )
        )  # fmt: skip

    def judged(self, queue: str, old: QueueHealth | None, new: QueueHealth) -> None:
        """A queue has another verdict."""
        self._publish(
            QueueJudged(
                time=self._clock.wall(), queue=queue, old=old.word if old is not None else OK,
                new=new.word, detail=new.reason,
            )
        )  # fmt: skip
