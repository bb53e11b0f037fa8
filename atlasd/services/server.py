"""`services.sock`: core's way in. Requests are answered at once; facts and descriptors follow."""

import os
import pwd
import socket
import struct
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import atlasd
from atlasd.errors import AtlasError
from atlasd.services import snapshot, upgrade
from atlasd.services.connection import Body, Connection
from atlasd.services.requests import Requests
from atlasd.services.signals import signal_number
from atlasd.services.spec import policy_from_wire, spec_from_wire
from atlasd.states import Wanted

if TYPE_CHECKING:
    from atlasd.services.supervisor import Supervisor

FAREWELL = 1.0
"""Seconds that a peer has for what is still queued when this role ends."""
REST = 1.0
"""Seconds without accepting after the kernel had no descriptor for a new connection."""

Handler = Callable[[Connection, Body], Mapping[str, object] | None]


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
        self.requests = Requests(supervisor)
        self.loop = supervisor.loop
        self.listener = listener
        self._capabilities = capabilities
        self._upgrade = upgrade
        self._leave = leave
        self._started = str(supervisor.clock.monotonic())
        self._connections: dict[Connection, Callable[[], None] | None] = {}
        """Each with how to stop telling it facts."""
        self._allowed = {0, os.geteuid()}
        try:
            self._allowed.add(pwd.getpwnam("atlasd").pw_uid)
        except KeyError:
            pass
        listener.setblocking(False)
        self._listen()
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

    def _listen(self) -> None:
        if self.listener.fileno() >= 0:
            self.loop.watch(self.listener.fileno(), lambda _mask: self._accept())

    def _accept(self) -> None:
        try:
            made, _ = self.listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # no descriptor is free: the connection waits, and must not spin the loop
            self.loop.unwatch(self.listener.fileno())
            self.loop.call_later(REST, self._listen)
            return
        # Whoever can speak here can have programs run as any user: root, ourselves and the user
        # that core runs as, and nobody because of a group.
        peer = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", peer)
        if uid not in self._allowed:
            made.close()
            return
        connection = Connection(self.loop, made, receive=self._receive, gone=self._gone)
        self._connections[connection] = None

    def _gone(self, connection: Connection) -> None:
        unlisten = self._connections.pop(connection, None)
        if unlisten is not None:
            unlisten()
        self.supervisor.effects.held.disconnect(connection.send_descriptors)

    def _receive(self, connection: Connection, body: Body) -> None:
        self.supervisor.write_records()
        request = body.get("id")
        handler = self.operations.get(str(body.get("op")))
        try:
            if handler is None:
                raise AtlasError(
                    "operation.unknown",
                    f"services knows no operation {body.get('op')!r}",
                    hint="core and services differ in version: upgrade both",
                )
            answer = handler(connection, body)
        except AtlasError as error:
            connection.send({"id": request, **error.to_wire()})
        except (ValueError, TypeError) as error:
            wrong = AtlasError("request.invalid", str(error))
            connection.send({"id": request, **wrong.to_wire()})
        except Exception as error:  # noqa: BLE001  a bug costs this request, and nothing else
            # Its text may hold what it was about, secrets included: that stays in the own log.
            self.loop.report(f"unexpected error in {body.get('op')}\n{traceback.format_exc()}")
            bug = AtlasError(
                "internal",
                f"unexpected error in services ({type(error).__name__})",
                hint="its log says more",
            )
            connection.send({"id": request, **bug.to_wire()})
        else:
            if answer is not None:
                connection.send({"id": request, "ok": answer})

    def close(self) -> None:
        """Take no more requests; what was answered is sent, to whoever takes it within a second."""
        self.loop.unwatch(self.listener.fileno())
        self.listener.close()
        for connection in list(self._connections):
            connection.finish(FAREWELL)

    # ------------------------------------------------------------------ operations

    def _hello(self, connection: Connection, body: Body) -> Mapping[str, object]:
        held = self.supervisor.effects.held

        def connect() -> None:
            if connection.is_open:
                held.connect(connection.send_descriptors)

        self.loop.call_soon(connect)  # after the answer
        return {
            "version": atlasd.__version__,
            "pid": os.getpid(),
            "boot_id": self.supervisor.effects.boot_id,
            "started": self._started,
            "next_seq": self.supervisor.journal.next_seq,
            "capabilities": self._capabilities(),
            "last_upgrade": upgrade.last,
        }

    def _apply(self, _connection: Connection, body: Body) -> Mapping[str, object]:
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

    def _snapshot(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        names = body.get("services")
        return snapshot.take(self.supervisor, names if isinstance(names, list) else None)

    def _start(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        done = self.requests.start(_service(body), _instance(body), actor=_actor(body))
        return {"affected": done}

    def _stop(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        timeout = body.get("timeout")
        done = self.requests.stop(
            _service(body),
            _instance(body),
            actor=_actor(body),
            timeout=float(timeout) if isinstance(timeout, int | float) else None,
        )
        return {"affected": done}

    def _restart(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        done = self.requests.restart(_service(body), _instance(body), actor=_actor(body))
        return {"affected": done}

    def _reload(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        done = self.requests.reload(_service(body), _instance(body), actor=_actor(body))
        return {"affected": done}

    def _pause(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        self.requests.pause(_service(body), actor=_actor(body))
        return {}

    def _signal(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        name = str(body.get("signal"))
        try:
            signal_number(name)
        except ValueError as error:
            raise AtlasError(
                "request.invalid", str(error), hint="for example HUP, USR1, TERM, RTMIN+3 or 15"
            ) from None
        done = self.requests.signal(_service(body), _instance(body), name, actor=_actor(body))
        return {"affected": done}

    def _scale(self, _connection: Connection, body: Body) -> Mapping[str, object]:
        instances = body.get("instances")
        if not isinstance(instances, int) or not 0 <= instances <= 1000:
            raise AtlasError(
                "request.invalid",
                f"cannot scale to {instances!r} instances",
                hint="a whole number from 0 to 1000",
            )
        actions = self.requests.scale(_service(body), instances, actor=_actor(body))
        return {"actions": [a.to_wire() for a in actions]}

    def _subscribe(self, connection: Connection, body: Body) -> Mapping[str, object]:
        since = body.get("since")
        journal = self.supervisor.journal
        missed, lost = journal.since(since) if isinstance(since, int) else ([], 0)
        before = self._connections.get(connection)
        if before is not None:
            before()

        def begin() -> None:
            for line in missed:
                connection.queue(line)

        # After the answer, which is sent when the handler returns; so are facts of this very turn.
        self.loop.call_soon(begin)
        self._connections[connection] = journal.listen(
            lambda line: self.loop.call_soon(lambda: connection.queue(line))
        )
        return {"next_seq": journal.next_seq, "lost": lost}

    def _offer(self, connection: Connection, body: Body) -> Mapping[str, object]:
        names = body.get("names")
        names = [str(n) for n in names] if isinstance(names, list) else []
        fds = connection.take_descriptors(len(names))
        taken = self.supervisor.effects.held.offer(dict(zip(names, fds, strict=False)))
        self.supervisor.take_back()
        return {"taken": taken}

    def _do_upgrade(self, connection: Connection, body: Body) -> None:
        # Answered only when it is refused: else the connection ends, and the next hello tells.
        executable, request = body.get("executable"), body.get("id")
        self._upgrade(
            str(executable) if executable else None,
            lambda error: connection.send({"id": request, **error.to_wire()}),
        )

    def _shutdown(self, connection: Connection, body: Body) -> Mapping[str, object] | None:
        if body.get("keep_services"):
            self.loop.call_soon(self._leave)
            return {}
        request = body.get("id")

        def done() -> None:
            connection.send({"id": request, "ok": {}})
            self._leave()

        self.supervisor.stop_all(done, actor=_actor(body))
        return None


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
