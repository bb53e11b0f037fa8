"""Checks that a URL answers: with the right status, the right text, in time, over honest TLS."""

import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from atlasd import hookimpl
from atlasd.contracts.checks import CheckResult, CheckType, Health
from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import Duration, Settings
from atlasd.errors import AtlasError

if TYPE_CHECKING:
    import aiohttp

ATLASD_API = 1

MOST_BODY = 64 * 1024
"""Bytes of the body that `body` is looked for in."""
MOST_REDIRECTS = 5


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("expected a URL that begins with http:// or https:// and names a host")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


def _status(text: str | int) -> str | int:
    if not 100 <= _range(text)[0] <= _range(text)[1] <= 599:
        raise ValueError("statuses lie between 100 and 599")
    return text


def _range(text: str | int) -> tuple[int, int]:
    """`200`, `"200"`, `"2xx"` or `"200-204"` as the first and last status that it means."""
    text = str(text)
    if re.fullmatch(r"[1-5]xx", text):
        return int(text[0]) * 100, int(text[0]) * 100 + 99
    if match := re.fullmatch(r"(\d{3})(?:-(\d{3}))?", text):
        return int(match[1]), int(match[2] or match[1])
    raise ValueError('expected a status such as 200, "2xx" or "200-204"')


class HttpSettings(Settings):
    """Settings of an `http` check."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        description="What to ask for.", examples=["https://shop.example/healthz"]
    )
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = Field(
        default="GET", description="GET, HEAD, POST or OPTIONS."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Headers to send.")
    statuses: list[Annotated[str | int, AfterValidator(_status)]] = Field(
        default=["2xx"],
        min_length=1,
        description='Statuses that pass: 200, "2xx" or "200-204".',
    )
    body: Annotated[str, AfterValidator(_pattern)] | None = Field(
        default=None,
        description="Regular expression to be found in the first 64 KiB of the body.",
    )
    slow: Duration | None = Field(
        default=None, gt=timedelta(0), description="An answer that takes longer warns. Duration."
    )
    follow_redirects: bool = Field(
        default=True, description="Whether up to five redirects are followed."
    )
    verify_tls: bool = Field(
        default=True, description="Whether the certificate must be valid and for that host."
    )
    ca_file: str | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the host's."
    )
    unix_socket: str | None = Field(
        default=None, description="Unix socket to ask instead of the URL's host and port."
    )


class HttpCheck:
    """Asks over a fresh connection each time: a kept one would hide that nobody listens."""

    def __init__(
        self,
        settings: HttpSettings,
        context: PluginContext,
        session: "aiohttp.ClientSession",
        tls: ssl.SSLContext | None,
    ) -> None:
        self._settings = settings
        self._clock = context.clock
        self._session = session
        self._tls = tls
        self._shown = _without_password(settings.url)

    async def run(self, limit: timedelta, /) -> CheckResult:
        """Pass when the answer is as it should be."""
        import aiohttp

        settings = self._settings
        began = self._clock.monotonic()
        try:
            async with self._session.request(
                settings.method,
                settings.url,
                headers=settings.headers,
                allow_redirects=settings.follow_redirects,
                max_redirects=MOST_REDIRECTS + 1,
                timeout=aiohttp.ClientTimeout(total=limit.total_seconds()),
                ssl=self._tls or True,
            ) as response:
                fault = await self._fault(response)
        except TimeoutError:
            return self._fail(f"no answer within {limit.total_seconds():g} s")
        except aiohttp.TooManyRedirects:
            return self._fail(f"more than {MOST_REDIRECTS} redirects")
        except aiohttp.ClientConnectorCertificateError as error:
            return self._fail(f"TLS: {_certificate_fault(error.certificate_error)}")
        except aiohttp.ClientSSLError as error:
            return self._fail(f"TLS: {error.strerror or error}")
        except aiohttp.ClientConnectorError as error:
            return self._fail(f"no connection: {_words(error.os_error)}")
        except (aiohttp.ClientError, OSError) as error:
            return self._fail(f"no proper answer: {_words(error)}")
        seconds = self._clock.monotonic() - began
        if fault:
            return self._fail(fault, seconds)
        if settings.slow is not None and seconds > settings.slow.total_seconds():
            return CheckResult(
                status=Health.WARN,
                output=f"{self._shown}: slow: it took {seconds:.3f} s, and "
                f"{settings.slow.total_seconds():g} s is the limit",
                observed_value=seconds,
                observed_unit="s",
            )
        return CheckResult(status=Health.PASS, observed_value=seconds, observed_unit="s")

    async def _fault(self, response: "aiohttp.ClientResponse") -> str:
        """What is wrong with an answer; empty when nothing is."""
        settings = self._settings
        if not any(low <= response.status <= high for low, high in map(_range, settings.statuses)):
            wanted = ", ".join(map(str, settings.statuses))
            return f"status {response.status} {response.reason or ''}".rstrip() + f", not {wanted}"
        if settings.body is None:
            return ""
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) >= MOST_BODY:
                break
        text = body[:MOST_BODY].decode(_encoding(response), errors="replace")
        return "" if re.search(settings.body, text) else f"{settings.body!r} is not in the body"

    def _fail(self, words: str, seconds: float | None = None) -> CheckResult:
        return CheckResult(
            status=Health.FAIL,
            output=f"{self._shown}: {words}",
            observed_value=seconds,
            observed_unit=None if seconds is None else "s",
            affected_endpoints=(self._shown,),
        )


def _encoding(response: "aiohttp.ClientResponse") -> str:
    try:
        return response.get_encoding()
    except (LookupError, RuntimeError):
        return "utf-8"


def _without_password(url: str) -> str:
    """The URL as it may be shown: what stands before an @ is nobody's business, nor the query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="…" if parts.query else "").geturl()


def _certificate_fault(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return _words(error)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return " ".join(str(error).split()) or type(error).__name__


@asynccontextmanager
async def open_check(settings: HttpSettings, context: PluginContext) -> AsyncIterator[HttpCheck]:
    """A check with a client session of its own."""
    import aiohttp

    # Reading certificate authorities takes tens of milliseconds of work: not in the loop.
    tls = None
    if settings.url.startswith("https:") or not settings.verify_tls or settings.ca_file:
        tls = await context.in_thread(_tls, settings)
    connector: aiohttp.BaseConnector
    if settings.unix_socket is not None:
        connector = aiohttp.UnixConnector(path=settings.unix_socket, force_close=True)
    else:
        connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "atlasd"},
        trust_env=False,
    ) as session:
        yield HttpCheck(settings, context, session, tls)


def _tls(settings: HttpSettings) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise AtlasError(
            "plugin.settings",
            f"ca_file {settings.ca_file}: {_words(error)}",
            hint="name a readable file of certificates in PEM form",
        ) from error
    if not settings.verify_tls:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


@hookimpl
def register_health_checks() -> list[CheckType]:
    """The `http` check."""
    return [
        CheckType(
            name="http",
            summary="a URL answers with the right status and text, in time",
            settings=HttpSettings,
            open=open_check,
            measurement="responseTime",
            requires=("aiohttp",),
        )
    ]
