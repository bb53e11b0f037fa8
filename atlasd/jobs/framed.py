"""The quick way in: one JSON object a line over a unix socket, answered in any order.

A request is `{"n": NUMBER, "op": WORD, …}`, its answer `{"n": NUMBER, …}` or `{"n": NUMBER,
"error": {"code", "message", "hint"}}`. Requests are begun in the order in which they come, and many
may be under way; those that arrive together share a transaction, and their answers a write.
docs/reference/jobs-protocol.md has every operation with an example.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from atlasd.contracts.queue import ClaimAsk, Claimed, Enqueued, Extended, Held, NewJob
from atlasd.errors import AtlasError
from atlasd.jobs.engine import BEAT, JobEngine, settlements_of
from atlasd.jobs.newjob import arguments, new_job, new_jobs
from atlasd.jobs.sessions import Session

LINE = 16 * 1024 * 1024
"""Bytes that one request may have."""
WRITE_BUFFER = 4 * 1024 * 1024
"""Bytes of answers that may wait for the other end before nothing more is read from it."""
MOST = 10_000
"""Jobs of one request."""
LONGEST_WAIT = 60_000
"""Milliseconds that a claim may wait."""
CLAIM = 1000
"""Jobs that one request may claim."""

_log = logging.getLogger("atlasd.jobs")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class FramedJobs(asyncio.Protocol):
    """One connection."""

    def __init__(self, engine: JobEngine, *, admit: Callable[[Any], str]) -> None:
        """`admit` is given the socket, and gives the actor or raises `AtlasError`."""
        self._engine = engine
        self._admit = admit
        self._buffer = bytearray()
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._writing = False
        self._under_way: set[asyncio.Future[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._engine.hang_ups.add(transport.abort)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        try:
            self._admit(transport.get_extra_info("socket"))
        except AtlasError as error:
            self._refuse(None, error)
            self._flush()
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone: so is its claim on what it held."""
        del exc
        if self._transport is not None:
            self._engine.hang_ups.discard(self._transport.abort)
        self._transport = None
        for future in list(self._under_way):
            future.cancel()
        if self._session is not None:
            closing = self._loop.create_task(self._engine.close_session(self._session))
            _kept.add(closing)
            closing.add_done_callback(_forget)

    def pause_writing(self) -> None:
        """The other end doesn't read: nothing more is read from it either."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take apart what came."""
        buffer = self._buffer
        buffer += data
        if b"\n" not in data:
            if len(buffer) > LINE:
                self._too_long()
            return
        *lines, rest = bytes(buffer).split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            if line:
                self._request(line)

    def _too_long(self) -> None:
        self._refuse(
            None,
            AtlasError(
                "request.too_large",
                f"a line of more than {LINE} bytes",
                hint="send smaller batches",
            ),
        )
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _request(self, line: bytes) -> None:
        number = None
        try:
            said = json.loads(line)
            if type(said) is not dict:
                raise AtlasError("request.invalid", "a request is one JSON object a line")
            number = said.get("n")
            perform = _OPERATIONS.get(said.get("op", ""))
            if perform is None:
                raise AtlasError(
                    "operation.unknown",
                    f"no operation {said.get('op')!r}",
                    hint=f"known: {', '.join(sorted(_OPERATIONS))}",
                )
            perform(self, number, said)
        except AtlasError as error:
            self._refuse(number, error)
        except (ValueError, RecursionError) as error:
            self._refuse(
                number, AtlasError("request.invalid", f"a request that is no JSON: {error}")
            )
        except Exception as error:  # noqa: BLE001  one bad request must not end the connection
            _log.exception("a request failed")
            self._refuse(
                number,
                AtlasError("internal", f"an unexpected error: {type(error).__name__}",
                           hint="the daemon's log has the traceback"),
            )  # fmt: skip

    # --- operations

    def _hello(self, number: object, said: dict[str, Any]) -> None:
        if self._session is not None:
            raise AtlasError("request.invalid", "this connection has said hello already")
        name, concurrency = said.get("worker"), said.get("concurrency", 1)
        if not isinstance(name, str) or not name or len(name) > 300:
            raise AtlasError("request.invalid", "worker: expected the worker's identity")
        if type(concurrency) is not int or not 1 <= concurrency <= 100_000:
            raise AtlasError("request.invalid", "concurrency: expected a whole number from 1")
        self._session = self._engine.open_session(name, concurrency)
        lease = self._session.lease
        self._answer({"n": number, "session": self._session.worker, "lease": lease, "beat": BEAT})

    def _enqueue(self, number: object, said: dict[str, Any]) -> None:
        jobs = _jobs_in(said)
        if len(jobs) > MOST:
            raise AtlasError("job.invalid", f"{len(jobs)} jobs in one request, at most {MOST}")
        key = said.get("key", "")
        if not isinstance(key, str) or len(key) > 500:
            raise AtlasError("job.invalid", "key: expected text of at most 500 characters")

        def answer(found: Sequence[Enqueued]) -> None:
            self._answer({"n": number, "jobs": found})

        self._wait(number, self._engine.enqueue(jobs, idempotency_key=key), answer)

    def _work(self, number: object, said: dict[str, Any]) -> None:
        session = self._worker()
        settlements = [self._engine.continued(session, one) for one in settlements_of(said)]
        ask = _ask_in(session, said)

        def answer(found: tuple[Sequence[bool], Sequence[Claimed]]) -> None:
            held, jobs = found
            self._engine.settled(session, settlements, held)
            self._engine.given(session, jobs)
            body: dict[str, Any] = {"n": number, "jobs": jobs}
            if not all(held):
                body["lost"] = [
                    one.id for one, kept in zip(settlements, held, strict=True) if not kept
                ]
            self._answer(body)

        self._wait(number, self._engine.store.exchange(settlements, ask), answer)

    def _beat(self, number: object, said: dict[str, Any]) -> None:
        session = self._worker()
        progress = said.get("progress", {})
        try:
            held = [
                Held(id=job, token=token, progress=_report(progress.get(str(job))))
                for job, token in said.get("held", ())
            ]
        except (TypeError, ValueError, AttributeError):
            raise AtlasError("job.invalid", "held: expected a list of [id, token]") from None

        def answer(found: Extended) -> None:
            self._answer(
                {
                    "n": number,
                    "lost": found.lost,
                    "cancel": found.cancel,
                    "command": "drain" if session.draining else "",
                }
            )

        self._wait(number, self._engine.beat(session, held), answer)

    def _drain(self, number: object, said: dict[str, Any]) -> None:
        """The worker ends: it is given nothing more, and a claim that waits is answered."""
        del said
        session = self._worker()
        session.draining = True
        self._engine.store.nudge(session.worker)
        self._answer({"n": number})

    def _ping(self, number: object, said: dict[str, Any]) -> None:
        del said
        self._answer({"n": number})

    def _worker(self) -> Session:
        if self._session is None:
            raise AtlasError("request.invalid", "say hello first: which worker is it?")
        return self._session

    # --- answers

    def _wait(self, number: object, work: Awaitable[Any], answer: Callable[[Any], None]) -> None:
        future = asyncio.ensure_future(work)
        self._under_way.add(future)

        def done(future: "asyncio.Future[Any]") -> None:
            self._under_way.discard(future)
            if future.cancelled():
                return
            error = future.exception()
            if error is None:
                answer(future.result())
            elif isinstance(error, AtlasError):
                self._refuse(number, error)
            else:
                _log.error("a request failed", exc_info=error)
                self._refuse(number, AtlasError("internal", "an unexpected error"))

        future.add_done_callback(done)

    def _answer(self, body: dict[str, Any]) -> None:
        self._out.append(_encode(body).encode())
        if not self._writing:
            self._writing = True
            # All answers of one commit leave in one write.
            self._loop.call_soon(self._flush)

    def _refuse(self, number: object, error: AtlasError) -> None:
        self._answer(
            {"n": number, "error": {"code": error.code, "message": error.message,
                                    "hint": error.hint}}
        )  # fmt: skip

    def _flush(self) -> None:
        self._writing = False
        out, self._out = self._out, []
        if out and self._transport is not None:
            out.append(b"")
            self._transport.write(b"\n".join(out))


_OPERATIONS: dict[str, Callable[[FramedJobs, object, dict[str, Any]], None]] = {
    "hello": FramedJobs._hello,  # noqa: SLF001  the table of this very class
    "enqueue": FramedJobs._enqueue,  # noqa: SLF001
    "work": FramedJobs._work,  # noqa: SLF001
    "beat": FramedJobs._beat,  # noqa: SLF001
    "drain": FramedJobs._drain,  # noqa: SLF001
    "ping": FramedJobs._ping,  # noqa: SLF001
}
_kept: set[asyncio.Task[None]] = set()


def _forget(task: asyncio.Task[None]) -> None:
    _kept.discard(task)
    if not task.cancelled() and task.exception() is not None:
        _log.error("what a worker held could not be taken back", exc_info=task.exception())


def _jobs_in(said: dict[str, Any]) -> list[NewJob]:
    """`jobs`, each described whole; or `job`, and `args` for as many of it as there are."""
    if "job" not in said:
        return new_jobs(said.get("jobs"))
    template = said["job"]
    if type(template) is not dict or "args" in template:
        raise AtlasError("job.invalid", "job: expected a job without its arguments")
    if template.get("unique"):
        raise AtlasError("job.invalid", "job.unique: a key stands for one job", hint="use `jobs`")
    each = said.get("args")
    if type(each) is not list:
        raise AtlasError("job.invalid", "args: expected a list, the arguments of each job")
    make = new_job(template, "job")._replace
    return [make(args=arguments(one, f"args[{index}]")) for index, one in enumerate(each)]


def _ask_in(session: Session, said: dict[str, Any]) -> ClaimAsk | None:
    want = said.get("want", 0)
    if not want or session.draining:
        return None
    queues, wait = said.get("queues", ["default"]), said.get("wait", 0)
    if type(want) is not int or not 0 < want <= CLAIM:
        raise AtlasError("job.invalid", f"want: expected a whole number, 1 to {CLAIM}")
    if type(wait) is not int or not 0 <= wait <= LONGEST_WAIT:
        raise AtlasError("job.invalid", f"wait: expected milliseconds, 0 to {LONGEST_WAIT}")
    if type(queues) is not list or not all(isinstance(queue, str) for queue in queues):
        raise AtlasError("job.invalid", "queues: expected a list of names")
    session.queues = tuple(queues)
    return ClaimAsk(
        worker=session.worker, queues=session.queues, limit=want, lease=session.lease, wait=wait
    )


def _report(value: object) -> str:
    return "" if value is None else _encode(value)
