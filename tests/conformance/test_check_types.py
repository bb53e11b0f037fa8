"""Every check type that is shipped keeps what a check type promises."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.checks import CheckType
from atlasd.testing.checks import CheckTypeSuite
from atlasd.testing.descriptors import load_module
from atlasd_plugins import checks_exec, checks_http, checks_tcp
from tests.plugins.listeners import free_port, listening


@pytest.fixture
async def web() -> AsyncIterator[str]:
    """Host and port of a small web server."""

    async def answer(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()

    async with listening(answer) as address:
        yield address


class TestHttp(CheckTypeSuite):
    @pytest.fixture
    def check_type(self) -> CheckType:
        return load_module(checks_http, CheckType, "http")

    @pytest.fixture
    def passing(self, web: str) -> dict[str, Any]:
        return {"url": f"http://{web}/", "body": "hello"}

    @pytest.fixture
    def failing(self, web: str) -> dict[str, Any]:
        return {"url": f"http://{web}/", "statuses": [404]}


class TestHttpOfNobody(TestHttp):
    @pytest.fixture
    def failing(self, web: str) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{free_port()}/"}


class TestTcp(CheckTypeSuite):
    @pytest.fixture
    def check_type(self) -> CheckType:
        return load_module(checks_tcp, CheckType, "tcp")

    @pytest.fixture
    def passing(self, web: str) -> dict[str, Any]:
        return {"address": web, "send": "GET / HTTP/1.1\r\n\r\n", "expect": "200 OK"}

    @pytest.fixture
    def failing(self) -> dict[str, Any]:
        return {"address": f"127.0.0.1:{free_port()}"}


class TestExec(CheckTypeSuite):
    @pytest.fixture
    def check_type(self) -> CheckType:
        return load_module(checks_exec, CheckType, "exec")

    @pytest.fixture
    def passing(self) -> dict[str, Any]:
        return {"command": ["/bin/sh", "-c", "echo fine"]}

    @pytest.fixture
    def failing(self) -> dict[str, Any]:
        return {"command": ["/bin/sh", "-c", "exit 2"]}


def test_no_shipped_check_type_is_forgotten() -> None:
    shipped = {path.stem for path in Path(checks_exec.__file__).parent.glob("checks_*")}
    tried = {
        module.__name__.rpartition(".")[2] for module in (checks_exec, checks_http, checks_tcp)
    }
    assert shipped == tried
