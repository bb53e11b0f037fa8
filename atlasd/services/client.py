"""Core's side of `services.sock`: requests with time limits, events, held descriptors."""

import array
import asyncio
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atlasd.errors import CODES, AtlasError
from atlasd.services.protocol import EventBody

Connected = Callable[["Hello"], object]
Disconnected = Callable[[str], object]
EventSeen = Callable[[EventBody], object]
Lost = Callable[[int], object]

MAX_LINE = 64 * 1024 * 1024
"""Bytes; a longer line is no message of ours, and the connection is given up."""
MAX_DESCRIPTORS = 200
"""Descriptors in one message; the kernel takes 253."""
RETRY_FIRST = 0.02
RETRY_CAP = 1.0
"""Seconds between two tries to reach services; the time doubles from the first to the cap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """How the services role introduced itself."""

    pid: int
    version: str
    boot_id: str
    started: str
    """Identifies the process beside its pid: a start time, as the role writes it."""
    next_seq: int
    capabilities: Mapping[str, object] = field(default_factory=dict)
    last_upgrade: Mapping[str, object] = field(default_factory=dict)
    """What came of the last upgrade in place, `ok` and `detail`; empty when there was none."""

    @property
    def identity(self) -> str:
        """Another value for every process that ever was the services role on this host."""
        return f"{self.boot_id}/{self.pid}/{self.started}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cursor:
    """How far the events of one services process have been read."""

    identity: str
    seq: int
    """The next one that has not been read."""


class HeldDescriptors:
    """Duplicates of the pipes and sockets that services entrusts to core, by name.

    What a predecessor left is kept apart from what its successor entrusts until it was offered:
    under the same name stand two different things, and in the older one may be what nobody has
    heard yet.
    """

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._left: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> tuple[str, ...]:
        """What is held, oldest first."""
        return tuple(dict.fromkeys((*self._left, *self._held)))

    def take(self, names: Sequence[str], descriptors: Sequence[int]) -> None:
        """Keep each descriptor under its name; the same owner's earlier one is closed."""
        for name, descriptor in zip(names, descriptors, strict=True):
            _close(self._held, name)
            self._held[name] = descriptor

    def drop(self, names: Iterable[str]) -> None:
        """Close what is held under these names; unknown ones are passed over."""
        for name in names:
            _close(self._held if name in self._held else self._left, name)

    def outlive(self) -> None:
        """Who entrusted all this has gone; it is what a predecessor left from now on."""
        for name, descriptor in self._held.items():
            _close(self._left, name)
            self._left[name] = descriptor
        self._held = {}

    def to_offer(self) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
        """What a predecessor entrusted, in portions that fit one message each."""
        names = tuple(self._left)
        return [
            (part, tuple(self._left[name] for name in part))
            for part in (
                names[at : at + MAX_DESCRIPTORS] for at in range(0, len(names), MAX_DESCRIPTORS)
            )
        ]

    def settle(self, offered: Iterable[str], taken: Collection[str]) -> None:
        """Close what was offered and not taken.

        What was taken is kept for as long as the successor has entrusted nothing else under that
        name: it might die before it does.
        """
        for name in offered:
            if name in taken and name in self._left and name not in self._held:
                self._held[name] = self._left.pop(name)
            else:
                _close(self._left, name)

    def forget_the_left(self) -> None:
        """Close what a predecessor left: its owner lives, and has entrusted everything anew."""
        for name in tuple(self._left):
            _close(self._left, name)

    def close(self) -> None:
        """Close everything."""
        for held in (self._held, self._left):
            for name in tuple(held):
                _close(held, name)


def _close(held: dict[str, int], name: str) -> None:
    descriptor = held.pop(name, None)
    if descriptor is not None:
        os.close(descriptor)


class ServicesClient:
    """The only client of the services role: connects, and connects again, until it is cancelled.

    The callbacks run in the event loop and must return at once. `connected` is called after the
    held descriptors were given back and the subscription stands; `event` for each fact once, in
    order; `lost` with the number of facts that services no longer had.
    """

    def __init__(
        self,
        path: str,
        *,
        version: str,
        cursor: Cursor | None = None,
        connected: Connected = lambda _hello: None,
        disconnected: Disconnected = lambda _why: None,
        event: EventSeen = lambda _event: None,
        lost: Lost = lambda _count: None,
    ) -> None:
        self.path = path
        self.hello: Hello | None = None
        """Who answers now; None while nobody does."""
        self.held = HeldDescriptors()
        self.cursor = cursor
        self.why_not = "not tried yet"
        """Why nobody answers, while nobody does."""
        self._version = version
        self._connected = connected
        self._disconnected = disconnected
        self._event = event
        self._lost = lost
        self._connection: _Connection | None = None
        self._given_back_to: str | None = None

    @property
    def connected(self) -> bool:
        """Whether services answers, so that a call makes sense."""
        return self.hello is not None

    async def run(self) -> None:
        """Keep the connection up; ends only by being cancelled."""
        pause = RETRY_FIRST
        try:
            while True:
                try:
                    connection = await self._connect()
                    pause = RETRY_FIRST
                    await self._introduce(connection)
                    assert self.hello is not None
                    self._connected(self.hello)
                    self.why_not = await connection.closed
                except AtlasError as error:
                    self.why_not = error.message
                self._drop_connection()
                await asyncio.sleep(pause)
                pause = min(RETRY_CAP, pause * 2)
        finally:
            self._drop_connection()
            self.held.close()

    async def call(self, op: str, *, timeout: float = 10.0, **fields: object) -> dict[str, Any]:
        """The `ok` of services' answer to `op` (see `atlasd.services.protocol`).

        Raises the `AtlasError` that services answered with, or `services.unreachable` when it is
        not there, goes away, or hasn't answered within `timeout` seconds.
        """
        connection = self._connection
        if connection is None or self.hello is None:
            raise _unreachable(f"the services role does not answer at {self.path}: {self.why_not}")
        return await connection.request(op, fields, (), timeout)

    async def _connect(self) -> "_Connection":
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        link.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(link, self.path)
        except OSError as error:
            link.close()
            raise _unreachable(error.strerror or str(error)) from None
        except BaseException:
            link.close()
            raise
        self._connection = _Connection(link, self._on_message)
        return self._connection

    async def _introduce(self, connection: "_Connection") -> None:
        body = await connection.request("hello", {"version": self._version}, (), 10.0)
        hello = Hello(
            pid=int(body["pid"]),
            version=str(body["version"]),
            boot_id=str(body.get("boot_id", "")),
            started=str(body.get("started", "")),
            next_seq=int(body.get("next_seq", 0)),
            capabilities=dict(body.get("capabilities") or {}),
            last_upgrade=dict(body.get("last_upgrade") or {}),
        )
        if self._given_back_to != hello.identity:
            await self._give_back(connection)
        else:
            self.held.forget_the_left()
        self._given_back_to = hello.identity
        await self._subscribe(connection, hello)
        self.hello = hello

    async def _give_back(self, connection: "_Connection") -> None:
        # Always asked, even with nothing in hand: the successor waits for it before it gives up
        # sockets that only core could still have.
        for names, descriptors in self.held.to_offer() or [((), ())]:
            answer = await connection.request("offer", {"names": list(names)}, descriptors, 30.0)
            self.held.settle(names, set(answer.get("taken", ())))

    async def _subscribe(self, connection: "_Connection", hello: Hello) -> None:
        known = self.cursor if self.cursor and self.cursor.identity == hello.identity else None
        if known and hello.next_seq < known.seq:
            known = None  # the same process has begun to count anew: it was upgraded in place
        since = known.seq if known else 0
        self.cursor = Cursor(identity=hello.identity, seq=since)
        answer = await connection.request("subscribe", {"since": since}, (), 10.0)
        lost = int(answer.get("lost") or 0)
        if lost and known:
            self._lost(lost)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(self.why_not)
            self.held.outlive()
        if self.hello is not None:
            self.hello = None
            self._disconnected(self.why_not)

    def _on_message(self, body: dict[str, Any], connection: "_Connection") -> None:
        if "event" in body:
            self._on_event(body["event"])
        else:
            names = [str(name) for name in body.get("hold", ())]
            descriptors = connection.descriptors(len(names))
            self.held.take(names[: len(descriptors)], descriptors)
            self.held.drop(body.get("drop", ()))

    def _on_event(self, event: EventBody) -> None:
        cursor = self.cursor
        seq = int(event.get("seq", 0))
        if cursor is not None:
            if seq < cursor.seq:
                return  # read before the connection broke
            if seq > cursor.seq > 0:
                self._lost(seq - cursor.seq)
            self.cursor = Cursor(identity=cursor.identity, seq=seq + 1)
        self._event(event)


class _Connection:
    """One connected socket: lines in and out, descriptors beside them, requests by number."""

    def __init__(
        self, link: socket.socket, on_message: Callable[[dict[str, Any], "_Connection"], None]
    ) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._incoming = bytearray()
        self._received: deque[int] = deque()
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._open = True
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, once the connection is gone."""
        self._loop.add_reader(link, self._read)

    async def request(
        self, op: str, fields: Mapping[str, object], descriptors: Sequence[int], timeout: float
    ) -> dict[str, Any]:
        """The `ok` of the answer; raises as `ServicesClient.call` does."""
        if not self._open:
            raise _unreachable("the services role closed the connection")
        self._number += 1
        number = self._number
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = future
        text = json.dumps({"id": number, "op": op, **fields}, separators=(",", ":"))
        self._outgoing.append((memoryview(text.encode() + b"\n"), tuple(descriptors)))
        try:
            self._write()
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the answer.
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise _unreachable(
                f"the services role did not answer {op!r} within {timeout:g} s"
            ) from None
        finally:
            self._waiting.pop(number, None)

    def descriptors(self, count: int) -> list[int]:
        """The next `count` received descriptors, in the order in which they were sent."""
        return [self._received.popleft() for _ in range(min(count, len(self._received)))]

    def close(self, why: str) -> None:
        """Give everything up; those that wait for an answer hear why."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._link)
        self._loop.remove_writer(self._link)
        self._link.close()
        while self._received:
            os.close(self._received.popleft())
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_unreachable(f"the services role went away: {why}"))
        if not self.closed.done():
            self.closed.set_result(why)

    def _write(self) -> None:
        try:
            while self._outgoing:
                data, descriptors = self._outgoing[0]
                extra = (
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                    if descriptors
                    else []
                )
                sent = self._link.sendmsg([data], extra)
                if sent < len(data):
                    # Descriptors leave with the first byte; they must not be sent twice.
                    self._outgoing[0] = (data[sent:], ())
                else:
                    self._outgoing.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._link, self._write)
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        self._loop.remove_writer(self._link)

    def _read(self) -> None:
        try:
            data, extra, flags, _ = self._link.recvmsg(
                262144, socket.CMSG_SPACE(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError as error:
            self.close(error.strerror or errno.errorcode.get(error.errno or 0, "error"))
            return
        for level, kind, body in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(body[: len(body) - len(body) % numbers.itemsize])
                self._received.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            # Names and descriptors would be mixed up from here on: start anew.
            self.close("descriptors were cut off; is RLIMIT_NOFILE too low?")
            return
        if not data:
            self.close("the connection was closed")
            return
        *lines, rest = (bytes(self._incoming) + data).split(b"\n")
        self._incoming = bytearray(rest)
        if len(self._incoming) > MAX_LINE:
            self.close("a line without an end")
            return
        for line in lines:
            if self._open:
                self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            body = json.loads(line)
        except ValueError:
            self.close("it sent something that is no JSON")
            return
        if not isinstance(body, dict):
            self.close("it sent something that is no JSON object")
            return
        if "id" not in body:
            self._on_message(body, self)
            return
        future = self._waiting.get(body["id"])
        if future is None or future.done():
            return  # its caller has given up waiting
        if "error" in body:
            future.set_exception(_from_wire(body["error"]))
        else:
            future.set_result(body.get("ok") or {})


def _from_wire(body: Mapping[str, Any]) -> AtlasError:
    code = str(body.get("code", "internal"))
    return AtlasError(
        code if code in CODES else "internal",
        str(body.get("message", "the services role answered with an error")),
        hint=str(body.get("hint", "")),
        details=body.get("details") if isinstance(body.get("details"), dict) else None,
    )


def _unreachable(why: str) -> AtlasError:
    return AtlasError(
        "services.unreachable",
        why,
        hint="the services themselves go on; start the role with `systemctl start atlas-services`"
        " or `atlasd run`",
    )
