import asyncio
import io
import json
import logging
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel, Field
from yarl import URL

from atlasd import __version__
from atlasd.contracts.authorization import Actor, Decision
from atlasd.contracts.operations import Operation as PluginOperation
from atlasd.control import models as m
from atlasd.control.client import Client
from atlasd.control.rights import Caller
from atlasd.control.server import ControlServer, Handler
from atlasd.control.wire import BODY_LIMIT, Right
from atlasd.errors import AtlasError
from tests.control_double import START, FakeCore


def path_in(folder: Path) -> str:
    return str(folder / "control.sock")


@pytest.fixture
def core() -> FakeCore:
    return FakeCore(web=2, db=1)


Serve = Callable[..., Awaitable[ControlServer]]


@pytest.fixture
async def serve(core: FakeCore, tmp_path: Path) -> AsyncIterator[Serve]:
    """Start a server with the options given; it is closed when the test is over."""
    made: list[ControlServer] = []

    async def start(
        folder: Path = tmp_path,
        prepare: Callable[[ControlServer], None] = lambda server: None,
        handlers: Mapping[str, Handler] | None = None,
        **options: Any,
    ) -> ControlServer:
        server = ControlServer(path_in(folder), {**core.handlers(), **(handlers or {})}, **options)
        prepare(server)
        await server.start()
        made.append(server)
        return server

    yield start
    for server in made:
        await server.close()


@pytest.fixture
async def server(serve: Serve) -> ControlServer:
    return await serve()


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(path_in(tmp_path))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        yield session


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(path_in(tmp_path), timeout=20.0)


async def error_of(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    assert answer.content_type == "application/json"
    body = await answer.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"code", "message", "hint", "details"}
    error: dict[str, Any] = body["error"]
    assert "Traceback" not in json.dumps(error)
    return error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  the fake core tells nobody
            await asyncio.sleep(0.005)


# --- answers


async def test_an_answer_is_plain_json_that_names_its_server(
    server: ControlServer, http: aiohttp.ClientSession
) -> None:
    async with http.get("/v1/status") as answer:
        assert answer.status == 200
        assert answer.headers["Atlasd-Version"] == __version__
        body = await answer.json()
    web = body["services"][1]
    assert set(web) == {"name", "wanted", "health", "instances"}
    assert set(web["instances"][0]) == {
        "index", "state", "pid", "health", "traffic", "since", "restarts", "reason",
        "memory_bytes", "cpu_seconds",
    }  # fmt: skip


async def test_the_handler_gets_the_validated_request_and_the_peer(
    server: ControlServer, core: FakeCore, client: Client
) -> None:
    await asyncio.to_thread(client.call, "service.scale", service="web", instances=4)
    name, request, caller = core.calls[-1]
    assert (name, request) == ("service.scale", m.ScaleRequest(service="web", instances=4))
    assert (caller.pid, caller.uid) == (os.getpid(), os.getuid())
    assert caller.right is Right.ADMINISTER


async def test_metrics_are_text(server: ControlServer, http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "atlasd_build_info 1" in await answer.text()


# --- refusals


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "operation.unknown"),
        ("GET", "/v1/", 404, "operation.unknown"),
        ("GET", "/v1/statuss", 404, "operation.unknown"),
        ("GET", "/v1/services/a%2Fb", 404, "service.unknown"),
        ("GET", "/v1/services/%00", 404, "service.unknown"),
        ("GET", "/v1/services/%FF%FE", 404, "service.unknown"),
        ("GET", f"/v1/services/{'x' * 500}", 400, "request.invalid"),
        ("GET", "/v1/status?x=1", 400, "request.invalid"),
        ("GET", "/v1/events?since=-1", 400, "request.invalid"),
        ("GET", "/v1/logs?grep=%28", 400, "request.invalid"),
        ("POST", "/v1/status", 405, "operation.method"),
        ("HEAD", "/v1/status", 405, "operation.method"),
        ("OPTIONS", "/v1/status", 405, "operation.method"),
        ("DELETE", "/v1/services/web", 405, "operation.method"),
        ("POST", "/v1/services/web/scale", 400, "request.invalid"),
        ("POST", "/v1/services/nobody/stop", 404, "service.unknown"),
    ],
)
async def test_bad_input_is_refused_in_our_shape(
    server: ControlServer,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    status: int,
    code: str,
) -> None:
    url = URL(path, encoded=True)
    async with http.request(method, url) as answer:
        assert answer.status == status
        if method != "HEAD":
            assert (await error_of(answer))["code"] == code
        if status == 405:
            assert answer.headers["Allow"] in {"GET", "POST"}


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"Origin": "https://example.org"}, b"{}", 403, "request.origin"),
        ({"Host": "example.org"}, b"{}", 403, "request.origin"),
        ({"Content-Type": "text/plain"}, b"{}", 400, "request.invalid"),
        ({"Content-Type": "application/json"}, b"{", 400, "request.invalid"),
        ({"Content-Type": "application/json"}, b" " * (BODY_LIMIT + 1), 413, "request.too_large"),
    ],
    ids=["origin", "host", "type", "json", "size"],
)
async def test_bad_requests_do_nothing(
    server: ControlServer,
    core: FakeCore,
    http: aiohttp.ClientSession,
    headers: dict[str, str],
    body: bytes,
    status: int,
    code: str,
) -> None:
    async with http.post("/v1/shutdown", headers=headers, data=io.BytesIO(body)) as answer:
        assert answer.status == status
        assert (await error_of(answer))["code"] == code
    assert core.calls == []


async def test_a_body_of_unknown_length_is_cut_off_too(
    server: ControlServer, core: FakeCore, http: aiohttp.ClientSession
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(BODY_LIMIT // 65536 + 100):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    async with http.post("/v1/shutdown", headers=headers, data=endless()) as answer:
        assert (await error_of(answer))["code"] == "request.too_large"
    assert core.calls == []


async def test_a_surprise_is_a_reference_to_the_log(
    serve: Serve,
    tmp_path: Path,
    core: FakeCore,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: m.Nothing, caller: Caller) -> m.Plan:
        raise RuntimeError("the password is swordfish")

    await serve(handlers={"plan": broken})
    with caplog.at_level(logging.ERROR):
        async with http.get("/v1/plan") as answer:
            assert answer.status == 500
            error = await error_of(answer)
    assert error["code"] == "internal"
    assert "swordfish" not in json.dumps(error)
    assert error["details"]["reference"] in error["message"]
    assert error["details"]["reference"] in caplog.text
    assert "swordfish" in caplog.text


async def test_what_is_no_http_is_refused_in_one_line_of_the_log(
    server: ControlServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        reader, writer = await asyncio.open_unix_connection(path_in(tmp_path))
        writer.write(b"\x16\x03\x01 hello?\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    record = next(r for r in caplog.records if r.name == "atlasd.control.http")
    assert (record.exc_info, record.levelname) == (None, "WARNING")
    assert "no HTTP" in record.getMessage()


# --- rights


async def test_a_right_that_is_not_enough_is_refused(
    serve: Serve, core: FakeCore, client: Client
) -> None:
    right: Right | None = Right.OPERATE

    def somebody(peer: Any) -> Caller:
        return Caller(pid=1, uid=1000, gid=1000, groups=frozenset(), right=right)

    await serve(identify=somebody)
    await asyncio.to_thread(client.call, "service.stop", service="web")
    with pytest.raises(AtlasError) as caught:
        await asyncio.to_thread(client.call, "shutdown")
    assert (caught.value.code, caught.value.kind.exit) == ("operation.denied", 4)
    right = None
    with pytest.raises(AtlasError, match="1000 may not read"):
        await asyncio.to_thread(client.call, "status")
    assert [name for name, _, _ in core.calls] == ["service.stop"]


async def test_a_plugin_may_refuse_what_rights_allow(
    serve: Serve, core: FakeCore, client: Client
) -> None:
    asked: list[tuple[Actor, str]] = []

    def authorize(actor: Actor, operation: str) -> Decision | None:
        asked.append((actor, operation))
        if operation == "service.stop":
            return Decision(allowed=False, reason="ask the shop first")
        return None

    await serve(authorize=authorize)
    await asyncio.to_thread(client.call, "service.start", service="web")
    with pytest.raises(AtlasError) as caught:
        await asyncio.to_thread(client.call, "service.stop", service="web")
    assert (caught.value.code, caught.value.hint) == ("operation.denied", "ask the shop first")
    assert [operation for _, operation in asked] == ["service.start", "service.stop"]
    assert asked[0][0].uid == os.getuid()


async def ask_as_nobody(path: str, groups: str) -> tuple[int, dict[str, Any]]:
    program = (
        # All imports first: the new user may not be able to read the interpreter's folders.
        "import json, os, sys\n"
        "from atlasd.control.client import Client\n"
        "from atlasd.errors import AtlasError\n"
        f"os.setgroups([{groups}]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    Client(sys.argv[1]).call('status')\n"
        "except AtlasError as error:\n"
        "    print(json.dumps(error.to_wire()['error'])); sys.exit(error.kind.exit)\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, path, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, json.loads(output) if output else {}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, as the folders of pytest's own cannot be."""
    with tempfile.TemporaryDirectory(prefix="atl-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
async def test_strangers_are_kept_out_by_the_files_mode_and_by_their_credentials(
    serve: Serve, core: FakeCore, open_folder: Path
) -> None:
    await serve(open_folder)
    code, error = await ask_as_nobody(path_in(open_folder), "")
    assert (code, error["code"]) == (4, "operation.denied")
    assert "is closed to user 65534" in error["message"]
    # Even where the mode lets everybody in, the kernel says who it is.
    Path(path_in(open_folder)).chmod(0o666)
    code, error = await ask_as_nobody(path_in(open_folder), "")
    assert (code, error["code"]) == (4, "operation.denied")
    assert "user 65534 may not read" in error["message"]
    assert core.calls == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
async def test_members_of_the_group_are_let_in(
    serve: Serve,
    core: FakeCore,
    open_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atlasd.control.rights.group_id", lambda: 64999)
    monkeypatch.setattr("atlasd.control.socketfile.group_id", lambda: 64999)
    await serve(open_folder)
    assert await ask_as_nobody(path_in(open_folder), "64999") == (0, {})
    assert core.calls[0][2].right is Right.OPERATE


# --- the file


async def test_the_file_is_for_owner_and_group_and_goes_away(tmp_path: Path) -> None:
    server = ControlServer(path_in(tmp_path), FakeCore().handlers())
    await server.start()
    mode = Path(path_in(tmp_path)).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    await server.close()
    assert not Path(path_in(tmp_path)).exists()


async def test_a_dead_daemons_socket_is_replaced(
    serve: Serve, tmp_path: Path, client: Client
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path_in(tmp_path))
    await serve()
    status = await asyncio.to_thread(client.call, "status")
    assert [service["name"] for service in status["services"]] == ["db", "web"]


async def test_a_second_daemon_refuses_and_harms_nobody(
    server: ControlServer, tmp_path: Path, client: Client
) -> None:
    second = ControlServer(path_in(tmp_path), FakeCore().handlers())
    with pytest.raises(AtlasError) as caught:
        await second.start()
    assert caught.value.code == "daemon.running"
    assert str(os.getpid()) in caught.value.message
    await second.close()
    assert len((await asyncio.to_thread(client.call, "status"))["services"]) == 2


async def test_a_socket_that_somebody_else_serves_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path_in(tmp_path))
        other.listen(1)
        server = ControlServer(path_in(tmp_path), FakeCore().handlers())
        with pytest.raises(AtlasError) as caught:
            await server.start()
    assert caught.value.code == "daemon.running"
    assert Path(path_in(tmp_path)).exists()


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    Path(path_in(tmp_path)).write_text("precious")
    server = ControlServer(path_in(tmp_path), FakeCore().handlers())
    with pytest.raises(AtlasError, match="in the way"):
        await server.start()
    assert Path(path_in(tmp_path)).read_text() == "precious"


async def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    server = ControlServer(path_in(tmp_path / "nowhere"), FakeCore().handlers())
    with pytest.raises(AtlasError) as caught:
        await server.start()
    assert caught.value.code == "daemon.directory"
    assert "nowhere" in caught.value.message


async def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    first = ControlServer(path_in(tmp_path), FakeCore().handlers())
    await first.start()
    Path(path_in(tmp_path)).unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(path_in(tmp_path))
        await first.close()
        assert Path(path_in(tmp_path)).exists()


# --- clients


def test_nobody_there_is_said_with_what_to_do(client: Client) -> None:
    with pytest.raises(AtlasError) as caught:
        client.call("status")
    assert (caught.value.code, caught.value.kind.exit) == ("core.unreachable", 7)
    assert "atlasd run" in caught.value.hint
    assert not client.alive()


async def test_an_old_client_is_told_of_another_version(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlasd.control.client.__version__", "0.0.1")
    told: list[str] = []
    client = Client(path_in(tmp_path), version_differs=told.append)
    await asyncio.to_thread(client.call, "status")
    await asyncio.to_thread(client.call, "status")
    assert told == [__version__]


async def test_a_daemon_that_hangs_is_not_waited_for_forever(
    serve: Serve, tmp_path: Path, core: FakeCore
) -> None:
    never = asyncio.Event()

    async def hangs(request: m.Nothing, caller: Caller) -> m.Plan:
        await never.wait()
        return core.plan

    await serve(handlers={"plan": hangs})
    client = Client(path_in(tmp_path))
    with pytest.raises(AtlasError) as caught:
        await asyncio.to_thread(client.call, "plan", timeout=0.05)
    assert caught.value.code == "core.unreachable"
    assert "within 0.05 s" in caught.value.message
    never.set()


async def test_an_operation_goes_on_when_its_caller_hangs_up(
    serve: Serve, tmp_path: Path, core: FakeCore
) -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(request: m.Nothing, caller: Caller) -> m.Plan:
        begun.set()
        await go_on.wait()
        done.set()
        return core.plan

    await serve(handlers={"apply": slow})
    _, writer = await asyncio.open_unix_connection(path_in(tmp_path))
    writer.write(b"POST /v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    await begun.wait()
    writer.close()
    await writer.wait_closed()
    go_on.set()
    await asyncio.wait_for(done.wait(), 20)


# --- streams


async def test_a_stream_begins_at_once_and_follows(
    server: ControlServer, core: FakeCore, client: Client
) -> None:
    stream = await asyncio.to_thread(client.stream, "events", follow=True)
    await until(lambda: len(core.readers) == 1)
    core.publish(kind="transition", service="web", new="running")
    first = await asyncio.to_thread(stream.read, 20.0)
    assert first is not None
    assert (first["seq"], first["service"]) == (1, "web")
    stream.close()
    # A reader that went away is noticed though nothing happens.
    await until(lambda: core.readers == [])


async def test_a_refused_stream_is_an_ordinary_error(
    server: ControlServer, http: aiohttp.ClientSession
) -> None:
    async with http.get("/v1/services/weeb/logs?follow=true") as answer:
        assert answer.status == 404
        assert (await error_of(answer))["hint"] == "did you mean 'web'?"


async def test_a_reader_who_does_not_read_costs_nobody_else(
    serve: Serve, core: FakeCore, client: Client
) -> None:
    await serve(stream_limit=50)
    stuck = await asyncio.to_thread(client.stream, "events", follow=True)
    quick = await asyncio.to_thread(client.stream, "events", follow=True, kind="all")
    await until(lambda: len(core.readers) == 2)
    total = 20_000
    read: list[int] = []

    def read_all() -> None:
        while not read or read[-1] < total:
            line = quick.read(20.0)
            assert line is not None
            if line["kind"] != "events-lost":
                read.append(int(str(line["seq"])))

    reading = asyncio.create_task(asyncio.to_thread(read_all))
    for number in range(total):
        core.publish(kind="transition", service="web", detail="x" * 100)
        if number % 20 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(reading, 60)
    assert len((await asyncio.to_thread(client.call, "status"))["services"]) == 2

    def read_late() -> tuple[int, int]:
        seen = lost = 0
        while (line := stuck.read(20.0)) is not None:
            if line["kind"] == "events-lost":
                data = line["data"]
                assert isinstance(data, dict)
                lost += data["count"]
            else:
                seen += 1
            if line["seq"] == total:
                break
        return seen, lost

    seen, lost = await asyncio.to_thread(read_late)
    assert lost > 0
    assert seen + lost == total  # every event was either shown or counted
    stuck.close()
    quick.close()


async def test_closing_tells_the_readers(
    server: ControlServer, core: FakeCore, client: Client
) -> None:
    stream = await asyncio.to_thread(client.stream, "events", follow=True)
    await until(lambda: len(core.readers) == 1)
    core.publish(kind="transition", service="web")
    closing = asyncio.create_task(server.close())
    assert (await asyncio.to_thread(stream.read, 20.0) or {})["seq"] == 1
    with pytest.raises(AtlasError) as caught:
        await asyncio.to_thread(stream.read, 20.0)
    assert caught.value.code == "core.stopping"
    await closing
    assert core.readers == []


async def test_lines_of_output_are_never_lost(
    server: ControlServer, core: FakeCore, client: Client
) -> None:
    core.log = [
        m.LogRecord(time=START, service="web", instance=0, stream="stdout", message=f"line {n}")
        for n in range(20_000)
    ]
    stream = await asyncio.to_thread(client.stream, "service.logs", service="web")
    lines = await asyncio.to_thread(lambda: [str(line["message"]) for line in stream])
    assert lines == [f"line {n}" for n in range(20_000)]


# --- plugins


class Wish(BaseModel):
    """A wish."""

    whom: str = Field(max_length=10)


class Granted(BaseModel):
    """A wish that was granted."""

    whom: str
    by: str


async def test_a_plugins_operation_is_served_like_any_other(
    serve: Serve, core: FakeCore, http: aiohttp.ClientSession
) -> None:
    async def unused(request: Any, context: Any) -> BaseModel:
        raise AssertionError("the host calls it, guarded")

    async def guarded(operation: PluginOperation, request: Any) -> BaseModel:
        return Granted(whom=request.whom, by=operation.name)

    offered = PluginOperation(
        name="shop.grant",
        summary="Grants a wish.",
        path="grant",
        request=Wish,
        answer=Granted,
        handle=unused,
        method="POST",
    )
    await serve(prepare=lambda server: server.register_operations("shop", [offered], guarded))
    async with http.post("/v1/plugins/shop/grant", json={"whom": "you"}) as answer:
        assert await answer.json() == {"whom": "you", "by": "shop.grant"}
    async with http.post("/v1/plugins/shop/grant", json={"whom": "x" * 11}) as answer:
        assert (await error_of(answer))["code"] == "request.invalid"
    async with http.get("/v1/openapi.json") as answer:
        assert "/v1/plugins/shop/grant" in (await answer.json())["paths"]
