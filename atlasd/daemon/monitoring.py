"""The monitoring role: runs the configured checks, with core or without it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from atlasd import notify
from atlasd.checks.run import CheckEngine, PlannedCheck
from atlasd.checks.schedule import Pace
from atlasd.clock import RealClock
from atlasd.config.load import Config
from atlasd.control.client import Client
from atlasd.control.following import Following
from atlasd.daemon.core import is_required
from atlasd.daemon.ground import Ground, Stop, either
from atlasd.errors import AtlasError
from atlasd.pluginhost.host import PluginHost

REPORT_TIMEOUT = 10.0

_log = logging.getLogger("atlasd.daemon")


async def monitoring_role(
    ground: Ground,
    stop: Stop,
    over: asyncio.Event,
    ready: Callable[[str], object] = lambda _status: None,
) -> None:
    """Be monitoring until `over` is set. In `atlasd run` the signals are core's to hear."""
    client = Client(ground.paths.control_socket)
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(1, thread_name_prefix="monitoring-core")

    async def report(verdicts: Sequence[dict[str, object]]) -> None:
        work = partial(client.call, "checks.report", timeout=REPORT_TIMEOUT, checks=list(verdicts))
        await loop.run_in_executor(threads, work)

    engine = CheckEngine(report, clock=RealClock())
    changed = asyncio.Event()
    following = Following(
        client,
        kind="config-loaded",
        connected=partial(_soon, loop, engine.report_all),
        happened=partial(_soon, loop, changed.set),
    )
    alone = ground.role == "monitoring"
    if alone:
        stop.on_reload = changed.set
        ground.vault.changed = lambda _name: _soon(loop, changed.set)
    following.start()
    config = ground.config
    try:
        ready(f"{len(config.checks)} checks")
        while not over.is_set():
            async with asyncio.TaskGroup() as group:
                work = [group.create_task(engine.run(planned(config, ground.host)), name="checks")]
                if alone or config.plugins is not None:
                    work.append(
                        group.create_task(
                            ground.host.run("monitoring", bus=None, settings=config.plugins),
                            name="monitoring plugins",
                        )
                    )
                await either(over, changed)
                for task in work:
                    task.cancel()
            if changed.is_set():
                changed.clear()
                config = await _reloaded(ground, config, alone=alone)
    finally:
        following.close()
        threads.shutdown(wait=False, cancel_futures=True)


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass  # the loop has ended before the thread did


async def _reloaded(ground: Ground, config: Config, *, alone: bool) -> Config:
    if alone:
        notify.reloading()
    try:
        found = await asyncio.to_thread(ground.load)
    except AtlasError as error:
        _log.error("checks stay as they were: %s", error.message)
        return config
    finally:
        if alone:
            notify.ready()
    if alone:
        ground.take(found)
        notify.status(f"{len(found.checks)} checks")
    return found


def planned(config: Config, host: PluginHost) -> list[PlannedCheck]:
    """The configured checks, as the engine runs them."""
    return [
        PlannedCheck(
            name=one.name,
            type=one.type.name,
            pace=Pace(interval=one.check.interval, deadline=one.check.deadline),
            service=one.check.service,
            required=is_required(one.check.service, one.check.optional, one.check.critical),
            open=partial(host.check, one.type.name, one.settings, name=one.name),
        )
        for one in config.checks
    ]
