"""The api role: an HTTP server in front of core's control socket."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from atlasd import __version__
from atlasd.control.client import Client
from atlasd.daemon.ground import Ground, step
from atlasd.web.server import ApiServer, Core

_log = logging.getLogger("atlasd.daemon")


async def api_role(
    ground: Ground,
    over: asyncio.Event,
    ready: Callable[[str], object] = lambda _status: None,
) -> None:
    """Be api until `over` is set; `ready` is told the address.

    Raises `AtlasError` `api.listen` when it cannot be had.
    """
    host, _, port = ground.config.api.listen.rpartition(":")
    core = Core(Client(ground.paths.control_socket))
    server = ApiServer(core, host=host.strip("[]"), port=int(port), version=__version__)
    where = Path(ground.paths.run, "api.address")
    try:
        await server.start()
        _log.info("api listens on http://%s", server.address)
        _note(where, server.address)
        async with asyncio.TaskGroup() as group:
            plugins = group.create_task(
                ground.host.run("api", bus=None, settings=ground.config.plugins), name="api plugins"
            )
            ready(server.address)
            await over.wait()
            plugins.cancel()
    finally:
        _note(where, "")
        await step("the HTTP server", server.close())
        core.close()


def _note(where: Path, address: str) -> None:
    """Say where the role listens, for those who let it choose; nothing of atlasd depends on it."""
    with suppress(OSError):  # under systemd the role may not write here
        if address:
            where.write_text(address + "\n")
        else:
            where.unlink(missing_ok=True)
