"""The job engine: keeps the store's clockwork going, and stands between workers and the store."""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from atlasd.contracts.queue import (
    ClaimAsk,
    Claimed,
    Enqueued,
    Extended,
    Failure,
    Finish,
    Held,
    Maintained,
    NewJob,
    QueueStore,
    Release,
    Settlement,
)
from atlasd.errors import AtlasError
from atlasd.jobs.lookout import Lookout
from atlasd.jobs.measures import Measures
from atlasd.jobs.newjob import new_jobs
from atlasd.jobs.outcome import options
from atlasd.jobs.sessions import Session
from atlasd.jobs.timetable import Timetable

BEATS = 3
"""Heartbeats within a lease."""
CHUNK = 1000
"""Rows of each kind that one round of maintenance touches: the loop has its turn in between."""
IDLE = 60.0
"""Seconds after which maintenance looks round though nothing is known to be due: a clock that was
set."""
IDLE_SHARED = 5.0
"""The same where other hosts use the store: what they know to be due is due though they be gone."""
RETRY = 1.0
"""Seconds before a store that failed is tried again."""
_ACCEPTING = 4

_log = logging.getLogger("atlasd.jobs")


class JobEngine:
    """All of it runs in one loop, which may be another than the daemon's."""

    def __init__(
        self,
        store: QueueStore,
        *,
        identity: str,
        settled: Callable[[str, int], object] | None = None,
        shared: bool = False,
        lease: Callable[[], int] = lambda: 30_000,
    ) -> None:
        """`identity` begins the names of sessions; `settled` hears of outcomes and their number.

        `shared`: other hosts use the store as well. `lease` gives the milliseconds that a worker
        holds a job without a heartbeat.
        """
        self.store = store
        self.lease = lease
        self.sessions: dict[str, Session] = {}
        self.measures = Measures()
        self.hang_ups: set[Callable[[], object]] = set()
        """What ends each connection that is open."""
        self.trouble = ""
        """Why the store cannot be used now; empty when it can."""
        self._identity = identity
        self._idle = IDLE_SHARED if shared else IDLE
        self._settled = settled or (lambda _word, _count: None)
        self._numbers = itertools.count(1)
        self._due = asyncio.Event()
        self._next = 0.0
        self.timetable = Timetable(store, due_in=self.due_in)
        self.lookout = Lookout(store, self.measures, self.sessions)
        self._listeners: dict[int, set[asyncio.Event]] = {}

    async def hang_up(self) -> None:
        """End every connection, and take back what their workers held."""
        turns = 0
        # One that has just been accepted is a connection a few turns of the loop later, and one
        # that is ended is gone in the next.
        while self.hang_ups or turns < _ACCEPTING:
            for end in list(self.hang_ups):
                end()
            await asyncio.sleep(0)
            turns += 1
        for session in list(self.sessions.values()):
            await self.close_session(session)

    # --- clockwork

    async def run(self) -> None:
        """Promote, expire, take back and forget what is due, until cancelled."""
        while True:
            pause = self._idle
            try:
                done = await self.store.maintain(CHUNK)
                self.trouble = ""
                self._tell(done)
                now = await self.store.now()
                if max(done.promoted, done.lost, done.expired, done.pruned) >= CHUNK:
                    pause = 0.0
                elif done.next_due:
                    pause = min(self._idle, max(0.0, (done.next_due - now) / 1000.0))
            except AtlasError as error:
                self._note(error)
                pause = RETRY
            await self._sleep(pause)

    def failed(self, error: AtlasError) -> None:
        """Note that the store refused something, though maintenance may have found nothing."""
        if error.code == "job.store":
            self._note(error)
            self._due.set()  # whether it works again is tried now, and then every second

    def _note(self, error: AtlasError) -> None:
        if error.message != self.trouble:
            _log.error("%s (%s)", error.message, error.hint)
        self.trouble = error.message

    async def _sleep(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        self._next = loop.time() + pause
        self._due.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next):
                await self._due.wait()

    def due_in(self, milliseconds: int) -> None:
        """Something will be due then: have maintenance come round in time."""
        if not self._next:
            return  # its first round is still to come
        at = asyncio.get_running_loop().time() + milliseconds / 1000.0
        if at < self._next:
            self._next = at
            asyncio.get_running_loop().call_at(at, self._due.set)

    def _tell(self, done: Maintained) -> None:
        for word, count in (("lost", done.lost), ("expired", done.expired)):
            if count:
                self._settled(word, count)

    # --- producers

    def enqueue(
        self, jobs: Sequence[NewJob], *, idempotency_key: str = ""
    ) -> Awaitable[Sequence[Enqueued]]:
        """See `QueueStore.enqueue`."""
        for job in jobs:
            if job.delay or job.run_at:
                self.due_in(job.delay or 1)
            if job.expires_in:
                self.due_in(job.expires_in)
        return self.store.enqueue(jobs, idempotency_key=idempotency_key)

    # --- workers

    def open_session(self, said: str, concurrency: int) -> Session:
        """A worker has connected."""
        worker = f"{self._identity}/{next(self._numbers)}"
        session = Session(worker=worker, said=said, concurrency=concurrency, lease=self.lease())
        self.sessions[worker] = session
        return session

    async def close_session(self, session: Session) -> None:
        """Its connection has ended: what it held is somebody else's from now on."""
        self.sessions.pop(session.worker, None)
        begun, ahead = session.given_up()
        session.held.clear()
        if ahead:
            await self.store.exchange([Release(job.id, job.token) for job in ahead], None)
        if begun:
            lost = await self.store.lose(session.worker, begun, why="connection")
            if lost:
                _log.warning("worker %s is gone with %d jobs in hand", session.said, lost)
                self._settled("lost", lost)
            self.due_in(0)
            # Their first retry comes soon; maintenance finds out when.
            self._due.set()

    async def exchange(
        self, session: Session, settlements: Sequence[Settlement], ask: ClaimAsk | None
    ) -> tuple[Sequence[bool], Sequence[Claimed]]:
        """Settle and claim for a session; see `QueueStore.exchange`."""
        prepared = self.continued(session, settlements)
        held, jobs = await self.store.exchange(prepared, ask)
        self.settled(session, prepared, held)
        self.given(session, jobs)
        return held, jobs

    def settled(
        self, session: Session, settlements: Sequence[Settlement], held: Sequence[bool]
    ) -> None:
        """Take note of what the store has settled."""
        failed = 0
        mine = session.held
        jobs = [mine.pop(one.id, None) for one in settlements]
        for one in settlements:
            failed += type(one) is Failure
        self.measures.settled(settlements, jobs, held)
        if self._listeners:
            self._heard(one.id for one in settlements)
        if failed or any(isinstance(one, Release) and one.delay for one in settlements):
            self._due.set()  # it may be due sooner than anything else
        done = sum(held)
        if done - failed > 0:
            self._settled("settled", done - failed)
        if failed:
            self._settled("failed", failed)
        if done < len(held):
            self._settled("lease_lost", len(held) - done)

    def given(self, session: Session, jobs: Sequence[Claimed]) -> None:
        """Take note of what a session was given."""
        mine = session.held
        for job in jobs:
            mine[job.id] = job
            if job.options and '"then"' in job.options:
                session.continuing = True
        if jobs:
            self.measures.given(jobs, session.lease)
            self.due_in(session.lease)
            if self._listeners:
                self._heard(job.id for job in jobs)

    def continued(self, session: Session, settlements: Sequence[Settlement]) -> list[Settlement]:
        """The settlements, a finish with the jobs that its own job says come after it."""
        if not session.continuing:
            return list(settlements)
        return [self._continued(session, one) for one in settlements]

    def _continued(self, session: Session, one: Settlement) -> Settlement:
        job = session.held.get(one.id)
        if job is None or '"then"' not in job.options or not isinstance(one, Finish):
            return one
        return _with_then(one, job.options)

    async def followed(self, one: Settlement) -> Settlement:
        """The same for a worker without a connection, of whose jobs nothing is remembered here."""
        if not isinstance(one, Finish):
            return one
        row = await self.store.get(one.id)
        return one if row is None or '"then"' not in row.options else _with_then(one, row.options)

    async def beat(self, session: Session, held: Sequence[Held]) -> Extended:
        """Prolong what a worker says that it holds."""
        answer = await self.store.extend(session.worker, held, session.lease)
        for job in answer.lost:
            session.held.pop(job, None)
        self.due_in(session.lease)
        if self._listeners:
            self._heard(one.id for one in held if one.progress)
        return answer

    # --- who watches a job

    def listen(self, job: int) -> asyncio.Event:
        """What is set when something is heard of a job; to be given back with `forget`."""
        heard = asyncio.Event()
        self._listeners.setdefault(job, set()).add(heard)
        return heard

    def forget(self, job: int, heard: asyncio.Event) -> None:
        """Nobody waits for it any longer."""
        listening = self._listeners.get(job, set())
        listening.discard(heard)
        if not listening:
            self._listeners.pop(job, None)

    def _heard(self, jobs: Iterable[int]) -> None:
        for job in self._listeners.keys() & set(jobs):
            for heard in self._listeners[job]:
                heard.set()


def _with_then(one: Finish, text: str) -> Finish:
    """A finish, with the jobs that the options of its job say come after it."""
    known = options(text)
    # `then` may stand in a tag alone.
    return one._replace(then=(*one.then, *new_jobs(known.get("then", ()), "then")))


def settlements_of(said: dict[str, Any]) -> list[Settlement]:
    """What a worker says of its jobs: `finish`, `fail` and `release`.

    Raises `job.invalid` for a wrong shape.
    """
    try:
        found: list[Settlement] = [
            Finish(*one) if len(one) <= 4 else _refuse() for one in said.get("finish", ())
        ]
        for one in said.get("fail", ()):
            frames = tuple(str(frame) for frame in one.pop("frames", ()))
            found.append(Failure(**one, frames=frames))
        found += [Release(*one) for one in said.get("release", ())]
        for one in found:
            if type(one.id) is not int or type(one.token) is not int:
                raise TypeError("a job's id and token are whole numbers")
            if isinstance(one, Finish) and one.result:
                json.loads(one.result)
                one.result.encode()
    except (TypeError, ValueError, AttributeError) as error:
        raise AtlasError(
            "job.invalid",
            f"what is said of jobs has a wrong shape: {error}",
            hint="finish: [[id, token, result, took]], fail: [{id, token, error, …}], "
            "release: [[id, token, delay]]",
        ) from None
    return found


def _refuse() -> Finish:
    raise TypeError("a finish has at most id, token, result and took")
