"""The core role: the engine, the plugins that serve it, the control socket, the watchdog."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from atlasd import __version__, notify
from atlasd.config import history
from atlasd.config.editing import EditOperations, Editor
from atlasd.config.following import Following
from atlasd.config.generations import Generations
from atlasd.config.history import History
from atlasd.config.load import Config
from atlasd.config.questions import Past, Questions
from atlasd.config.restoring import Restorer
from atlasd.contracts.collectors import Metric
from atlasd.contracts.operations import Operation as PluginOperation
from atlasd.control.binding import bind
from atlasd.control.server import ControlServer
from atlasd.control.wire import Operation
from atlasd.core.configuring import ConfigOperations
from atlasd.core.engine import SCHEMAS, Core
from atlasd.core.health import CheckState
from atlasd.core.operations import ServiceOperations
from atlasd.core.output import LogOperations
from atlasd.core.reconcile import Wish
from atlasd.core.reports import Reports
from atlasd.core.watch import UNWATCHED_INTERVAL, LastWords, LoopLag
from atlasd.daemon.ground import Ground, Stop, applied, either, offers, step, watchdog
from atlasd.daemon.jobs import CLOSE_LIMIT, JobThread
from atlasd.daemon.jobs import methods as jobs_methods
from atlasd.daemon.scaling import Scaling
from atlasd.daemon.schedules import methods as schedule_methods
from atlasd.daemon.secret_desk import SecretDesk
from atlasd.errors import AtlasError
from atlasd.events import OperationPerformed
from atlasd.jobs.schedule_operations import ScheduleOperations
from atlasd.pluginhost.host import PluginHost
from atlasd.pluginhost.ledger import Cost
from atlasd.pluginhost.renewing import Renewing
from atlasd.secrets import rotations
from atlasd.settings.operations import SettingsOperations
from atlasd.states import Health
from atlasd.store import Store

_log = logging.getLogger("atlasd.daemon")


async def core_role(
    ground: Ground,
    stop: Stop,
    over: asyncio.Event,
    up: Callable[[Core], object] = lambda _core: None,
) -> None:
    """Be core until `over` is set or an operator shuts it down; `up` is handed it once it serves.

    Raises `AtlasError` for what keeps it from starting.
    """
    schemas = {**SCHEMAS, "generations": history.SCHEMA, "rotations": rotations.SCHEMA}
    store = await asyncio.to_thread(Store.open, Path(ground.paths.database), schemas)
    try:
        await _serve(ground, stop, over, up, store)
    finally:
        await step("the database", store.close())


async def _serve(
    ground: Ground,
    stop: Stop,
    over: asyncio.Event,
    up: Callable[[Core], object],
    store: Store,
) -> None:
    generations = await Generations.begin(
        ground.config,
        load=ground.load,
        history=History(store),
        review=ground.host.review,
        parts=Path(ground.paths.config_parts),
    )
    ground.take(generations.current)
    core = await Core.open(
        store=store,
        services_socket=ground.paths.services_socket,
        wish=wish_of(ground.config),
        version=__version__,
        say=notify.status,
    )
    core.configuration.generation = generations.current.generation
    ground.heard.append(core.bus.publish)
    lag = LoopLag()
    last_words = LastWords((notify.watchdog_interval() or UNWATCHED_INTERVAL) * 0.8)
    parts = {"store": core.prove_store, "scheduler": core.prove_scheduler}
    if notify.watchdog_interval() is not None:
        # It wakes the services role, which otherwise sleeps until something happens.
        parts["link to services"] = core.prove_link
    dog = watchdog(parts, last_words)
    services = ServiceOperations(core, crash_dir=str(Path(ground.paths.state, "crashes")))
    plugins = Renewing(
        lambda settings: ground.host.run("core", bus=core.bus, settings=settings),
        ground.config.plugins,
    )
    following = Following(generations, ground.paths)
    secret_desk = SecretDesk(
        ground.vault,
        ground.host,
        lambda: ground.config,
        store=store,
        publish=core.bus.publish,
    )
    jobs = JobThread(
        ground.host, ground.paths, ground.config.settings.jobs, ground.config.queue_store,
        generation=generations.current.generation, publish=core.bus.publish,
    )  # fmt: skip
    scaling = Scaling(core, services, jobs, ground.config.settings)
    configuring = ConfigOperations(
        core,
        generations,
        wish_of=wish_of,
        consumers={
            "log": ground.follow,
            "plugins": lambda config: plugins.renew(config.plugins),
            "watch": following.follow,
            "secrets": secret_desk.follow,
            "jobs": lambda config: jobs.follow(config.settings.jobs, config.generation),
            "scaling": lambda config: scaling.follow(config.settings),
        },
        restore=Restorer(ground.paths, generations.history, generations.present).restore,
    )
    questions = Questions(
        lambda: generations.current,
        load=ground.reader.of_environment,
        offers=lambda: offers(ground.host),
    )
    past = Past(generations.history, lambda: generations.current.generation)
    editing = EditOperations(
        Editor(ground.paths, ground.reader.load_with),
        sealing=ground.vault,
        reload=lambda actor: configuring.config_reload(actor=actor),
    )
    reports = Reports(
        core,
        host=socket.gethostname(),
        plugins=HostPlugins(ground.host),
        managed_by_systemd=ground.role == "core" and notify.enabled(),
        jobs=jobs,
        watch_numbers=lambda: {
            "atlasd_loop_lag_seconds": lag.seconds,
            "atlasd_watchdog_pings_total": float(dog.pings),
        },
        secret_numbers=secret_desk.numbers,
        secret_faults=secret_desk.faults,
    )
    output = LogOperations(core, log_dir=ground.paths.log)
    settings = SettingsOperations(
        current=lambda: applied(ground.config),
        of_environment=lambda env: asyncio.to_thread(ground.look, env),
        audit=_settings_shown(ground),
    )
    server = ControlServer(
        ground.paths.control_socket,
        bind(
            {
                **methods(
                    services, configuring, questions, past, editing, settings, reports, output
                ),
                **secret_desk.methods(),
                **jobs_methods(jobs.ask, lambda: jobs.rules, lambda: jobs.named),
                **schedule_methods(ScheduleOperations(jobs.ask, lambda: jobs.schedules)),
            },
            performed=_performed(core),
            clock=core.clock,
        ),
        authorize=ground.host.authorize,
    )
    for offer in ground.host.offers(PluginOperation):
        server.register_operations(offer.plugin, [offer.descriptor], ground.host.perform)
    await server.start()
    jobs.start()
    try:
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(core.run(), name="core"),
                group.create_task(lag.run(), name="core lag"),
                group.create_task(dog.run(), name="core watchdog"),
                group.create_task(plugins.run(), name="core plugins"),
                group.create_task(following.run(configuring.files_changed), name="core watch"),
                group.create_task(
                    secret_desk.keep(
                        lambda: configuring.config_reload(actor="secrets", automatic=True)
                    ),
                    name="core secrets",
                ),
                group.create_task(secret_desk.begin(), name="core rotations"),
                group.create_task(scaling.run(), name="core scaling"),
            ]

            def reload() -> None:
                work.append(group.create_task(_reload(configuring), name="core reload"))

            stop.on_reload = reload
            last_words.start()
            notify.ready("waiting for the services role")
            up(core)
            await either(over, core.ended)
            notify.stopping()
            last_words.close()
            await step("the control socket", server.close())
            for task in work:
                task.cancel()
    finally:
        ground.heard.remove(core.bus.publish)
        await step("the control socket", server.close())
        await step("jobs", jobs.close(), CLOSE_LIMIT)


async def _reload(configuring: ConfigOperations[Config]) -> None:
    notify.reloading()
    try:
        done = await configuring.config_reload(actor="signal:HUP")
        _log.info(
            "configuration read anew, generation %d: %d steps done, %d wait for `atlasctl apply`",
            done["generation"],
            len(done["applied"]),
            len(done["pending"]),
        )
    except AtlasError as error:
        _log.error("configuration not read anew: %s", error.message)
    except Exception:  # noqa: BLE001  core must not fall because of a file
        _log.exception("configuration not read anew")
    finally:
        notify.ready()


def _settings_shown(ground: Ground) -> Callable[[str, Sequence[str], str], Awaitable[None]]:
    """Enters in the audit log that the secrets in a service's settings were shown."""

    async def enter(service: str, names: Sequence[str], actor: str) -> None:
        from atlasd.secrets.audit import Entry

        policy = ground.config.secrets
        entries = [
            Entry(
                action="get",
                name=name,
                environment=policy.environment,
                actor=actor,
                consumer=f"settings of {service}",
            )
            for name in names
        ]
        if entries:
            await ground.vault.run(lambda engine: engine.enter(policy, entries))

    return enter


def wish_of(config: Config) -> Wish:
    """The part of a configuration that core acts on."""
    now = config.loaded_at.timestamp()
    return Wish(
        specs={spec.name: spec for spec in config.specs()},
        host=config.host_policy(),
        scales={
            name: (one.scale.min, one.scale.max)
            for name, one in config.settings.services.items()
            if one.scale is not None
        },
        checks=tuple(
            CheckState(
                name=one.name,
                type=one.type.name,
                status=Health.UNKNOWN,
                time=now,
                service=one.check.service,
                required=is_required(one.check.service, one.check.optional, one.check.critical),
                interval=one.check.interval,
            )
            for one in config.checks
        ),
    )


def is_required(service: str | None, optional: bool, critical: bool) -> bool:  # noqa: FBT001
    """Whether a check can make what it belongs to fail: its service, or else the host."""
    return critical if service is None else not optional


def methods(
    services: ServiceOperations,
    configuring: ConfigOperations[Config],
    questions: Questions,
    past: Past,
    editing: EditOperations,
    settings: SettingsOperations,
    reports: Reports,
    output: LogOperations,
) -> Mapping[str, Callable[..., Any]]:
    """Each operation of the table, by name, and what performs it."""
    return {
        "status": services.status,
        "service": services.service,
        "service.start": services.start,
        "service.stop": services.stop,
        "service.restart": services.restart,
        "service.reload": services.reload,
        "service.pause": services.pause,
        "service.signal": services.signal,
        "service.scale": services.scale,
        "service.logs": output.service_logs,
        "logs": output.logs,
        "service.why": services.why,
        "events": services.events,
        "plan": configuring.plan,
        "apply": configuring.apply,
        "config.show": questions.show,
        "config.explain": questions.explain,
        "config.sources": questions.sources,
        "config.schema": questions.schema,
        "config.diff": questions.diff,
        "config.export": questions.export,
        "config.reveal": questions.reveal,
        "config.set": editing.set,
        "config.unset": editing.unset,
        "config.encrypt": editing.encrypt,
        "config.decrypt": editing.decrypt,
        "config.history": past.history,
        "config.reload": configuring.config_reload,
        "config.rollback": configuring.rollback,
        "settings.list": settings.list,
        "settings.show": settings.show,
        "settings.explain": settings.explain,
        "settings.diff": settings.diff,
        "settings.render": settings.render,
        "settings.reveal": settings.reveal,
        "plugins": reports.plugins,
        "health": reports.health,
        "health.service": reports.service_health,
        "checks": reports.checks,
        "checks.report": reports.report,
        "doctor": reports.doctor,
        "version": reports.version,
        "shutdown": reports.shutdown,
        "services-role.upgrade": reports.upgrade,
        "metrics": reports.metrics,
    }


def _performed(core: Core) -> Callable[..., None]:
    def performed(
        operation: Operation,
        *,
        began: float,
        actor: str,
        request: BaseModel,
        error: AtlasError | None,
    ) -> None:
        core.metrics.operations.labels(operation.name, error.code if error else "done").inc()
        if operation.method == "GET" or operation.name == "checks.report":
            return
        core.bus.publish(
            OperationPerformed(
                time=began,
                operation=operation.name,
                actor=actor,
                service=str(getattr(request, "service", "")),
                instance=getattr(request, "instance", None),
                detail=error.message if error else "",
                error=error.code if error else "",
            )
        )

    return performed


class HostPlugins:
    """The plugin host, in the words of core's reports."""

    def __init__(self, host: PluginHost) -> None:
        self._host = host

    def described(self) -> list[dict[str, Any]]:
        """Every plugin that was found."""
        return [
            {
                "name": plugin.name,
                "origin": plugin.origin,
                "version": plugin.version,
                "state": plugin.state.value,
                "reason": plugin.reason,
                "offers": [
                    {"kind": offer.kind, "name": offer.name, "summary": offer.summary}
                    for offer in plugin.offers
                ],
                "failures": plugin.failures,
            }
            for plugin in self._host.report()
        ]

    def costs(self) -> Mapping[tuple[str, str], Cost]:
        """Calls, seconds and failures, by plugin and kind of work."""
        return self._host.costs()

    async def collect(self) -> tuple[Metric, ...]:
        """The metrics of plugins' collectors."""
        return await self._host.collect()
