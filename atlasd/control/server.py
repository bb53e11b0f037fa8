"""The control socket's server: binds handlers to the table of operations, over aiohttp.

A handler is called with the validated request and the `Caller`. For an ordinary operation it is
awaited and returns the answer's model (or `str` where the table says so). For a stream it is
awaited too, and returns an async iterator of models, or of whole lines as bytes: what it raises
before it returns (`service.unknown`) is an ordinary error answer. Raise `AtlasError` for what is
expected; anything else is answered with a reference to the log.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from atlasd import __version__
from atlasd.clock import Clock, RealClock
from atlasd.contracts.authorization import Actor, Decision
from atlasd.contracts.operations import Operation as PluginOperation
from atlasd.control import models, openapi
from atlasd.control.requests import body_of, refuse_strangers, request_from
from atlasd.control.rights import Caller, caller_of, demand
from atlasd.control.socketfile import ControlSocket
from atlasd.control.streams import Stream
from atlasd.control.wire import (
    BODY_LIMIT,
    LINE_LIMIT,
    OPERATIONS,
    PLUGIN_PREFIX,
    VERSION_HEADER,
    Operation,
    Right,
)
from atlasd.errors import AtlasError, nearest
from atlasd.logs import protocol_log

Answer = BaseModel | str
Lines = AsyncIterator[BaseModel | bytes]
Handler = Callable[[Any, Caller], Awaitable[Answer | Lines]]
Authorize = Callable[[Actor, str], Decision | None]
"""Asked with the operation's name, after the peer's rights have been found sufficient."""
Handle = Callable[[PluginOperation, Any], Awaitable[BaseModel]]
"""Calls a plugin's operation with its validated request, guarded."""

_log = logging.getLogger("atlasd.control")

# The server answers these from what it has itself.
_OWN = frozenset({"openapi"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """An operation with all that it takes to serve it."""

    operation: Operation
    request: type[BaseModel]
    answer: type[BaseModel] | None
    """None: plain text."""
    handler: Handler


class ControlServer:
    """Serves the table of operations on one unix socket."""

    def __init__(
        self,
        path: str,
        handlers: Mapping[str, Handler],
        *,
        authorize: Authorize | None = None,
        clock: Clock | None = None,
        identify: Callable[[Any], Caller] = caller_of,
        stream_limit: int = 1024,
    ) -> None:
        """Bind `handlers`, by operation name, to the table.

        `identify` tells who opened a connection; `stream_limit` is the number of lines that a
        lossy stream holds for a slow reader. Raises `AtlasError` `operation.unknown` when a
        handler is missing, or when one has no row.
        """
        self._socket = ControlSocket(path)
        self._authorize = authorize
        self._clock = clock or RealClock()
        self._identify = identify
        self._stream_limit = stream_limit
        self._bound: dict[str, Bound] = {}
        self._streams: set[Stream] = set()
        self._work: set[asyncio.Task[Answer | Lines]] = set()
        self._runner: web.AppRunner | None = None
        self._stopping = False
        names = {operation.name for operation in OPERATIONS}
        missing = sorted(names - handlers.keys() - _OWN)
        extra = sorted(handlers.keys() - names)
        if missing or extra:
            what = ", ".join([*(f"{n} has no handler" for n in missing), *extra])
            raise AtlasError(
                "operation.unknown",
                f"the control socket cannot be served: {what}",
                hint="every row of the table of operations needs one handler, and no others",
            )
        for operation in OPERATIONS:
            handler = self._openapi if operation.name in _OWN else handlers[operation.name]
            self._bound[operation.name] = Bound(
                operation=operation,
                request=getattr(models, operation.request),
                answer=None if operation.answer == "str" else getattr(models, operation.answer),
                handler=handler,
            )

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Every operation that is served, plugins' included."""
        return tuple(bound.operation for bound in self._bound.values())

    def register_operations(
        self, plugin: str, added: Iterable[PluginOperation], handle: Handle
    ) -> None:
        """Add a plugin's operations; their paths are put below `/v1/plugins/<plugin>/`.

        Must happen before `start`. Raises `AtlasError` `plugin.refused` for a path or a name that
        is taken.
        """
        assert self._runner is None, "operations are registered before start"
        for offered in added:
            operation = Operation(
                name=offered.name,
                method=offered.method,
                path=f"{PLUGIN_PREFIX}/{plugin}/{offered.path.strip('/')}",
                request=offered.request.__name__,
                answer=offered.answer.__name__,
                right=Right(offered.right),
                summary=offered.summary,
                owner=plugin,
            )
            taken = {(b.operation.method, b.operation.path) for b in self._bound.values()}
            if operation.name in self._bound or (operation.method, operation.path) in taken:
                raise AtlasError(
                    "plugin.refused",
                    f"plugin {plugin}: the operation {operation.name} "
                    f"({operation.method} {operation.path}) is there already",
                    hint="give it another name and path",
                )
            self._bound[operation.name] = Bound(
                operation=operation,
                request=offered.request,
                answer=offered.answer,
                handler=_plugin_handler(offered, handle),
            )

    async def start(self) -> None:
        """Open the socket and serve.

        Raises `AtlasError` `daemon.running` when another daemon serves it, `daemon.directory` when
        the socket cannot be made.
        """
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[self._shape])
        for bound in self._bound.values():
            app.router.add_route(
                bound.operation.method, bound.operation.path, self._endpoint(bound)
            )
        app.on_response_prepare.append(_name_ourselves)
        runner = web.AppRunner(
            app,
            access_log=None,
            # A reader that goes away ends its stream at once, even while nothing happens.
            handler_cancellation=True,
            shutdown_timeout=2.0,
            # A hundred services can be named in one query.
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            logger=protocol_log("atlasd.control.http"),
        )
        listening = self._socket.open()
        try:
            await runner.setup()
            await web.SockSite(runner, listening).start()
        except BaseException:
            self._socket.close()
            raise
        self._runner = runner

    async def close(self) -> None:
        """End every stream with `core.stopping`, finish answers under way, remove the file."""
        self._stopping = True
        for stream in tuple(self._streams):
            stream.end(AtlasError("core.stopping", "core is shutting down"))
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._socket.close()

    # --- one request

    def _endpoint(self, bound: Bound) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        operation = bound.operation

        async def answer(request: web.Request) -> web.StreamResponse:
            caller = self._admit(request, operation)
            fields = dict(request.match_info)
            if operation.method == "GET":
                asked = request_from(operation, bound.request, fields, query=request.query)
            else:
                body = body_of(operation, request.content_type, await request.read())
                asked = request_from(operation, bound.request, fields, body=body)
            given = await self._call(bound, asked, caller)
            if operation.stream:
                assert not isinstance(given, BaseModel | str)
                return await self._stream(request, operation, given)
            return _response(operation, given)

        return answer

    def _admit(self, request: web.Request, operation: Operation) -> Caller:
        transport = request.transport
        peer = transport.get_extra_info("socket") if transport is not None else None
        if peer is None:
            raise AtlasError("operation.denied", "the caller has gone away")
        caller = self._identify(peer)
        demand(caller, operation)
        if self._authorize is not None:
            assert caller.right is not None
            actor = Actor(uid=caller.uid, gid=caller.gid, pid=caller.pid, right=caller.right)
            decision = self._authorize(actor, operation.name)
            if decision is not None and not decision.allowed:
                raise AtlasError(
                    "operation.denied",
                    f"a plugin refuses {operation.name} to {caller.actor}",
                    hint=decision.reason or "`atlasctl plugins` shows which plugins there are",
                )
        if self._stopping:
            raise AtlasError("core.stopping", "core is shutting down")
        return caller

    async def _call(self, bound: Bound, asked: BaseModel, caller: Caller) -> Answer | Lines:
        async def work() -> Answer | Lines:
            return await bound.handler(asked, caller)

        # An operation that has begun is finished even when the caller hangs up: half a scaling
        # would be worse than one that nobody waited for.
        task = asyncio.create_task(work(), name=f"control {bound.operation.name}")
        self._work.add(task)
        task.add_done_callback(self._worked)
        return await asyncio.shield(task)

    def _worked(self, task: "asyncio.Task[Answer | Lines]") -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # read, so that one whose caller hung up is not reported as unread

    async def _stream(
        self, request: web.Request, operation: Operation, lines: Lines
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": operation.media})
        # nginx and the like would hold lines back otherwise, should one ever stand in between.
        response.headers["X-Accel-Buffering"] = "no"
        stream = Stream(
            lines,
            response,
            limit=self._stream_limit if operation.lossy else None,
            clock=self._clock,
            explain=lambda fault: explain(fault, operation.name),
        )
        self._streams.add(stream)
        try:
            await response.prepare(request)
            if self._stopping:
                stream.end(AtlasError("core.stopping", "core is shutting down"))
            await stream.run()
            await response.write_eof()
        except (ConnectionResetError, BrokenPipeError):
            _log.debug("the reader of %s went away", operation.name)
        finally:
            self._streams.discard(stream)
        return response

    async def _openapi(self, asked: models.Nothing, caller: Caller) -> Answer:
        del asked, caller
        return models.OpenApi(openapi.document(self._bound.values()))

    @web.middleware
    async def _shape(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Give every refusal atlasd's own shape, and every surprise a reference."""
        try:
            refuse_strangers(request.headers)
            return await handler(request)
        except AtlasError as error:
            return _failure(error)
        except web.HTTPRequestEntityTooLarge:
            return _failure(
                AtlasError(
                    "request.too_large",
                    f"the request's body is larger than {BODY_LIMIT} bytes",
                )
            )
        except web.HTTPMethodNotAllowed as fault:
            allowed = sorted(fault.allowed_methods)
            answer = _failure(
                AtlasError(
                    "operation.method",
                    f"{request.path} does not know the method {request.method}",
                    hint=f"use {' or '.join(allowed)}",
                )
            )
            answer.headers["Allow"] = ", ".join(allowed)
            return answer
        except web.HTTPNotFound:
            paths = tuple({b.operation.path for b in self._bound.values()})
            return _failure(
                AtlasError(
                    "operation.unknown",
                    f"no operation has the path {request.path}",
                    hint=nearest(request.path, paths),
                )
            )
        except web.HTTPException as fault:
            return _failure(AtlasError("request.invalid", fault.reason))
        except Exception as fault:  # noqa: BLE001  whatever it is, the caller gets a reference
            return _failure(explain(fault, f"{request.method} {request.path}"))


def _plugin_handler(offered: PluginOperation, handle: Handle) -> Handler:
    async def handler(request: Any, caller: Caller) -> Answer:
        del caller
        return await handle(offered, request)

    return handler


def explain(fault: Exception, doing: str) -> AtlasError:
    """The error as it is if it explains itself, else one with a reference to the log."""
    if isinstance(fault, AtlasError):
        return fault
    reference = secrets.token_hex(4)
    _log.error("unexpected error %s in %s", reference, doing, exc_info=fault)
    return AtlasError(
        "internal",
        f"an unexpected error in {doing}; its reference is {reference}",
        hint=f"core's log has the details: look for {reference}",
        details={"reference": reference},
    )


def _response(operation: Operation, given: Answer | Lines) -> web.Response:
    if isinstance(given, str):
        return web.Response(body=given.encode(), headers={"Content-Type": operation.media})
    assert isinstance(given, BaseModel), f"{operation.name} answered {type(given).__name__}"
    return web.Response(
        body=given.model_dump_json().encode(), headers={"Content-Type": operation.media}
    )


def _failure(error: AtlasError) -> web.Response:
    body = json.dumps(error.to_wire(), default=str)
    return web.Response(
        status=error.kind.status, body=body.encode(), content_type="application/json"
    )


async def _name_ourselves(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers["Server"] = "atlasd"
    response.headers[VERSION_HEADER] = __version__
    response.headers["Cache-Control"] = "no-store"
