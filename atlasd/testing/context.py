"""A context for plugins under test: real threads, a folder, and notes of what was published."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

from atlasd.clock import Clock, RealClock
from atlasd.errors import AtlasError
from atlasd.events import Event
from atlasd.pluginhost.threads import PluginThreads

P = ParamSpec("P")
T = TypeVar("T")


class PlainContext:
    """An `atlasd.contracts.context.PluginContext` without a daemon. Close it at the end."""

    def __init__(
        self,
        state_dir: Path,
        *,
        clock: Clock | None = None,
        secrets: Mapping[str, str] | None = None,
        environment: str = "production",
        config_dir: Path | None = None,
    ) -> None:
        """`state_dir` is made when asked for; `clock` is the real one unless given."""
        self.environment = environment
        self.config_dir = config_dir or state_dir
        self.published: list[Event] = []
        """What the plugin has told, in order."""
        self.log = logging.getLogger("atlasd.plugins.under_test")
        self.clock: Clock = clock or RealClock()
        self._folder = state_dir
        self._secrets = dict(secrets or {})
        self._threads = PluginThreads("under_test")

    @property
    def state_dir(self) -> Path:
        """The plugin's own folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder

    def publish(self, event: Event) -> None:
        """Note a fact in `published`. Raises `TypeError` for anything else."""
        if not isinstance(event, Event):
            raise TypeError(f"only an Event can be published, not a {type(event).__name__}")
        self.published.append(event)

    async def secret(self, name: str) -> str:
        """One of the secrets it was made with. Raises `AtlasError("plugin.secret")` for others."""
        if name not in self._secrets:
            raise AtlasError("plugin.secret", f"there is no secret {name!r} in this test")
        return self._secrets[name]

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a blocking call, run in a thread as the daemon would."""
        return await self._threads.run(work, *args, **kwargs)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()
