"""Core's link to services against a services role that misbehaves in every way it can."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from atlasd.errors import AtlasError
from atlasd.services.client import Cursor, Hello, ServicesClient
from atlasd.services.protocol import EventBody


class Double:
    """A services role of a few lines, which can be told to lie, to be silent and to fall."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = 100
        self.started = "1"
        self.events: list[dict[str, Any]] = []
        self.lost = 0
        self.since: list[int] = []
        self.asked: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], bytes | None] = self.well
        self.writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    def tell(self, **fields: Any) -> None:
        """A fact happens."""
        seq = self.events[-1]["seq"] + 1 if self.events else 1
        event = {"seq": seq, "time": 1.0, "kind": "status", "service": "web", **fields}
        self.events.append(event)
        for writer in self.writers:
            writer.write(json.dumps({"event": event}).encode() + b"\n")

    def well(self, asked: dict[str, Any]) -> bytes | None:
        """The answer of one that works."""
        ok: dict[str, Any] = {}
        if asked["op"] == "hello":
            next_seq = self.events[-1]["seq"] + 1 if self.events else 1
            ok = {
                "version": "0",
                "pid": self.pid,
                "boot_id": "b",
                "started": self.started,
                "next_seq": next_seq,
                "capabilities": {"root": {"available": True}},
            }
        elif asked["op"] == "offer":
            ok = {"taken": []}
        elif asked["op"] == "subscribe":
            self.since.append(asked["since"])
            ok = {"next_seq": 1, "lost": self.lost}
        lines = [{"id": asked["id"], "ok": ok}]
        if asked["op"] == "subscribe":
            lines += [{"event": e} for e in self.events if e["seq"] >= asked["since"]]
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    async def up(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def down(self) -> None:
        """Fall."""
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.close()
        self.writers.clear()
        Path(self.path).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while line := await reader.readline():
            asked = json.loads(line)
            self.asked.append(asked)
            answer = self.answer(asked)
            if answer is not None:
                writer.write(answer)


class Ear:
    """What core hears over its link."""

    def __init__(self, path: str, cursor: Cursor | None = None) -> None:
        self.hellos: list[Hello] = []
        self.ends: list[str] = []
        self.events: list[EventBody] = []
        self.lost: list[int] = []
        self.stirred = asyncio.Event()
        self.client = ServicesClient(
            path,
            version="0",
            cursor=cursor,
            connected=self.note(self.hellos),
            disconnected=self.note(self.ends),
            event=self.note(self.events),
            lost=self.note(self.lost),
        )
        self.task = asyncio.create_task(self.client.run())

    def note(self, into: list[Any]) -> Callable[[Any], None]:
        def noted(thing: Any) -> None:
            into.append(thing)
            self.stirred.set()

        return noted

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self.stirred.clear()
                await self.stirred.wait()

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    with tempfile.TemporaryDirectory(prefix="atl-") as folder:
        made = Double(str(Path(folder, "services.sock")))
        await made.up()
        yield made
        await made.down()


@pytest.fixture
async def ear(double: Double) -> AsyncIterator[Ear]:
    made = Ear(double.path)
    await made.until(lambda: bool(made.hellos))
    yield made
    await made.close()


async def test_facts_come_once_and_in_order_across_a_broken_connection(
    double: Double, ear: Ear
) -> None:
    for _ in range(3):
        double.tell()
    await ear.until(lambda: len(ear.events) == 3)
    await double.down()
    await ear.until(lambda: bool(ear.ends))
    assert not ear.client.connected
    double.tell()  # while core is away
    await double.up()
    await ear.until(lambda: len(ear.events) == 4)
    double.tell()
    await ear.until(lambda: len(ear.events) == 5)
    assert [event["seq"] for event in ear.events] == [1, 2, 3, 4, 5]
    assert double.since == [0, 4]
    assert ear.lost == []


async def test_another_process_is_read_from_its_beginning(double: Double, ear: Ear) -> None:
    double.tell()
    await ear.until(lambda: len(ear.events) == 1)
    await double.down()
    double.pid, double.started, double.events = 200, "2", []
    double.tell()
    await double.up()
    await ear.until(lambda: len(ear.events) == 2)
    assert [event["seq"] for event in ear.events] == [1, 1]
    assert double.since == [0, 0]


async def test_the_same_process_that_counts_anew_was_upgraded_in_place(
    double: Double, ear: Ear
) -> None:
    for _ in range(5):
        double.tell()
    await ear.until(lambda: len(ear.events) == 5)
    await double.down()
    double.events = []
    double.tell(detail="new")
    await double.up()
    await ear.until(lambda: len(ear.events) == 6)
    assert ear.events[-1]["detail"] == "new"


async def test_a_core_that_begins_resumes_where_the_last_one_stopped(double: Double) -> None:
    for _ in range(4):
        double.tell()
    ear = Ear(double.path, Cursor(identity="b/100/1", seq=3))
    await ear.until(lambda: len(ear.events) == 2)
    assert [event["seq"] for event in ear.events] == [3, 4]
    assert ear.client.cursor == Cursor(identity="b/100/1", seq=5)
    await ear.close()


async def test_a_gap_is_counted(double: Double, ear: Ear) -> None:
    double.tell()
    double.tell(seq=5)
    await ear.until(lambda: len(ear.events) == 2)
    assert ear.lost == [3]


async def test_what_services_no_longer_had_is_counted(double: Double) -> None:
    double.lost = 7
    double.tell(seq=20)
    ear = Ear(double.path, Cursor(identity="b/100/1", seq=13))
    await ear.until(lambda: bool(ear.events))
    assert ear.lost[0] == 7
    await ear.close()


async def test_an_error_answer_is_the_callers_and_the_link_stays(double: Double, ear: Ear) -> None:
    def refuse(asked: dict[str, Any]) -> bytes:
        error = {"code": "service.unknown", "message": "no", "hint": "did you mean 'web'?"}
        return json.dumps({"id": asked["id"], "error": error}).encode() + b"\n"

    double.answer = refuse
    with pytest.raises(AtlasError) as caught:
        await ear.client.call("start", service="wbe")
    assert (caught.value.code, caught.value.hint) == ("service.unknown", "did you mean 'web'?")
    assert ear.client.connected


async def test_a_code_of_another_version_is_not_lost(double: Double, ear: Ear) -> None:
    double.answer = lambda asked: (
        json.dumps({"id": asked["id"], "error": {"code": "of.tomorrow", "message": "hm"}}).encode()
        + b"\n"
    )
    with pytest.raises(AtlasError, match="hm") as caught:
        await ear.client.call("start")
    assert caught.value.code == "internal"


async def test_a_request_that_is_not_answered_ends_in_time_and_a_late_answer_hurts_nobody(
    double: Double, ear: Ear
) -> None:
    double.answer = lambda _asked: None
    with pytest.raises(AtlasError) as caught:
        await ear.client.call("snapshot", timeout=0.01)
    assert caught.value.code == "services.unreachable"
    assert "did not answer 'snapshot'" in caught.value.message
    double.answer = double.well
    late = json.dumps({"id": double.asked[-1]["id"], "ok": {}}).encode() + b"\n"
    double.writers[-1].write(late)
    assert await ear.client.call("pause") == {}


@pytest.mark.parametrize("garbage", [b"no json\n", b"[1, 2]\n", b"\xff\xfe\n"])
async def test_what_is_no_message_ends_the_connection_and_it_is_tried_again(
    double: Double, ear: Ear, garbage: bytes
) -> None:
    double.writers[-1].write(garbage)
    await ear.until(lambda: len(ear.hellos) == 2)
    assert "no JSON" in ear.ends[0]
    assert await ear.client.call("pause") == {}


async def test_who_waits_hears_that_services_went_away(double: Double, ear: Ear) -> None:
    double.answer = lambda _asked: None
    waiting = asyncio.create_task(ear.client.call("shutdown", timeout=600.0))
    while not any(asked["op"] == "shutdown" for asked in double.asked):  # noqa: ASYNC110
        await asyncio.sleep(0)
    await double.down()
    with pytest.raises(AtlasError) as caught:
        await asyncio.wait_for(waiting, 30)
    assert caught.value.code == "services.unreachable"


async def test_with_nobody_there_a_call_says_so_at_once() -> None:
    client = ServicesClient("/nonexistent/services.sock", version="0")
    task = asyncio.create_task(client.run())
    with pytest.raises(AtlasError) as caught:
        await client.call("snapshot")
    assert caught.value.code == "services.unreachable"
    assert "services themselves go on" in caught.value.hint
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_message_in_pieces_is_one_message(double: Double, ear: Ear) -> None:
    line = json.dumps({"event": {"seq": 1, "time": 1.0, "kind": "status", "detail": "x" * 300_000}})
    data = line.encode() + b"\n"
    for at in range(0, len(data), 70_001):
        double.writers[-1].write(data[at : at + 70_001])
        await asyncio.sleep(0)
    await ear.until(lambda: bool(ear.events))
    assert len(str(ear.events[0]["detail"])) == 300_000


async def test_descriptors_travel_with_their_names_and_come_back() -> None:
    with tempfile.TemporaryDirectory(prefix="atl-") as folder:
        path = str(Path(folder, "services.sock"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        ear = Ear(path)

        async def greet(pid: int) -> tuple[socket.socket, list[str], list[int]]:
            """Do a successor's part up to the subscription; what was offered to it."""
            link, _ = await loop.sock_accept(listener)
            names: list[str] = []
            got: list[int] = []
            buffer = b""
            link.setblocking(True)
            link.settimeout(30)
            while True:
                data, fds, _, _ = await asyncio.to_thread(socket.recv_fds, link, 65536, 100)
                buffer += data
                got += fds
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    asked = json.loads(line)
                    ok: dict[str, Any] = {"taken": asked.get("names", []), "lost": 0}
                    if asked["op"] == "hello":
                        ok = {"version": "0", "pid": pid, "boot_id": "b", "started": "1"}
                    names += asked.get("names", [])
                    link.sendall(json.dumps({"id": asked["id"], "ok": ok}).encode() + b"\n")
                    if asked["op"] == "subscribe":
                        return link, names, got

        first, offered, _ = await greet(1)
        assert offered == []
        ours, theirs = socket.socketpair()
        hold = json.dumps({"hold": ["a", "b"], "drop": []}).encode() + b"\n"
        socket.send_fds(first, [hold], [theirs.fileno(), listener.fileno()])
        async with asyncio.timeout(30):
            while len(ear.client.held) < 2:  # noqa: ASYNC110  nothing tells of it
                await asyncio.sleep(0.001)
        theirs.close()
        first.close()
        second, offered, descriptors = await greet(2)
        assert offered == ["a", "b"]
        with socket.socket(fileno=descriptors[0]) as back:
            ours.sendall(b"still here")
            assert back.recv(100) == b"still here"
        await ear.close()
        for link in (second, ours, listener, socket.socket(fileno=descriptors[1])):
            link.close()
        assert len(ear.client.held) == 0
