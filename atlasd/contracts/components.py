"""What a component promises: a long-running part of the daemon that a plugin brings along."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from atlasd.contracts.context import PluginContext
from atlasd.contracts.settings import NoSettings


class Part(Protocol):
    """A component that has been opened."""

    async def run(self) -> None:
        """Work until cancelled; returning means that there is nothing left to do.

        What is raised is counted, and the component is opened and run again after a delay that
        grows with each failure in a row.
        """


@dataclass(frozen=True, kw_only=True)
class Component:
    """A long-running part, as `register_components` returns it."""

    name: str
    summary: str
    open: Callable[[Any, PluginContext], AbstractAsyncContextManager[Part]]
    role: Literal["core", "monitoring", "api"] = "core"
    """The one role in which it runs."""
    settings: type[BaseModel] = NoSettings
    """Of the table `[plugins.NAME]`, NAME being the component's."""
    requires: tuple[str, ...] = ()
    extra: str = ""
