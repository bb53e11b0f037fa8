"""What a plugin is given to work with: narrow on purpose, and never the daemon itself."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from atlasd.clock import Clock
from atlasd.events import Event

P = ParamSpec("P")
T = TypeVar("T")


class PluginContext(Protocol):
    """What `open` of every descriptor is handed; it belongs to one plugin."""

    @property
    def log(self) -> logging.Logger:
        """A logger whose records carry the plugin's name; a flood of them is cut and counted."""

    @property
    def clock(self) -> Clock:
        """The time. Using it rather than the `time` module lets tests wind it by hand."""

    @property
    def environment(self) -> str:
        """The name of the environment in force: `production`."""

    @property
    def config_dir(self) -> Path:
        """The folder of the main configuration file.

        The plugin only reads there, but for what an operator asks of it: to make a key.
        """

    @property
    def state_dir(self) -> Path:
        """A folder of the plugin's own that outlives the daemon.

        It is made, with mode 0700, when first asked for. Raises `AtlasError("plugin.state")`
        when it cannot be.
        """

    def publish(self, event: Event) -> None:
        """Tell every subscriber a fact; may be called from any thread, never waits.

        A plugin that publishes more than its allowance loses the surplus, and is counted. Raises
        `TypeError` for anything but an `Event`.
        """

    async def secret(self, name: str) -> str:
        """The present value of a secret. Raises `AtlasError("plugin.secret")` if it has none."""

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a blocking call, run in one of the plugin's own threads.

        Raises what `work` raises, and `AtlasError("plugin.busy")` when so many of the plugin's
        calls already wait for a thread that another one would never get its turn. A call that is
        cancelled goes on in its thread until it returns: pass time limits to what blocks.
        """
