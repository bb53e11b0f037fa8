"""`atlasd run`: services as a child process in its own session, the other roles as tasks here."""

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from atlasd import __version__
from atlasd.core.banner import banner
from atlasd.core.child import ServicesProcess
from atlasd.core.engine import SHUTDOWN_TIMEOUT, Core
from atlasd.daemon.api import api_role
from atlasd.daemon.core import core_role
from atlasd.daemon.ground import STEP, Ground, Stop, either, step
from atlasd.daemon.monitoring import monitoring_role
from atlasd.errors import AtlasError
from atlasd.paths import Paths, find

RETRY_FIRST = 1.0
RETRY_CAP = 30.0
"""Seconds before monitoring or api is tried again; the time doubles from the first to the cap."""
BANNER_PATIENCE = 5.0
"""Seconds that the banner waits for everything to be up."""

_log = logging.getLogger("atlasd.daemon")


async def run_role(ground: Ground, stop: Stop) -> None:
    """Be all roles until told to end; then stop everything in reverse order, services included.

    Only core is indispensable: monitoring and api are tried again when they fall.
    """
    child = ServicesProcess(
        socket_path=ground.paths.services_socket,
        log_file=str(Path(ground.paths.log, "services-role.log")),
        root=root_of(ground.paths),
    )
    core_over, monitoring_over, api_over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    core_up: asyncio.Future[Core] = asyncio.get_running_loop().create_future()
    addresses: list[str] = []

    async with asyncio.TaskGroup() as group:
        # Core comes up while services does, and connects as soon as it answers.
        services = group.create_task(child.ensure(), name="services role's start")
        group.create_task(core_role(ground, stop, core_over, core_up.set_result), name="core role")
        # Should core fail before it is up, the group ends this wait and everything else.
        try:
            core = await core_up
        except asyncio.CancelledError:
            child.dismiss(Path(ground.paths.run, "services", "target.json"))
            raise
        pid = await services
        _log.info("services role %s, pid %d", "found" if child.found else "started", pid)
        child.over = lambda: core.stopping
        keeper = group.create_task(child.keep(), name="services role")
        monitoring = group.create_task(
            _going("monitoring", lambda: monitoring_role(ground, stop, monitoring_over)),
            name="monitoring role",
        )
        api = group.create_task(
            _going("api", lambda: api_role(ground, api_over, addresses.append)), name="api role"
        )
        welcome = group.create_task(_welcome(ground, core, child, addresses), name="banner")
        await either(stop.event, core.ended)
        welcome.cancel()
        for what, over, task in (
            ("api", api_over, api),
            ("monitoring", monitoring_over, monitoring),
        ):
            over.set()
            await step(what, _quietly(task))
        core.shut_down(keep_services=False, actor=stop.by or "atlasd")
        await step("the services", core.ended.wait(), SHUTDOWN_TIMEOUT)
        if not await child.ended(STEP):
            _log.warning("the services role (pid %s) has not ended", child.pid)
        keeper.cancel()
        core_over.set()


async def _quietly(task: "asyncio.Task[None]") -> None:
    task_done, _ = await asyncio.wait({task}, timeout=STEP)
    if not task_done:
        task.cancel()


async def _going(what: str, make: Callable[[], Awaitable[None]]) -> None:
    """A role that may fall: it is begun again, after a while that grows."""
    pause = RETRY_FIRST
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await make()
        except AtlasError as error:
            _log.error("%s: %s%s", what, error.message, f" ({error.hint})" if error.hint else "")
        except Exception:  # noqa: BLE001  the others go on, and it is begun again
            _log.exception("%s has fallen", what)
        else:
            return
        if asyncio.get_running_loop().time() - began > 60.0:
            pause = RETRY_FIRST
        await asyncio.sleep(pause)
        pause = min(RETRY_CAP, pause * 2)


async def _welcome(
    ground: Ground, core: Core, child: ServicesProcess, addresses: list[str]
) -> None:
    specs = core.reconciler.resolved().specs
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BANNER_PATIENCE
    while loop.time() < deadline and not (  # noqa: ASYNC110  a few turns at start-up, then never
        core.converged and addresses and core.states.settled(len(specs))
    ):
        await asyncio.sleep(0.05)
    if not sys.stdout.isatty() and not os.environ.get("ATLASD_BANNER"):
        return
    text = banner(
        version=__version__,
        environment=ground.config.environment,
        root=root_of(ground.paths),
        programs=_folder_of_atlasctl(),
        api=addresses[-1] if addresses else "",
        adopted=child.found,
        status=core.states.line(),
        # What matters most makes the best example.
        services=sorted(specs, key=lambda name: (not specs[name].critical, name)),
    )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _folder_of_atlasctl() -> str | None:
    """Where atlasctl lies beside this program, unless a shell finds the same by its name."""
    beside = Path(sys.argv[0]).resolve().with_name("atlasctl")
    found = shutil.which("atlasctl")
    if not beside.exists() or (found and Path(found).resolve() == beside):
        return None
    return str(beside.parent)


def root_of(paths: Paths) -> str | None:
    """What `--root` would say to get these paths; None when no root was given."""
    base = str(Path(paths.run).parent)
    given = find(root=base, config=paths.config)
    return base if given == paths else None
