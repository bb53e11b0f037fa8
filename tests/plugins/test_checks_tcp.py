"""The tcp check, against real listeners: what says the right thing, the wrong one, or nothing."""

import asyncio
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from atlasd.contracts.checks import CheckResult, Health
from atlasd.testing import PlainContext
from atlasd_plugins.checks_tcp import TcpSettings, open_check
from tests.plugins.listeners import free_port, listening

LONG = timedelta(seconds=60)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing, and leave."""


async def pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if await reader.readline() == b"PING\r\n":
        # In two pieces: what is expected may come in parts.
        writer.write(b"+PO")
        await writer.drain()
        writer.write(b"NG\r\n")
        await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


async def run(context: PlainContext, limit: timedelta = LONG, **settings: Any) -> CheckResult:
    async with open_check(TcpSettings.model_validate(settings), context) as check:
        return await check.run(limit)


async def test_what_listens_passes(context: PlainContext) -> None:
    async with listening(hang_up) as address:
        result = await run(context, address=address)
    assert result.status is Health.PASS
    assert isinstance(result.observed_value, float)
    assert result.observed_unit == "s"


async def test_nobody_there_fails_and_says_where(context: PlainContext) -> None:
    address = f"127.0.0.1:{free_port()}"
    result = await run(context, address=address)
    assert result.status is Health.FAIL
    assert result.output == f"no connection to {address}: connection refused"
    assert result.affected_endpoints == (address,)


async def test_a_unix_socket_is_an_address(context: PlainContext, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listening(pong, path) as address:
        assert (await run(context, address=address)).status is Health.PASS
        assert (await run(context, address=f"unix://{path}")).status is Health.PASS
    path.unlink(missing_ok=True)
    result = await run(context, address=f"unix:{path}")
    assert result.output == f"no connection to unix:{path}: no such file or directory"


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
async def test_an_ipv6_address_is_written_in_brackets(context: PlainContext) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
    with listener:
        address = f"[::1]:{listener.getsockname()[1]}"
        assert (await run(context, address=address)).status is Health.PASS


async def test_what_says_the_expected_passes(context: PlainContext) -> None:
    async with listening(pong) as address:
        result = await run(context, address=address, send="PING\r\n", expect=r"^\+PONG")
    assert result.status is Health.PASS


async def test_what_says_something_else_fails_and_is_quoted(context: PlainContext) -> None:
    async with listening(pong) as address:
        result = await run(context, address=address, send="PING\r\n", expect="READY")
        assert result.status is Health.FAIL
        assert result.output == f"{address} said '+PONG\\r\\n', not 'READY'"
        result = await run(context, address=address, send="x\n", expect="READY")
        assert result.output == f"{address} said nothing, not 'READY'"


async def test_what_says_nothing_in_time_fails(context: PlainContext) -> None:
    async with listening(silent) as address:
        limit = timedelta(milliseconds=50)
        result = await run(context, limit, address=address, expect="READY")
    assert result.status is Health.FAIL
    assert result.output == f"{address} did not say 'READY' within 0.05 s"


async def test_a_flood_is_looked_at_for_4_kib_and_left(context: PlainContext) -> None:
    async with listening(chatter) as address:
        result = await run(context, address=address, expect="READY")
    assert result.status is Health.FAIL
    assert result.output.startswith(f"{address} said 'xxxx")
    assert len(result.output) < 200


@pytest.mark.parametrize("host", ["nothing.invalid", "a" * 70 + ".invalid", "..."])
async def test_a_name_that_means_nothing_is_a_verdict(context: PlainContext, host: str) -> None:
    result = await run(context, timedelta(seconds=20), address=f"{host}:80")
    assert result.status is Health.FAIL
    assert result.output.startswith(f"no connection to {host}:80")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Field required"),
        ({"address": "localhost"}, "expected host:port"),
        ({"address": ":80"}, "expected host:port"),
        ({"address": "::1:80"}, "expected host:port"),
        ({"address": "h:0"}, "expected host:port"),
        ({"address": "h:65536"}, "expected host:port"),
        ({"address": "unix:run/x"}, "a unix socket is written"),
        ({"address": "h:1", "expect": "("}, "not a regular expression"),
        ({"address": "h:1", "adress": "h:1"}, "Extra inputs"),
        ({"address": 80}, "valid string"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TcpSettings.model_validate(settings)
