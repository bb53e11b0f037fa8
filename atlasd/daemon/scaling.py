"""Services that are scaled by the backlog of their queues: core's eye on the job engine."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from atlasd.config.schema import Settings
from atlasd.contracts.queue import Filter, JobState, QueueCount
from atlasd.core.engine import Core
from atlasd.core.operations import BACKLOG, ServiceOperations
from atlasd.daemon.jobs import JobThread
from atlasd.errors import AtlasError
from atlasd.jobs import circuit
from atlasd.jobs.engine import JobEngine
from atlasd.jobs.scaling import Backlog, ScalePolicy, Scaler
from atlasd.states import Wanted

EVERY = 2.0
"""Seconds between two looks."""
SEEN = 1000
"""Jobs of a target whose breaker is open that are counted; where there are more, all of the queue
are taken for held back."""

_log = logging.getLogger("atlasd.daemon")


class Scaling:
    """Looks at the queues now and then, and has services scaled."""

    def __init__(
        self, core: Core, services: ServiceOperations, jobs: JobThread, settings: Settings
    ) -> None:
        self._core = core
        self._services = services
        self._jobs = jobs
        self._queues: dict[str, tuple[str, ...]] = {}
        self._scalers: dict[str, Scaler] = {}
        self._trouble = ""
        self._take(settings)

    async def follow(self, settings: Settings) -> None:
        """Go by this configuration from now on."""
        before = set(self._scalers)
        self._take(settings)
        await self._end(before - self._scalers.keys())

    def _take(self, settings: Settings) -> None:
        before, self._scalers, self._queues = self._scalers, {}, {}
        for name, service in settings.services.items():
            scale, worker = service.scale, service.worker
            if scale is None or worker is None:
                continue
            policy = ScalePolicy(
                low=scale.min, high=scale.max, target_wait=scale.target_wait, quiet=scale.quiet,
                slots=worker.processes * worker.concurrency,
            )  # fmt: skip
            known = before.get(name)
            # What was measured stays known through a change of something else.
            self._scalers[name] = known if known and known.policy == policy else Scaler(policy)
            self._queues[name] = worker.queues

    async def run(self) -> None:
        """Look until cancelled; what cannot be done now is tried again at the next look."""
        # The configuration may have changed while core was away.
        await self._end(
            name
            for name, intent in self._core.intents.all().items()
            if intent.actor == BACKLOG and name not in self._scalers
        )
        while True:
            await asyncio.sleep(EVERY)
            if not self._scalers:
                continue
            try:
                await self._look()
                self._trouble = ""
            except AtlasError as error:
                if error.message != self._trouble:
                    _log.info("not scaled by backlog: %s", error.message)
                self._trouble = error.message

    async def _end(self, names: Iterable[str]) -> None:
        """Services whose backlog decides no longer have as many instances as configured again."""
        for name in names:
            intent = self._core.intents.all().get(name)
            configured = self._core.reconciler.wish.specs.get(name)
            if intent is None or intent.instances is None or configured is None:
                continue
            await self._core.intents.scale(
                name, configured.instances, configured=configured.instances, actor=BACKLOG,
                now=self._core.clock.wall(),
            )  # fmt: skip
            self._core.reconciler.due()

    async def _look(self) -> None:
        wanted = {queue for queues in self._queues.values() for queue in queues}
        limits = self._jobs.rules.limits
        most = {queue: limits(queue).concurrency for queue in wanted}
        backlogs = await self._jobs.ask(lambda engine: backlogs_of(engine, most))
        resolved = self._core.reconciler.resolved()
        now = self._core.clock.monotonic()
        for name, scaler in self._scalers.items():
            spec = resolved.specs.get(name)
            if spec is None or resolved.wanted[name] is not Wanted.UP:
                continue  # it waits to be applied, or somebody has stopped it
            queues = [backlogs[queue] for queue in self._queues[name]]
            wish = scaler.look(now, spec.instances, queues)
            if wish is not None:
                _log.info("scale %s %d → %d: %s", name, spec.instances, *wish)
                await self._services.scale_by_backlog(name, wish.instances, wish.reason)


async def backlogs_of(engine: JobEngine, most: Mapping[str, int]) -> Mapping[str, Backlog]:
    """How queues stand; in the engine's loop. Raises `job.store`.

    `most` is how many jobs of each may run at once; 0: any number.
    """
    store = engine.store
    now, counts, paused = await store.now(), await store.count(), await store.paused()
    shut = [
        row.target
        for row in await store.breakers()
        if circuit.is_shut(row) or row.state == circuit.HALF_OPEN
    ]
    ended: dict[str, int] = {}
    for (queue, _, word), count in engine.measures.outcomes.items():
        if word != "released":
            ended[queue] = ended.get(queue, 0) + count
    found = {}
    for queue, limit in most.items():
        mine = [one for one in counts if one.queue == queue]
        available, oldest = _of(mine, JobState.AVAILABLE)
        running, _ = _of(mine, JobState.RUNNING)
        held_back = queue in paused
        for target in shut if available and not held_back else ():
            which = Filter(queue=queue, target=target, states=(JobState.AVAILABLE,))
            waiting = len(await store.select(which, SEEN))
            available = max(available - waiting, 0)
            held_back |= waiting >= SEEN
        found[queue] = Backlog(
            queue=queue,
            available=available,
            oldest=max(0.0, (now - oldest) / 1000.0) if available and oldest else 0.0,
            running=running,
            ended=ended.get(queue, 0),
            held_back=held_back or bool(limit and running >= limit),
        )
    return found


def _of(counts: Sequence[QueueCount], state: JobState) -> tuple[int, int]:
    """Jobs in a state, and the moment of the oldest of them."""
    return next(((one.jobs, one.oldest) for one in counts if one.state is state), (0, 0))
