"""Composition: builds the roles out of the engines, and turns their loops; no logic of its own."""

import asyncio
import faulthandler
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atlasd import logs, notify, privacy
from atlasd.config.load import Problem
from atlasd.config.load import check as check_config
from atlasd.daemon.ground import (
    Ground,
    Reader,
    Stop,
    applications,
    lay,
    lock,
    offers,
    plugins,
    raise_nofile,
    sources,
    watchdog,
)
from atlasd.daemon.secrets import Vault
from atlasd.daemon.turning import flush, turn
from atlasd.errors import EXIT_OK, AtlasError
from atlasd.paths import Paths

__all__ = ["check", "configuration", "main", "secrets", "take_over"]


def main(
    role: str,
    *,
    paths: Paths,
    config_file: Path | None,
    env: str | None,
    overrides: Sequence[str] = (),
) -> int:
    """Run `role` (run, core, api or monitoring) until it is told to end; the exit code.

    `paths` knows of `config_file` already. Raises `AtlasError` for what keeps it from starting.
    """
    del config_file
    privacy.keep_memory_private()
    logs.configure(role=role)
    faulthandler.enable()
    raise_nofile()
    held: int | None = None
    if role != "api":  # it writes nothing, and its address is its lock
        paths.prepare()
        held = lock(paths, "core" if role == "run" else role)
    try:
        ground = lay(role, paths, env, overrides)
        over = turn(_turn(ground))
        ground.vault.close()
        ground.host.close()
    finally:
        if held is not None:
            os.close(held)
    if not over:
        flush()
        os._exit(EXIT_OK)
    return EXIT_OK


def check(*, paths: Paths, env: str | None, overrides: Sequence[str] = ()) -> Sequence[Problem]:
    """Everything that is wrong with the configuration, errors first; see `atlasd.config.load`."""
    logs.configure(role="check", level="error")
    host = plugins(paths, [])
    vault = Vault(host, paths, "check", keeps=False)
    try:
        return check_config(
            paths,
            sources(host),
            env=env,
            overrides=overrides,
            offers=offers(host),
            resolve=vault.resolve,
            applications=applications("check", paths),
        )
    finally:
        vault.close()


def configuration(
    operation: str,
    request: Mapping[str, object],
    *,
    paths: Paths,
    env: str | None,
    overrides: Sequence[str] = (),
) -> Mapping[str, object]:
    """The answer to an operation on the configuration from the files alone, without a daemon."""
    from atlasd.daemon.offline import perform

    logs.configure(role="config", level="error")
    host = plugins(paths, [])
    vault = Vault(host, paths, "check", keeps=False)
    reader = Reader(role="check", paths=paths, env=env, overrides=overrides, host=host, vault=vault)
    try:
        return asyncio.run(perform(operation, request, reader))
    finally:
        vault.close()
        host.close()


def secrets(
    operation: str,
    request: Mapping[str, object],
    *,
    paths: Paths,
    env: str | None,
    tell: Callable[[Mapping[str, object]], object],
) -> None:
    """Perform an operation on secrets without a daemon; `tell` is handed each body of the answer.

    Raises `AtlasError` `daemon.running` when there is one.
    """
    from atlasd.daemon.offline_secrets import perform

    logs.configure(role="secret", level="error")

    async def all_of_it() -> None:
        async for body in perform(operation, request, paths, env):
            tell(body)

    asyncio.run(all_of_it())


def take_over(**given: Any) -> tuple[list[str], dict[str, Any]]:
    """Take over existing configuration; see `atlasd.daemon.importing.take_over`."""
    from atlasd.daemon.importing import take_over as take

    return take(**given)


async def _turn(ground: Ground) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.set_name(f"atlasd {ground.role}")
    stop = Stop()
    stop.listen()
    try:
        async with asyncio.TaskGroup() as group:
            # Each role imports what it needs, and no other.
            if ground.role == "run":
                from atlasd.daemon.run import run_role

                group.create_task(run_role(ground, stop), name="run")
                return
            if ground.role == "core":
                from atlasd.daemon.core import core_role

                group.create_task(core_role(ground, stop, stop.event), name="core")
                return
            pings = group.create_task(watchdog({}).run(), name="watchdog")
            if ground.role == "monitoring":
                from atlasd.daemon.monitoring import monitoring_role

                await monitoring_role(ground, stop, stop.event, notify.ready)
            else:
                from atlasd.daemon.api import api_role

                await api_role(ground, stop.event, notify.ready)
            pings.cancel()
    except* AtlasError as failed:
        raise first_of(failed) from None


def first_of(group: BaseExceptionGroup[AtlasError]) -> AtlasError:
    """The first error in a group, however deep it lies."""
    found = group.exceptions[0]
    return first_of(found) if isinstance(found, BaseExceptionGroup) else found
