"""The api role's HTTP server: a client of core that holds no state and no secrets."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from atlasd.control.client import Client
from atlasd.errors import AtlasError
from atlasd.logs import protocol_log
from atlasd.web import health
from atlasd.web.metrics import MEDIA as METRICS_MEDIA
from atlasd.web.metrics import ApiMetrics

CORE_TIMEOUT = 4.0
"""Seconds that core may take to answer; a prober's patience is rarely longer than ten."""
SHARED_FOR = 0.2
"""Seconds for which one answer of core's serves everybody who asks for the same."""

_log = logging.getLogger("atlasd.web")


class Core:
    """Core as the api role knows it: asked in threads, once for all who ask at the same time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="api-core")
        self._answers: dict[tuple[str, str], tuple[float, asyncio.Future[Any]]] = {}

    async def ask(self, name: str, **fields: str) -> Any:
        """The decoded answer of an operation; raises as `Client.call` does."""
        return await self._shared(
            (name, fields.get("service", "")),
            lambda: self._client.call(name, timeout=CORE_TIMEOUT, **fields),
        )

    async def text(self, name: str) -> str:
        """The answer of an operation as text; raises as `Client.call` does."""
        found = await self._shared(
            (name, ""), lambda: self._client.text(name, timeout=CORE_TIMEOUT)
        )
        return str(found)

    async def _shared(self, key: tuple[str, str], work: Callable[[], Any]) -> Any:
        now = time.monotonic()
        when, future = self._answers.get(key, (0.0, None))
        if future is None or (future.done() and now - when > SHARED_FOR):
            if len(self._answers) > 1000:
                # Names of services that nobody has; whoever waits for one still gets it.
                self._answers.clear()
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
            # Read even if everybody who asked has gone.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._answers[key] = (now, future)
        async with asyncio.timeout(CORE_TIMEOUT + 1):
            return await asyncio.shield(future)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class ApiServer:
    """Serves health and metrics on one TCP address."""

    def __init__(self, core: Core, *, host: str, port: int, version: str) -> None:
        self._core = core
        self._host = host
        self._port = port
        self._version = version
        self._metrics = ApiMetrics()
        self._runner: web.AppRunner | None = None
        self.address = ""
        """HOST:PORT that is listened on, once started."""

    async def start(self) -> None:
        """Listen. Raises `AtlasError` `api.listen` when the address cannot be had."""
        app = web.Application(client_max_size=64 * 1024, middlewares=[self._shape])
        app.router.add_get("/", self._index)
        app.router.add_get("/health", self._health)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/health/services/{service}", self._service)
        app.router.add_get("/metrics", self._scrape)
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=2.0,
            keepalive_timeout=30.0,
            logger=protocol_log("atlasd.web.http"),
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise AtlasError(
                "api.listen",
                f"the api role cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="choose another address: api.listen in atlasd.toml",
            ) from None
        self._runner = runner
        host, port = runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Finish what is being answered, and close the socket."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # --- answers

    async def _index(self, request: web.Request) -> web.Response:
        del request
        return web.Response(
            text="atlasd: /health /health/live /health/ready /health/services/NAME /metrics\n"
        )

    async def _live(self, request: web.Request) -> web.Response:
        return self._answer(request, health.live(version=self._version))

    async def _health(self, request: web.Request) -> web.Response:
        return self._answer(request, await self._of_host())

    async def _ready(self, request: web.Request) -> web.Response:
        return self._answer(request, health.ready(await self._of_host()))

    async def _of_host(self) -> Mapping[str, Any]:
        return await self._or_gone(self._core.ask("health"))

    async def _or_gone(self, asked: Awaitable[Any]) -> Mapping[str, Any]:
        try:
            body = await asked
        except TimeoutError:
            return health.core_gone("it took too long", version=self._version)
        except AtlasError as error:
            if error.kind.status == 404:
                raise
            return health.core_gone(error.message, version=self._version)
        assert isinstance(body, dict)
        return body

    async def _service(self, request: web.Request) -> web.Response:
        if not _local(request):
            # Which names exist is a detail too: a stranger hears the same of all of them.
            return self._answer(request, await self._of_host())
        name = request.match_info["service"]
        return self._answer(
            request, await self._or_gone(self._core.ask("health.service", service=name))
        )

    async def _scrape(self, request: web.Request) -> web.Response:
        if not _local(request):
            raise AtlasError(
                "operation.denied",
                "metrics are open to this host only",
                hint="scrape them on the host itself, as http://127.0.0.1:8000/metrics",
            )
        try:
            text: str | None = await self._core.text("metrics")
        except (AtlasError, TimeoutError):
            text = None
        return web.Response(
            body=self._metrics.scrape(text).encode(), headers={"Content-Type": METRICS_MEDIA}
        )

    def _answer(self, request: web.Request, body: Mapping[str, Any]) -> web.Response:
        told = body if _local(request) else health.undetailed(body)
        # A field that does not apply is left out: the draft has no nulls.
        text = json.dumps(_pruned(told), default=str, indent=2) + "\n"
        return web.Response(
            status=health.status_of(body), body=text.encode(), content_type=health.MEDIA
        )

    @web.middleware
    async def _shape(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        began = time.monotonic()
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "other"
        response: web.StreamResponse
        try:
            response = await handler(request)
        except AtlasError as error:
            response = _failure(error)
        except web.HTTPException as fault:
            response = _failure(
                AtlasError(
                    "operation.unknown" if fault.status == 404 else "request.invalid",
                    f"{request.method} {request.path}: {fault.reason}",
                    hint="GET /health, /health/live, /health/ready or /metrics",
                ),
                status=fault.status,
            )
        except Exception:  # noqa: BLE001  whatever it is, the caller gets an answer
            _log.exception("unexpected error in %s %s", request.method, request.path)
            response = _failure(AtlasError("internal", "an unexpected error; see atlasd's log"))
        response.headers["Server"] = "atlasd"
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        self._metrics.requests.labels(route, str(response.status)).inc()
        self._metrics.duration.labels(route).observe(time.monotonic() - began)
        return response


def _local(request: web.Request) -> bool:
    return health.is_local(request.remote, request.headers)


def _pruned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    return value


def _failure(error: AtlasError, *, status: int | None = None) -> web.Response:
    return web.Response(
        status=status or error.kind.status,
        body=json.dumps(error.to_wire()).encode(),
        content_type="application/json",
    )
