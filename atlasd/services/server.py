"""`services.sock`: core's way in. Requests are answered at once; facts and descriptors follow."""

import array
import json
import os
import pwd
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import atlasd
from atlasd.errors import AtlasError
from atlasd.services import snapshot, upgrade
from atlasd.services.loop import HANGUP, READ, WRITE
from atlasd.services.protocol import encode
from atlasd.services.spec import policy_from_wire, spec_from_wire
from atlasd.services.unit import signal_number
from atlasd.states import Wanted

if TYPE_CHECKING:
    from atlasd.services.supervisor import Supervisor

MAX_LINE = 64 * 1024 * 1024
MAX_BACKLOG = 64 * 1024 * 1024
"""Bytes that a client may leave unread before it is cut off; it can come back and catch up."""
FAREWELL = 1.0
"""Seconds that a peer has for what is still queued when this role ends."""
DESCRIPTORS = 200
"""In one message; the kernel takes 253."""

Body = Mapping[str, object]
Handler = Callable[["Connection", Body], Mapping[str, object] | None]


class Server:
    """Accepts connections and binds operations to the supervisor."""

    def __init__(
        self,
        supervisor: "Supervisor",
        listener: socket.socket,
        *,
        capabilities: Callable[[], Mapping[str, object]],
        upgrade: Callable[[str | None, Callable[[AtlasError], object]], None],
        leave: Callable[[], None],
    ) -> None:
        self.supervisor = supervisor
        self.loop = supervisor.loop
        self.listener = listener
        self._capabilities = capabilities
        self._upgrade = upgrade
        self._leave = leave
        self._started = str(supervisor.clock.monotonic())
        self._connections: set[Connection] = set()
        self._allowed = {0, os.geteuid()}
        try:
            self._allowed.add(pwd.getpwnam("atlasd").pw_uid)
        except KeyError:
            pass
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), lambda _mask: self._accept())
        self.operations: dict[str, Handler] = {
            "hello": self._hello,
            "apply": self._apply,
            "snapshot": self._snapshot,
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "reload": self._reload,
            "pause": self._pause,
            "signal": self._signal,
            "scale": self._scale,
            "subscribe": self._subscribe,
            "offer": self._offer,
            "upgrade": self._do_upgrade,
            "shutdown": self._shutdown,
        }

    def _accept(self) -> None:
        try:
            made, _ = self.listener.accept()
        except OSError:
            return
        # Whoever can speak here can have programs run as any user: root, ourselves and the user
        # that core runs as, and nobody because of a group.
        peer = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", peer)
        if uid not in self._allowed:
            made.close()
            return
        self._connections.add(Connection(self, made))

    def gone(self, connection: "Connection") -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    def close(self) -> None:
        """Take no more requests; what was answered is sent, to whoever takes it within a second."""
        self.loop.unwatch(self.listener.fileno())
        self.listener.close()
        for connection in list(self._connections):
            connection.finish(FAREWELL)

    # ------------------------------------------------------------------ operations

    def _hello(self, connection: "Connection", body: Body) -> Mapping[str, object]:
        held = self.supervisor.effects.held
        connection.is_core = True
        self.loop.call_soon(lambda: held.connect(connection.send_descriptors))
        return {
            "version": atlasd.__version__,
            "pid": os.getpid(),
            "boot_id": self.supervisor.effects.boot_id,
            "started": self._started,
            "next_seq": self.supervisor.journal.next_seq,
            "capabilities": self._capabilities(),
            "last_upgrade": upgrade.last,
        }

    def _apply(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        services, wanted = body.get("services"), body.get("wanted")
        host = body.get("host")
        if not isinstance(services, list) or not isinstance(wanted, Mapping):
            raise ValueError("services: a list, and wanted: an object, are needed")
        actions = self.supervisor.apply(
            [spec_from_wire(s) for s in services],
            {str(k): Wanted(v) for k, v in wanted.items()},
            policy_from_wire(host if isinstance(host, Mapping) else {}),
            actor=_actor(body),
            dry_run=bool(body.get("dry_run")),
        )
        return {"actions": [a.to_wire() for a in actions]}

    def _snapshot(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        names = body.get("services")
        return snapshot.take(self.supervisor, names if isinstance(names, list) else None)

    def _start(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        done = self.supervisor.start(_service(body), _instance(body), actor=_actor(body))
        return {"affected": done}

    def _stop(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        timeout = body.get("timeout")
        done = self.supervisor.stop(
            _service(body),
            _instance(body),
            actor=_actor(body),
            timeout=float(timeout) if isinstance(timeout, int | float) else None,
        )
        return {"affected": done}

    def _restart(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        done = self.supervisor.restart(_service(body), _instance(body), actor=_actor(body))
        return {"affected": done}

    def _reload(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        done = self.supervisor.reload(_service(body), _instance(body), actor=_actor(body))
        return {"affected": done}

    def _pause(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        self.supervisor.pause(_service(body), actor=_actor(body))
        return {}

    def _signal(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        name = str(body.get("signal"))
        try:
            signal_number(name)
        except ValueError as error:
            raise AtlasError(
                "request.invalid", str(error), hint="for example HUP, USR1, TERM, RTMIN+3 or 15"
            ) from None
        done = self.supervisor.signal(_service(body), _instance(body), name, actor=_actor(body))
        return {"affected": done}

    def _scale(self, _connection: "Connection", body: Body) -> Mapping[str, object]:
        instances = body.get("instances")
        if not isinstance(instances, int) or not 0 <= instances <= 1000:
            raise AtlasError(
                "request.invalid",
                f"cannot scale to {instances!r} instances",
                hint="a whole number from 0 to 1000",
            )
        actions = self.supervisor.scale(_service(body), instances, actor=_actor(body))
        return {"actions": [a.to_wire() for a in actions]}

    def _subscribe(self, connection: "Connection", body: Body) -> Mapping[str, object]:
        since = body.get("since")
        journal = self.supervisor.journal
        missed, lost = journal.since(since) if isinstance(since, int) else ([], 0)
        connection.subscribe(missed)
        return {"next_seq": journal.next_seq, "lost": lost}

    def _offer(self, connection: "Connection", body: Body) -> Mapping[str, object]:
        names = body.get("names")
        names = [str(n) for n in names] if isinstance(names, list) else []
        fds = connection.take_descriptors(len(names))
        return {"taken": self.supervisor.effects.held.offer(dict(zip(names, fds, strict=False)))}

    def _do_upgrade(self, connection: "Connection", body: Body) -> None:
        # Answered only when it is refused: else the connection ends, and the next hello tells.
        executable, request = body.get("executable"), body.get("id")
        self._upgrade(
            str(executable) if executable else None,
            lambda error: connection.send({"id": request, **error.to_wire()}),
        )

    def _shutdown(self, connection: "Connection", body: Body) -> Mapping[str, object] | None:
        if body.get("keep_services"):
            self.loop.call_soon(self._leave)
            return {}
        request = body.get("id")

        def done() -> None:
            connection.send({"id": request, "ok": {}})
            self._leave()

        self.supervisor.stop_all(done, actor=_actor(body))
        return None


class Connection:
    """One client: lines in, lines out, descriptors beside them."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self._socket = sock
        self._loop = server.loop
        self._in = bytearray()
        self._out: deque[tuple[bytes, list[int]]] = deque()
        self._out_bytes = 0
        self._descriptors: deque[int] = deque()
        self._unlisten: Callable[[], None] | None = None
        self._writing = False
        self.is_core = False
        sock.setblocking(False)
        self._loop.watch(sock.fileno(), self._ready)

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self.flush()
        if mask & (READ | HANGUP):
            self._read()

    def _read(self) -> None:
        if self._socket.fileno() < 0:
            return
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                262144, socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._descriptors.extend(fds)
        if not data or len(self._in) > MAX_LINE:
            self.close()
            return
        self._in += data
        while (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            body = json.loads(line)
        except ValueError:
            self.close()
            return
        if not isinstance(body, dict):
            self.close()
            return
        request = body.get("id")
        handler = self._server.operations.get(str(body.get("op")))
        try:
            if handler is None:
                raise AtlasError(
                    "operation.unknown",
                    f"services knows no operation {body.get('op')!r}",
                    hint="core and services differ in version: upgrade both",
                )
            answer = handler(self, body)
        except AtlasError as error:
            self.send({"id": request, **error.to_wire()})
        except (ValueError, TypeError) as error:
            wrong = AtlasError("request.invalid", str(error))
            self.send({"id": request, **wrong.to_wire()})
        except Exception as error:
            bug = AtlasError("internal", f"unexpected error in services: {error!r}")
            self.send({"id": request, **bug.to_wire()})
            raise  # the loop reports it, with its traceback
        else:
            if answer is not None:
                self.send({"id": request, "ok": answer})

    def take_descriptors(self, count: int) -> list[int]:
        """The descriptors that came with the message."""
        return [self._descriptors.popleft() for _ in range(min(count, len(self._descriptors)))]

    def subscribe(self, missed: Sequence[bytes]) -> None:
        """Send facts from now on, after those that were missed."""
        if self._unlisten is not None:
            self._unlisten()

        def begin() -> None:
            for line in missed:
                self._queue(line)

        # After the answer, which is sent when the handler returns; so are facts of this very turn.
        self._loop.call_soon(begin)
        self._unlisten = self._server.supervisor.journal.listen(
            lambda line: self._loop.call_soon(lambda: self._queue(line))
        )

    def send_descriptors(self, new: list[tuple[str, int]], gone: list[str]) -> None:
        """Have the peer keep duplicates of descriptors, and let others go."""
        drop = list(gone)
        for start in range(0, max(1, len(new)), DESCRIPTORS):
            part = new[start : start + DESCRIPTORS]
            self.send({"hold": [n for n, _ in part], "drop": drop}, [os.dup(fd) for _, fd in part])
            drop = []

    def send(self, body: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        """Queue a line; `fds` are closed once they are sent."""
        if self._socket.fileno() < 0:
            for fd in fds:
                os.close(fd)
            return
        self._queue(encode(body).encode() + b"\n", fds)

    def _queue(self, data: bytes, fds: Sequence[int] = ()) -> None:
        if self._socket.fileno() < 0:
            return
        self._out.append((data, list(fds)))
        self._out_bytes += len(data)
        if self._out_bytes > MAX_BACKLOG:
            self.close()
        elif not self._writing:
            self.flush()

    def flush(self) -> None:
        """Send as much as the peer takes."""
        while self._out and self._socket.fileno() >= 0:
            data, fds = self._out[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:  # gone, or too slow at the end
                self.close()
                return
            for fd in fds:
                os.close(fd)
            self._out_bytes -= sent
            if sent < len(data):
                self._out[0] = (data[sent:], [])
            else:
                self._out.popleft()
        if self._socket.fileno() < 0:
            return
        waiting = bool(self._out)
        if waiting != self._writing:
            self._writing = waiting
            self._loop.watch(self._socket.fileno(), self._ready, READ | WRITE if waiting else READ)

    def finish(self, seconds: float) -> None:
        """Send what is queued, waiting for the peer that long at most, and end the connection."""
        if self._socket.fileno() >= 0:
            self._socket.settimeout(seconds)
            self.flush()
        self.close()

    def close(self) -> None:
        """End the connection."""
        if self._socket.fileno() < 0:
            return
        if self._unlisten is not None:
            self._unlisten()
        if self.is_core:
            self._server.supervisor.effects.held.disconnect(self.send_descriptors)
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for _, fds in self._out:
            for fd in fds:
                os.close(fd)
        for fd in self._descriptors:
            os.close(fd)
        self._server.gone(self)


def _service(body: Body) -> str:
    name = body.get("service")
    if not isinstance(name, str):
        raise ValueError("service: a name is needed")
    return name


def _instance(body: Body) -> int | None:
    index = body.get("instance")
    return index if isinstance(index, int) else None


def _actor(body: Body) -> str:
    return str(body.get("actor") or "")
