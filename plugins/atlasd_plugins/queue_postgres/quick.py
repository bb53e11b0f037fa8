"""The shortest way for new jobs that nothing else comes with: one statement, one trip."""

import asyncio
import json
from collections.abc import Sequence

from atlasd.contracts.queue import Enqueued, JobState, Rules
from atlasd_plugins.queue_postgres import sql
from atlasd_plugins.queue_postgres.enqueuing import COPY_FROM, Enqueuing
from atlasd_plugins.queue_postgres.flight import Enqueue, Request
from atlasd_plugins.queue_postgres.lanes import Lanes, Numbers
from atlasd_plugins.queue_postgres.link import Link, Mark


def fits(work: Sequence[Request], rules: Rules) -> bool:
    """Whether there are only new jobs, few, and none that has to be held against others."""
    count = 0
    for one in work:
        if not isinstance(one, Enqueue) or one.key:
            return False
        count += len(one.jobs)
        if count >= COPY_FROM or any(
            job.unique_key or rules.limits(job.queue).size for job in one.jobs
        ):
            return False
    return count > 0


async def enqueue(
    link: Link,
    work: Sequence[Request],
    mark: Mark,
    *,
    lanes: Lanes,
    numbers: Numbers,
    rules: Rules,
) -> list[tuple["asyncio.Future[Sequence[Enqueued]]", list[Enqueued]]]:
    """The future of each request, and what became of its jobs."""
    enqueues = [one for one in work if isinstance(one, Enqueue)]
    jobs = [job for one in enqueues for job in one.jobs]
    await numbers.reserve(link.run, len(jobs))
    rows = Enqueuing(lanes, numbers, rules).rows(jobs)
    # The database decides by its own clock what is due.
    values = (json.dumps(rows), None, mark.host, str(mark.number))
    found = await link.marked((sql.QUICK, values), mark)
    if found is None:
        (found,) = await link.run((sql.STATES, (sql.array([row[0] for row in rows]),)))
    states = {number: JobState(word) for number, word in found}
    done = iter([Enqueued(row[0], states.get(row[0], JobState.AVAILABLE)) for row in rows])
    return [(one.future, [next(done) for _ in one.jobs]) for one in enqueues]
