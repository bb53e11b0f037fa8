"""What a health check promises: a type with strict settings, opened into something that runs."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from pydantic import BaseModel

from atlasd.contracts.context import PluginContext
from atlasd.states import Health

__all__ = ["Check", "CheckResult", "CheckType", "Health"]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One verdict."""

    status: Health
    """pass, warn or fail; unknown when the check itself could not be carried out."""
    output: str = ""
    """What a person should read; needed unless it passes. Cut at 8,000 characters."""
    observed_value: float | int | str | None = None
    """What was measured, if anything."""
    observed_unit: str | None = None
    """Its unit: `s`, `By`, `1`."""
    affected_endpoints: tuple[str, ...] = ()
    """URLs or addresses that cannot be used while this fails."""


class Check(Protocol):
    """A check that has been opened with its settings."""

    async def run(self, limit: timedelta, /) -> CheckResult:
        """The verdict now; called again and again, never twice at the same time.

        A target that is down, or does not answer within `limit`, is a verdict and not an
        exception. What is raised counts as a failure of the plugin, and so does a run that goes on
        for a second longer than `limit`: it is cancelled. The check is then unknown. What blocks
        goes through `context.in_thread`: in here it would hold up every other check.
        """


@dataclass(frozen=True, kw_only=True)
class CheckType:
    """A kind of check, as `register_health_checks` returns it."""

    name: str
    """What configuration says: `type = "http"`."""
    summary: str
    """One line for `atlasctl plugins`."""
    settings: type[BaseModel]
    """Strict model of the check's own settings: a subclass of `atlasd.contracts.settings.Settings`.
    How often and how long it runs isn't among them: that is the same for all checks."""
    open: Callable[[Any, PluginContext], AbstractAsyncContextManager[Check]]
    """Called with the validated settings once for each configured check; what it holds is given
    back when the context ends. A target that is down must not keep it from opening."""
    measurement: str = ""
    """What `observed_value` measures, as health+json names it: `responseTime`."""
    component_type: str = "component"
    """health+json's kind of target: component, datastore or system."""
    requires: tuple[str, ...] = ()
    """Modules that `open` imports; looked for when the plugin is admitted."""
    extra: str = ""
    """The extra of the plugin's distribution that brings them: `pip install 'atlasd[extra]'`."""
