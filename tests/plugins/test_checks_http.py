"""The http check, against real servers: status, body, redirects, TLS, time, and bad manners."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from atlasd.contracts.checks import CheckResult, Health
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.checks_http import HttpSettings, open_check
from tests.plugins.listeners import free_port, listening

LONG = timedelta(seconds=60)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(
    answer: Answer, *, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    if path is not None:
        await web.UnixSite(runner, str(path)).start()
        base = "http://shop.internal"
    else:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        base = f"{'https' if tls else 'http'}://localhost:{port}"
    try:
        yield base
    finally:
        await runner.cleanup()


@asynccontextmanager
async def speaking(raw: bytes) -> AsyncIterator[str]:
    """A server that says the same to everybody, whatever it is."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(raw)
        await writer.drain()

    async with listening(talk) as address:
        yield f"http://{address}"


async def hello(request: web.Request) -> web.Response:
    status = int(request.query.get("status", "200"))
    return web.Response(status=status, text="hello, größe")


async def run(
    context: PlainContext, url: str, limit: timedelta = LONG, **settings: Any
) -> CheckResult:
    model = HttpSettings.model_validate({"url": url, **settings})
    async with open_check(model, context) as check:
        return await check.run(limit)


async def test_an_answer_passes_with_its_time(context: PlainContext) -> None:
    async with serving(hello) as base:
        result = await run(context, f"{base}/healthz")
    assert (result.status, result.output, result.observed_unit) == (Health.PASS, "", "s")
    assert isinstance(result.observed_value, float)


@pytest.mark.parametrize(
    ("status", "wanted", "passes"),
    [
        (204, None, True),
        (404, None, False),
        (500, None, False),
        (404, [404], True),
        (404, ["4xx"], True),
        (404, ["200-403", "405-599"], False),
        (503, [200, "500-503"], True),
    ],
)
async def test_statuses_decide(
    context: PlainContext, status: int, wanted: list[Any] | None, passes: bool
) -> None:
    more: dict[str, Any] = {} if wanted is None else {"statuses": wanted}
    async with serving(hello) as base:
        url = f"{base}/x?status={status}"
        result = await run(context, url, **more)
    if passes:
        assert result.status is Health.PASS
    else:
        assert result.status is Health.FAIL
        assert f"status {status}" in result.output
        assert f", not {', '.join(map(str, wanted or ['2xx']))}" in result.output


async def test_the_body_is_searched_in_its_own_encoding(context: PlainContext) -> None:
    async def latin(request: web.Request) -> web.Response:
        return web.Response(
            body="größe".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
        )

    async def strange(request: web.Request) -> web.Response:
        return web.Response(body=b"ready", headers={"Content-Type": "text/plain; charset=none"})

    async with serving(hello) as base:
        assert (await run(context, base, body="gr.+e$")).status is Health.PASS
        result = await run(context, base, body="ready")
        assert result.status is Health.FAIL
        assert result.output == f"{base}: 'ready' is not in the body"
    async with serving(latin) as base:
        assert (await run(context, base, body="größe")).status is Health.PASS
    async with serving(strange) as base:
        assert (await run(context, base, body="ready")).status is Health.PASS


async def test_an_endless_body_is_looked_at_for_64_kib(context: PlainContext) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    async with serving(endless) as base:
        assert (await run(context, base)).status is Health.PASS
        assert (await run(context, base, body="ready")).status is Health.FAIL
    assert sent < 100_000_000


async def test_redirects_are_followed_unless_they_shall_not(context: PlainContext) -> None:
    async def hop(request: web.Request) -> web.Response:
        left = int(request.match_info["tail"] or "0")
        if not left:
            return await hello(request)
        return web.Response(status=302, headers={"Location": f"/{left - 1}"})

    async with serving(hop) as base:
        assert (await run(context, f"{base}/5")).status is Health.PASS
        result = await run(context, f"{base}/6")
        assert (result.status, result.output) == (
            Health.FAIL,
            f"{base}/6: more than 5 redirects",
        )
        result = await run(context, f"{base}/1", follow_redirects=False)
        assert "status 302 Found, not 2xx" in result.output
        result = await run(context, f"{base}/1", follow_redirects=False, statuses=["3xx"])
        assert result.status is Health.PASS


async def test_a_slow_answer_warns_and_none_fails(context: PlainContext) -> None:
    async def late(request: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return await hello(request)

    never = asyncio.Event()

    async def stuck(request: web.Request) -> web.Response:
        await never.wait()
        return await hello(request)

    async with serving(late) as base:
        result = await run(context, base, slow="10ms")
        assert result.status is Health.WARN
        assert result.output.startswith(f"{base}: slow: it took 0.")
        assert (await run(context, base, slow="1m")).status is Health.PASS
    async with serving(stuck) as base:
        result = await run(context, base, timedelta(milliseconds=50))
        assert (result.status, result.output) == (
            Health.FAIL,
            f"{base}: no answer within 0.05 s",
        )
        never.set()


async def test_method_and_headers_are_sent(context: PlainContext) -> None:
    seen: list[tuple[str, str, str]] = []

    async def note(request: web.Request) -> web.Response:
        seen.append((request.method, request.headers["X-Shop"], request.headers["User-Agent"]))
        return web.Response()

    async with serving(note) as base:
        await run(context, base, method="HEAD", headers={"X-Shop": "a"})
        await run(context, base, method="POST", headers={"X-Shop": "b", "User-Agent": "c"})
    assert seen == [("HEAD", "a", "atlasd"), ("POST", "b", "c")]


async def test_each_run_connects_anew(context: PlainContext) -> None:
    peers = []

    async def note(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response()

    async with serving(note) as base:
        settings = HttpSettings.model_validate({"url": base})
        async with open_check(settings, context) as check:
            for _ in range(3):
                assert (await check.run(LONG)).status is Health.PASS
    assert len(set(peers)) == 3


async def test_a_unix_socket_takes_the_place_of_host_and_port(
    context: PlainContext, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    async with serving(hello, path=path) as base:
        result = await run(context, base, unix_socket=str(path), body="hello")
        assert result.status is Health.PASS
    result = await run(context, base, unix_socket=str(tmp_path / "none"))
    assert result.output == "http://shop.internal: no connection: no such file or directory"


async def test_nobody_there_fails(context: PlainContext) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    result = await run(context, url)
    assert result.status is Health.FAIL
    assert result.output.startswith(f"{url}: no connection: ")
    assert "refused" in result.output
    assert result.affected_endpoints == (url,)


async def test_a_name_that_means_nothing_is_a_verdict(context: PlainContext) -> None:
    result = await run(context, "http://nothing.invalid/", timedelta(seconds=20))
    assert result.status is Health.FAIL


@pytest.mark.parametrize(
    "raw",
    [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"\x00" * 99],
)
async def test_what_is_no_http_fails_in_one_line(context: PlainContext, raw: bytes) -> None:
    async with speaking(raw) as base:
        result = await run(context, base, body="ready")
    assert result.status is Health.FAIL
    assert result.output.startswith(f"{base}: no proper answer: ")
    assert "\n" not in result.output


async def test_passwords_and_queries_are_not_shown(context: PlainContext) -> None:
    async def guarded(request: web.Request) -> web.Response:
        good = request.headers.get("Authorization") == "Basic YWRhOnB3"
        return web.Response(status=500 if good else 401)

    async with serving(guarded) as base:
        secret = base.replace("//", "//ada:pw@") + "/x?token=abc"
        result = await run(context, secret)
    assert "status 500" in result.output
    shown = result.output + "".join(result.affected_endpoints)
    assert "pw" not in shown
    assert "abc" not in shown
    assert result.affected_endpoints == (f"{base}/x?…",)


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


async def test_an_unknown_certificate_fails_and_says_so(
    context: PlainContext, certificate: tuple[Path, Path]
) -> None:
    async with serving(hello, tls=server_tls(certificate)) as base:
        result = await run(context, base)
    assert (result.status, result.output) == (
        Health.FAIL,
        f"{base}: TLS: self-signed certificate",
    )


async def test_a_certificate_of_a_named_authority_passes(
    context: PlainContext, certificate: tuple[Path, Path]
) -> None:
    async with serving(hello, tls=server_tls(certificate)) as base:
        result = await run(context, base, ca_file=str(certificate[0]))
        assert result.status is Health.PASS
        other_name = base.replace("localhost", "127.0.0.1")
        result = await run(context, other_name, ca_file=str(certificate[0]))
    assert result.status is Health.FAIL
    assert "TLS: IP address mismatch" in result.output


async def test_without_verification_any_certificate_passes(
    context: PlainContext, certificate: tuple[Path, Path]
) -> None:
    async with serving(hello, tls=server_tls(certificate)) as base:
        assert (await run(context, base, verify_tls=False)).status is Health.PASS

        async def away(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": base})

        async with serving(away) as plain:
            assert (await run(context, plain, verify_tls=False)).status is Health.PASS
            assert (await run(context, plain)).status is Health.FAIL


async def test_plain_text_where_tls_is_expected_fails(context: PlainContext) -> None:
    async with serving(hello) as base:
        result = await run(context, base.replace("http:", "https:"))
    assert result.status is Health.FAIL


async def test_authorities_that_cannot_be_read_are_named(
    context: PlainContext, tmp_path: Path
) -> None:
    with pytest.raises(AtlasError) as caught:
        await run(context, "https://localhost", ca_file=str(tmp_path / "none.pem"))
    assert caught.value.code == "plugin.settings"
    assert str(tmp_path / "none.pem") in caught.value.message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Field required"),
        ({"url": "localhost"}, "expected a URL"),
        ({"url": "ftp://x"}, "expected a URL"),
        ({"url": "http://"}, "expected a URL"),
        ({"url": "http://x:99999"}, "not a URL"),
        ({"url": "http://x", "statuses": ["ok"]}, "expected a status"),
        ({"url": "http://x", "statuses": [99]}, "expected a status|between 100 and 599"),
        ({"url": "http://x", "statuses": ["500-400"]}, "between 100 and 599"),
        ({"url": "http://x", "statuses": []}, "at least 1 item"),
        ({"url": "http://x", "statuses": [True]}, "valid"),
        ({"url": "http://x", "body": "["}, "not a regular expression"),
        ({"url": "http://x", "slow": 5}, "in quotes and with its unit"),
        ({"url": "http://x", "slow": "0s"}, "greater than"),
        ({"url": "http://x", "method": "DELETE"}, "'GET', 'HEAD'"),
        ({"url": "http://x", "verify": False}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        HttpSettings.model_validate(settings)
