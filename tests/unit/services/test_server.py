"""`services.sock`: requests, answers, facts and descriptors, over a pair of sockets."""

import array
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.errors import AtlasError
from atlasd.services import snapshot
from atlasd.services.connection import Connection
from atlasd.services.server import Server
from atlasd.services.spec import Socket, to_wire
from atlasd.states import Wanted
from tests.unit.services.stage import NOTIFY, Stage, spec


class Client:
    """Core's end."""

    def __init__(self, stage: Stage, path: str) -> None:
        self.stage = stage
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.lines: list[dict[str, Any]] = []
        self.fds: list[int] = []
        self._left = b""

    def send(self, data: bytes, fds: list[int] | None = None) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds or []))]
        self.socket.sendmsg([data], rights if fds else [])

    def receive(self) -> bool:
        """Let the server work; whether the connection lives."""
        for _ in range(5):
            self.stage.turn()
            try:
                data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(253 * 4))
            except BlockingIOError:
                continue
            for _level, _kind, content in ancillary:
                fds = array.array("i")
                fds.frombytes(content)
                self.fds += list(fds)
            if not data:
                return False
            *whole, self._left = (self._left + data).split(b"\n")
            self.lines += [json.loads(line) for line in whole]
        return True

    def ask(self, op: str, fds: list[int] | None = None, **fields: object) -> dict[str, Any]:
        self.send(json.dumps({"id": len(self.lines), "op": op, **fields}).encode() + b"\n", fds)
        number = len(self.lines)
        self.receive()
        return next(line for line in self.lines[number:] if "id" in line)


class Ground:
    def __init__(self, stage: Stage, path: str) -> None:
        self.stage = stage
        self.path = path
        self.left: list[bool] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(4)
        self.server = Server(
            stage.supervisor,
            listener,
            capabilities=dict,
            upgrade=self._refuse,
            leave=lambda: self.left.append(True),
        )
        self.clients: list[Client] = []

    @staticmethod
    def _refuse(_executable: str | None, refused: Callable[[AtlasError], object]) -> None:
        refused(AtlasError("services.upgrade", "not fit"))

    def client(self) -> Client:
        self.clients.append(Client(self.stage, self.path))
        return self.clients[-1]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def ground(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    made = Ground(stage, "s")
    yield made
    made.server.close()
    for client in made.clients:
        client.socket.close()
        for fd in client.fds:
            os.close(fd)


def test_requests_are_answered_in_their_order(ground: Ground) -> None:
    client = ground.client()
    client.send(b'{"id": 1, "op": "hello"}\n{"id": 2, "op": "snapshot"}\n{"id": 3,')
    client.receive()
    client.send(b' "op": "nonsense"}\n')
    client.receive()
    answers = {line["id"]: line for line in client.lines if "id" in line}
    assert answers[1]["ok"]["pid"] == os.getpid()
    assert answers[2]["ok"]["services"] == []
    assert answers[3]["error"]["code"] == "operation.unknown"


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b"[" * 100_000 + b"\n"])
def test_whoever_speaks_nonsense_is_cut_off_and_heard_no_further(
    ground: Ground, line: bytes
) -> None:
    ground.stage.apply(spec("web"))
    client = ground.client()
    client.send(line + b'{"id": 1, "op": "stop", "service": "web"}\n')
    assert not client.receive()
    assert ground.stage.state("web") == "starting"


def test_a_bad_request_is_refused_in_words(ground: Ground) -> None:
    client = ground.client()
    bad: tuple[dict[str, Any], ...] = (
        {"op": "stop"},
        {"op": "apply", "services": 3},
        {"op": "apply", "services": [{"name": "x"}], "wanted": {}},
        {"op": "scale", "service": "web", "instances": -1},
        {"op": "signal", "service": "web", "signal": "NOSUCH"},
    )
    for fields in bad:
        assert client.ask(**fields)["error"]["code"] == "request.invalid"
    assert client.ask("stop", service="wbe")["error"]["code"] == "service.unknown"


def test_a_bug_costs_its_request_alone_and_tells_no_secret(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("PASSWORD=hunter2")

    monkeypatch.setattr(ground.stage.supervisor, "apply", fail)
    client = ground.client()
    client.send(
        b'{"id": 1, "op": "apply", "services": [], "wanted": {}}\n{"id": 2, "op": "snapshot"}\n'
    )
    client.receive()
    assert [line["id"] for line in client.lines] == [1, 2]
    assert client.lines[0]["error"]["code"] == "internal"
    assert "hunter2" not in json.dumps(client.lines)
    assert len(ground.stage.reports) == 1


def test_apply_makes_a_target_and_says_what_it_does(ground: Ground) -> None:
    client = ground.client()
    body: dict[str, Any] = {"services": [to_wire(spec("web"))], "wanted": {"web": "up"}, "host": {}}
    done = client.ask("apply", **body, actor="uid:0")["ok"]["actions"]
    assert [(a["service"], a["instance"], a["action"]) for a in done] == [("web", 0, "start")]
    assert client.ask("apply", **body)["ok"]["actions"] == []
    assert ground.stage.told("transition", new="starting")[0]["actor"] == "uid:0"


def test_facts_are_told_from_where_a_client_was(ground: Ground) -> None:
    ground.stage.apply(spec("web"))
    client = ground.client()
    known = ground.stage.supervisor.journal.next_seq
    answer = client.ask("subscribe", since=0)["ok"]
    assert answer == {"next_seq": known, "lost": 0}
    assert [e["event"]["seq"] for e in client.lines if "event" in e] == list(range(1, known))
    ground.stage.wind(2)
    client.receive()
    told = [e["event"] for e in client.lines if "event" in e]
    assert [e["seq"] for e in told] == list(range(1, ground.stage.supervisor.journal.next_seq))
    assert "running" in [e["new"] for e in told if e["kind"] == "transition"]


def test_subscribing_again_tells_nothing_twice(ground: Ground) -> None:
    client = ground.client()
    client.ask("subscribe", since=1)
    client.ask("subscribe")
    ground.stage.apply(spec("web"))
    client.receive()
    seqs = [e["event"]["seq"] for e in client.lines if "event" in e]
    assert len(seqs) == len(set(seqs)) > 0


def test_whoever_has_said_hello_is_given_descriptors_to_hold(ground: Ground) -> None:
    client = ground.client()
    client.ask("hello")
    ground.stage.apply(spec("web"))
    client.receive()
    holds = [n for line in client.lines for n in line.get("hold", ())]
    assert holds == ["pidfd/web/0"]
    assert len(client.fds) == 1
    client.socket.close()
    ground.stage.turn()
    before = len(list(Path("/proc/self/fd").iterdir()))
    ground.stage.dies("web")
    ground.stage.turn()
    after = len(list(Path("/proc/self/fd").iterdir()))
    assert after <= before, "nobody is told any more"


def test_a_socket_that_is_given_back_is_kept_though_nothing_is_started(ground: Ground) -> None:
    web = spec("web", sockets=(Socket(name="http", address="unix:web.sock"),))
    ground.stage.apply(web, wanted={"web": Wanted.DOWN})
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("web.sock")
        listening.listen()
        answer = ground.client().ask(
            "offer", [listening.fileno()], names=["socket/web/http", "missing"]
        )
    assert answer["ok"]["taken"] == ["socket/web/http"]
    ground.stage.wind(10)
    assert list(ground.stage.supervisor.services["web"].sockets) == ["http"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("web.sock")


def test_shutdown_is_answered_once_everything_is_stopped(ground: Ground) -> None:
    ground.stage.apply(spec("web"))
    client = ground.client()
    client.send(b'{"id": 7, "op": "shutdown"}\n')
    client.receive()
    assert (client.lines, ground.left) == ([], [])
    ground.stage.dies("web")
    client.receive()
    assert (client.lines, ground.left) == ([{"id": 7, "ok": {}}], [True])


def test_what_a_slow_peer_does_not_take_is_sent_when_it_does(stage: Stage) -> None:
    ours, theirs = socket.socketpair()
    gone: list[Connection] = []
    connection = Connection(stage.loop, ours, receive=lambda *_: None, gone=gone.append)
    text = "x" * 200_000
    for number in range(20):
        connection.send({"n": number, "text": text})
    theirs.setblocking(False)
    received = b""
    while received.count(b"\n") < 20:
        stage.turn()
        try:
            received += theirs.recv(1 << 20)
        except BlockingIOError:
            pass
    assert [json.loads(line)["n"] for line in received.splitlines()] == list(range(20))
    theirs.close()
    stage.turn()
    assert gone == [connection]
    assert not connection.is_open


def test_an_upgrade_that_is_refused_is_answered(ground: Ground) -> None:
    answer = ground.client().ask("upgrade", executable="/bin/false")
    assert answer["error"]["message"] == "not fit"


def test_whoever_is_told_of_a_state_finds_it_in_a_successor_too(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.stage.apply(spec("web", ready=NOTIFY))
    client = ground.client()
    client.receive()
    written: list[str] = []
    take = snapshot.take

    def look(*arguments: Any) -> Any:
        record = ground.stage.folder / "run/instances/web.0.json"
        written.append(json.loads(record.read_text())["state"])
        return take(*arguments)

    monkeypatch.setattr(snapshot, "take", look)
    client.send(b'{"id": 1, "op": "snapshot"}\n')
    ground.stage.unit("web").machine.ready(ground.stage.clock.monotonic())
    client.receive()
    assert client.lines[0]["ok"]["services"][0]["instances"][0]["state"] == "running"
    assert written == ["running"]
