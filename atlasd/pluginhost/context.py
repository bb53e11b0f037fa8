"""The context that one plugin works with, and the bounds of what it may publish and log."""

import copy
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from atlasd.clock import Clock
from atlasd.contracts.secrets import SecretValue
from atlasd.errors import AtlasError
from atlasd.events import Event
from atlasd.pluginhost.allowance import Allowance, Rate
from atlasd.pluginhost.ledger import Cause, Ledger
from atlasd.pluginhost.threads import PluginThreads

P = ParamSpec("P")
T = TypeVar("T")

EVENTS = Rate(per_second=50.0, burst=500)
"""What one plugin may publish."""
LOG_RECORDS = Rate(per_second=20.0, burst=200)
"""What one plugin may log."""


@dataclass(kw_only=True)
class Setting:
    """What all plugins of a role are told of where they are; known once the files were read."""

    environment: str = ""
    config_dir: Path = Path()
    secret: Callable[[str, str], Awaitable[SecretValue]] | None = None
    """The present value of a secret for a plugin; raises `AtlasError`."""


class Context:
    """A plugin's own `atlasd.contracts.context.PluginContext`."""

    def __init__(
        self,
        *,
        plugin: str,
        clock: Clock,
        state_dir: Path,
        publish: Callable[[Event], None],
        ledger: Ledger,
        setting: "Setting | None" = None,
    ) -> None:
        self._plugin = plugin
        self._setting = setting or Setting()
        self._clock = clock
        self._folder = state_dir
        self._publish = publish
        self._ledger = ledger
        self._threads = PluginThreads(plugin)
        self._events = Allowance(clock, EVENTS)
        self._log = logging.getLogger(f"atlasd.plugins.{plugin}")
        for old in [f for f in self._log.filters if isinstance(f, _Bounded)]:
            self._log.removeFilter(old)  # of a host that was there before, as in tests
        self._log.addFilter(_Bounded(plugin, Allowance(clock, LOG_RECORDS), ledger))

    @property
    def log(self) -> logging.Logger:
        """The plugin's logger, `atlasd.plugins.<plugin>`."""
        return self._log

    @property
    def clock(self) -> Clock:
        """The daemon's clock."""
        return self._clock

    @property
    def environment(self) -> str:
        """The environment in force."""
        return self._setting.environment

    @property
    def config_dir(self) -> Path:
        """The folder of the main configuration file."""
        return self._setting.config_dir

    @property
    def state_dir(self) -> Path:
        """The plugin's own folder, made when first asked for."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AtlasError(
                "plugin.state",
                f"plugin {self._plugin}: {self._folder} cannot be made: {error.strerror}",
                hint="the daemon's user must be able to write to its state folder",
            ) from error
        return self._folder

    def publish(self, event: Event) -> None:
        """Tell subscribers a fact, within the plugin's allowance."""
        if not isinstance(event, Event):
            raise TypeError(f"only an Event can be published, not a {type(event).__name__}")
        if self._events.take():
            self._publish(event)
        else:
            self._ledger.failed(
                self._plugin,
                "event",
                "publish",
                Cause.FLOODED,
                f"it publishes more than {EVENTS.per_second:.0f} facts a second: the surplus is "
                "lost",
            )

    async def secret(self, name: str) -> str:
        """The present value of a secret that the plugin's settings refer to."""
        fetch = self._setting.secret
        if fetch is None:
            raise AtlasError(
                "plugin.secret",
                f"plugin {self._plugin} asks for the secret {name!r}, which nobody gives it here",
                hint="it can be had once the configuration is in force",
            )
        value = await fetch(self._plugin, name)
        try:
            return value.text()
        except ValueError as error:
            raise AtlasError(
                "plugin.secret", f"plugin {self._plugin} asks for {name!r}: {error}"
            ) from None

    def within(self, environment: str) -> "Context":
        """The same context for another environment than the one in force."""
        if environment == self._setting.environment:
            return self
        other = copy.copy(self)
        other._setting = replace(self._setting, environment=environment)  # noqa: SLF001  a copy
        return other

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a blocking call in one of the plugin's threads."""
        return await self._threads.run(work, *args, **kwargs)

    def close(self) -> None:
        """Let the plugin's threads end."""
        self._threads.close()


class _Bounded(logging.Filter):
    """Lets a plugin's records through within its allowance, with the plugin's name on them."""

    def __init__(self, plugin: str, allowance: Allowance, ledger: Ledger) -> None:
        super().__init__()
        self._plugin = plugin
        self._allowance = allowance
        self._ledger = ledger

    def filter(self, record: logging.LogRecord) -> bool:
        record.plugin = self._plugin
        if self._allowance.take():
            return True
        self._ledger.failed(
            self._plugin,
            "log",
            "log",
            Cause.FLOODED,
            f"it logs more than {LOG_RECORDS.per_second:.0f} records a second: the surplus is lost",
        )
        return False
