"""Checks that something listens on a TCP port or a unix socket, and if wanted what it says."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from atlasd import hookimpl
from atlasd.contracts.checks import CheckResult, CheckType, Health
from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import Settings

ATLASD_API = 1

MOST_READ = 4096
"""Bytes of what is said that `expect` is looked for in."""


def _address(text: str) -> str:
    if text.startswith("unix:"):
        if not text.removeprefix("unix:").removeprefix("//").startswith("/"):
            raise ValueError("a unix socket is written unix:/path/to/it")
        return text
    host, port = _host_and_port(text)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("expected host:port, [ipv6]:port or unix:/path")
    return text


def _host_and_port(text: str) -> tuple[str, str]:
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return ("", port) if ":" in host else (host, port)


def _pattern(text: str) -> str:
    """Check that a setting is a regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class TcpSettings(Settings):
    """Settings of a `tcp` check."""

    address: Annotated[str, AfterValidator(_address)] = Field(
        description="What to connect to: host:port, [ipv6]:port or unix:/path.",
        examples=["127.0.0.1:6379", "unix:/run/shop.sock"],
    )
    send: str | None = Field(
        default=None, description="Text to send once connected.", examples=["PING\r\n"]
    )
    expect: Annotated[str, AfterValidator(_pattern)] | None = Field(
        default=None,
        description="Regular expression to be found in the first 4,096 bytes that are said.",
        examples=["PONG"],
    )


class TcpCheck:
    """Connects, and looks at what is said."""

    def __init__(self, settings: TcpSettings, context: PluginContext) -> None:
        self._settings = settings
        self._clock = context.clock

    async def run(self, limit: timedelta, /) -> CheckResult:
        """Pass when it can be connected to, and says what is expected."""
        began = self._clock.monotonic()
        address = self._settings.address
        writer = None
        try:
            async with asyncio.timeout(limit.total_seconds()):
                reader, writer = await self._connect()
                fault = await self._talk(reader, writer)
        except TimeoutError:
            missing = f"no connection to {address}"
            if writer is not None:
                missing = f"{address} did not say {self._settings.expect!r}"
            return self._fail(f"{missing} within {limit.total_seconds():g} s")
        except (OSError, UnicodeError) as error:
            fault = f"no connection to {address}" if writer is None else f"{address} hung up"
            return self._fail(f"{fault}: {_reason(error)}")
        finally:
            if writer is not None:
                writer.close()
        if fault:
            return self._fail(fault)
        return CheckResult(
            status=Health.PASS, observed_value=self._clock.monotonic() - began, observed_unit="s"
        )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self._settings.address
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            return await asyncio.open_unix_connection(path.removeprefix("//"), limit=MOST_READ)
        host, port = _host_and_port(address)
        return await asyncio.open_connection(host, int(port), limit=MOST_READ)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Say and hear what is wanted; what is wrong with it, or nothing."""
        settings = self._settings
        if settings.send is not None:
            writer.write(settings.send.encode())
            await writer.drain()
        if settings.expect is None:
            return ""
        return await self._listen(reader, re.compile(settings.expect))

    async def _listen(self, reader: asyncio.StreamReader, expected: re.Pattern[str]) -> str:
        said = b""
        while len(said) < MOST_READ:
            more = await reader.read(MOST_READ - len(said))
            said += more
            if expected.search(said.decode(errors="replace")):
                return ""
            if not more:
                break
        return f"{self._settings.address} said {_shown(said)}, not {expected.pattern!r}"

    def _fail(self, output: str) -> CheckResult:
        return CheckResult(
            status=Health.FAIL, output=output, affected_endpoints=(self._settings.address,)
        )


def _reason(error: OSError | UnicodeError) -> str:
    """What the system says, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        code = error.errno or 0
        return (os.strerror(code) if code > 0 else error.strerror).lower()
    return str(error) or type(error).__name__


def _shown(said: bytes) -> str:
    text = said[:100].decode(errors="replace")
    return repr(text + ("…" if len(said) > 100 else "")) if said else "nothing"


@asynccontextmanager
async def open_check(settings: TcpSettings, context: PluginContext) -> AsyncIterator[TcpCheck]:
    """A check that holds nothing between its runs."""
    yield TcpCheck(settings, context)


@hookimpl
def register_health_checks() -> list[CheckType]:
    """The `tcp` check."""
    return [
        CheckType(
            name="tcp",
            summary="something listens on a TCP port or a unix socket, and says what it should",
            settings=TcpSettings,
            open=open_check,
            measurement="responseTime",
        )
    ]
