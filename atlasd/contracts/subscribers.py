"""What a subscriber promises: to handle facts, one after the other, in its own time."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import NoSettings
from atlasd.events import Event


class Handler(Protocol):
    """A subscriber that has been opened."""

    async def handle(self, event: Event) -> None:
        """Take one fact; called in the order in which facts were published, never twice at once.

        A subscriber that is too slow for its queue loses the oldest facts and is handed one
        `EventsLost` in their place. What is raised is counted; the next fact comes all the same.
        """


@dataclass(frozen=True, kw_only=True)
class Subscriber:
    """A reader of facts, as `register_subscribers` returns it."""

    name: str
    summary: str
    open: Callable[[Any, PluginContext], AbstractAsyncContextManager[Handler]]
    """Called once, when core is up."""
    kinds: tuple[str, ...] | None = None
    """Words of `atlasd.events` that it wants, as `transition`; None for every fact."""
    settings: type[BaseModel] = NoSettings
    """Of the table `[plugins.NAME]`, NAME being the subscriber's."""
    requires: tuple[str, ...] = ()
    extra: str = ""
