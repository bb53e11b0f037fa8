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
from typing import Any, NamedTuple

import msgspec

from atlasd.contracts.queue import (
    ClaimAsk,
    Claimed,
    Enqueued,
    Extended,
    Finish,
    Held,
    NewJob,
    Settlement,
)
from atlasd.errors import AtlasError
from atlasd.jobs.engine import BEATS, JobEngine, settlements_of
from atlasd.jobs.newjob import ARGS_LIMIT, DEFAULT_QUEUE, arguments, new_job, new_jobs
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
_encode = msgspec.json.encode


class _Finish(NamedTuple):
    id: int
    token: int
    result: str = ""
    took: int = 0


class _Said(msgspec.Struct):
    """A request whose shape is right, as nearly all are: of what is long only the ends are found.

    Whatever doesn't fit is read again without a shape, so that its error can say more.
    """

    op: str
    n: int | str | None = None
    job: dict[str, Any] | None = None
    args: list[msgspec.Raw] | None = None
    jobs: list[dict[str, Any]] | None = None
    key: str = ""
    finish: list[_Finish] = []
    fail: list[dict[str, Any]] = []
    release: list[list[int]] = []
    want: int = 0
    wait: int = 0
    queues: list[str] = msgspec.field(default_factory=lambda: [DEFAULT_QUEUE])


_decode = msgspec.json.Decoder(_Said).decode


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
            quick = _quick(line)
            if quick is not None:
                number = quick.n
                if quick.op == "work":
                    self._work_on(number, quick)
                else:
                    self._enqueue_jobs(number, _many(quick), quick.key)
                return
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
        self._answer(
            {"n": number, "session": self._session.worker, "lease": lease, "beat": lease // BEATS}
        )

    def _enqueue(self, number: object, said: dict[str, Any]) -> None:
        self._enqueue_jobs(number, _jobs_in(said), said.get("key", ""))

    def _enqueue_jobs(self, number: object, jobs: Sequence[NewJob], key: object) -> None:
        if len(jobs) > MOST:
            raise AtlasError("job.invalid", f"{len(jobs)} jobs in one request, at most {MOST}")
        if not isinstance(key, str) or len(key) > 500:
            raise AtlasError("job.invalid", "key: expected text of at most 500 characters")

        def answer(found: Sequence[Enqueued]) -> None:
            self._answer({"n": number, "jobs": found})

        self._wait(number, self._engine.enqueue(jobs, idempotency_key=key), answer)

    def _work(self, number: object, said: dict[str, Any]) -> None:
        session = self._worker()
        self._exchange(number, session, settlements_of(said), _ask_in(session, said))

    def _work_on(self, number: object, said: _Said) -> None:
        session = self._worker()
        settlements: list[Settlement] = [
            Finish(*one) if one.result == "" else _result_checked(one) for one in said.finish
        ]
        if said.fail or said.release:
            settlements += settlements_of({"fail": said.fail, "release": said.release})
        ask = None
        if said.want:
            ask = _ask_in(session, {"want": said.want, "wait": said.wait, "queues": said.queues})
        self._exchange(number, session, settlements, ask)

    def _exchange(
        self, number: object, session: Session, said: list[Settlement], ask: ClaimAsk | None
    ) -> None:
        settlements = self._engine.continued(session, said)

        def answer(found: tuple[Sequence[bool], Sequence[Claimed]]) -> None:
            held, jobs = found
            self._engine.settled(session, settlements, held)
            self._engine.given(session, jobs)
            body: dict[str, Any] = {"n": number, "jobs": [_on_the_wire(job) for job in jobs]}
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
                self._engine.failed(error)
                self._refuse(number, error)
            else:
                _log.error("a request failed", exc_info=error)
                self._refuse(number, AtlasError("internal", "an unexpected error"))

        future.add_done_callback(done)

    def _answer(self, body: dict[str, Any]) -> None:
        self._out.append(_encode(body))
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
    make = _template(said["job"])._replace
    each = said.get("args")
    if type(each) is not list:
        raise AtlasError("job.invalid", "args: expected a list, the arguments of each job")
    return [make(args=arguments(one, f"args[{index}]")) for index, one in enumerate(each)]


def _template(said: object) -> NewJob:
    if type(said) is not dict or "args" in said:
        raise AtlasError("job.invalid", "job: expected a job without its arguments")
    if said.get("unique"):
        raise AtlasError("job.invalid", "job.unique: a key stands for one job", hint="use `jobs`")
    return new_job(said, "job")


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
    return "" if value is None else _encode(value).decode()


def _quick(line: bytes) -> _Said | None:
    """A request of the two frequent kinds in its right shape; None for any other."""
    try:
        said = _decode(line)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as error:
        raise AtlasError("request.invalid", f"a request that is no JSON: {error}") from None
    if said.op == "enqueue":
        return None if (said.jobs if said.job is None else said.args) is None else said
    return said if said.op == "work" else None


def _many(said: _Said) -> Sequence[NewJob]:
    if said.job is None:
        return new_jobs(said.jobs)
    queue, kind, _, *rest = _template(said.job)
    make = NewJob._make
    found = []
    for index, raw in enumerate(said.args or ()):
        text = str(raw, "utf-8")
        if text[0] != "{" or len(text) > ARGS_LIMIT:
            text = arguments(json.loads(text), f"args[{index}]")  # which says what is wrong
        found.append(make((queue, kind, text, *rest)))
    return found


def _result_checked(one: _Finish) -> Finish:
    (found,) = settlements_of({"finish": [one]})
    assert isinstance(found, Finish)
    return found


def _on_the_wire(job: Claimed) -> tuple[Any, ...]:
    """The job with its arguments and options as the JSON that they are, not as text of it."""
    options = msgspec.Raw(job.options) if job.options else None
    return (*job[:6], msgspec.Raw(job.args), *job[7:15], options)
