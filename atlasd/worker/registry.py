"""Handlers: functions that are called with a job's arguments, by the kind of the job."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar

from atlasd.worker.client import Client, Enqueued, shared

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = (
    "queue", "delay", "run_at", "priority", "max_attempts", "retry", "timeout", "stall_after",
    "expires_in", "fair_key", "target", "unique", "tags", "then", "keep_result",
)  # fmt: skip


class Handler(Generic[P, R]):
    """A function that jobs of one kind are run by; called directly, it is just that function."""

    def __init__(self, function: Callable[P, R], kind: str, options: Mapping[str, Any]) -> None:
        self.function = function
        self.kind = kind
        self.options = dict(options)
        self.is_async = inspect.iscoroutinefunction(function)
        signature = inspect.signature(function)
        taken = [name for name in signature.parameters if name in _OPTIONS]
        if taken:
            raise TypeError(
                f"{kind}: no argument can be called {taken[0]!r}: `enqueue` takes it for "
                "an option of the job"
            )
        self._signature = signature
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now."""
        return self.function(*args, **kwargs)

    def enqueue(self, *, client: Client | None = None, **said: Any) -> Enqueued:
        """Enqueue a job with these arguments; options of the job stand among them.

        Raises `TypeError` for arguments that the function doesn't take, at once and not in the
        worker, and what `Client.enqueue` raises.
        """
        options = {name: said.pop(name) for name in _OPTIONS if name in said}
        self._signature.bind(**said)
        return (client or shared()).enqueue(self.kind, said, **{**self.options, **options})

    def enqueue_many(
        self, args: Iterable[Mapping[str, Any]], *, client: Client | None = None, **options: Any
    ) -> list[Enqueued]:
        """Enqueue a job for each of `args`."""
        return (client or shared()).enqueue_many(self.kind, args, **{**self.options, **options})


HANDLERS: dict[str, Handler[..., Any]] = {}
"""Every handler that was declared in this process, by kind."""


def job(kind: str, **options: Any) -> Callable[[Callable[P, R]], Handler[P, R]]:
    """Declare a function, plain or async, as the handler of a kind of job.

    `options` hold for each job that `enqueue` makes, unless it says otherwise. Raises `TypeError`
    for unknown ones, and `ValueError` for a kind that has a handler already.
    """
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise TypeError(f"{kind}: unknown option {unknown[0]!r}; known: {', '.join(_OPTIONS)}")

    def declare(function: Callable[P, R]) -> Handler[P, R]:
        known = HANDLERS.get(kind)
        if known is not None and (
            known.function.__module__, known.function.__qualname__
        ) != (function.__module__, function.__qualname__):  # fmt: skip
            raise ValueError(f"{kind} has a handler already: {known.function.__qualname__}")
        handler = Handler(function, kind, options)
        HANDLERS[kind] = handler
        return handler

    return declare
