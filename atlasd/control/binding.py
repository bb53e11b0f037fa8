"""Binds methods that speak in plain values to the table: requests unpacked, answers validated."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

from pydantic import BaseModel

from atlasd.clock import Clock
from atlasd.control import models
from atlasd.control.rights import CALLER, Caller
from atlasd.control.server import Answer, Handler, Lines
from atlasd.control.wire import BY_NAME, Operation
from atlasd.errors import AtlasError

Method = Callable[..., Awaitable[Any]]
"""Takes `actor` and the request's fields by name; gives a body, text, or an iterator of bodies."""


class Performed(Protocol):
    """Hears of every operation that was asked for."""

    def __call__(
        self,
        operation: Operation,
        *,
        began: float,
        actor: str,
        request: BaseModel,
        error: AtlasError | None,
    ) -> object:
        """`began` is wall time, seconds since the epoch; `error` is None when it was done."""


def bind(
    methods: Mapping[str, Method], *, performed: Performed, clock: Clock
) -> dict[str, Handler]:
    """A handler for each method, by operation name. Raises `KeyError` for a name without a row."""
    return {
        name: _handler(BY_NAME[name], method, performed, clock) for name, method in methods.items()
    }


def _handler(operation: Operation, method: Method, performed: Performed, clock: Clock) -> Handler:
    model = None if operation.answer == "str" else getattr(models, operation.answer)

    async def handler(request: Any, caller: Caller) -> Answer | Lines:
        fields = {name: getattr(request, name) for name in type(request).model_fields}
        tell = partial(
            performed, operation, began=clock.wall(), actor=caller.actor, request=request
        )
        CALLER.set(caller)
        try:
            given = await method(actor=caller.actor, **fields)
        except AtlasError as error:
            tell(error=error)
            raise
        tell(error=None)
        if model is None:
            assert isinstance(given, str)
            return given
        if operation.stream:
            return _lines(given, model)
        # Bodies are made of plain lists, words and numbers; the model puts them into shape.
        found = model.model_validate(given, strict=False)
        assert isinstance(found, BaseModel)
        return found

    return handler


async def _lines(
    given: AsyncGenerator[Mapping[str, Any] | bytes, None], model: type[BaseModel]
) -> AsyncIterator[BaseModel | bytes]:
    async with aclosing(given) as items:
        async for item in items:
            yield item if isinstance(item, bytes) else model.model_validate(item, strict=False)
