"""A core in memory: real models and rules, no processes; for tests of the control socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from atlasd import __version__
from atlasd.control import models as m
from atlasd.control.rights import Caller
from atlasd.control.server import Handler
from atlasd.control.wire import OPERATIONS
from atlasd.errors import AtlasError, nearest
from atlasd.states import Health, Wanted
from tests.job_double import KINDS, FakeJobs
from tests.secret_double import FakeSecrets

START = datetime(2026, 11, 23, 17, 44, 43, 123456, tzinfo=UTC)


def detail(index: int, state: str = "running", **more: Any) -> m.InstanceDetail:
    running = state == "running"
    fields: dict[str, Any] = {
        "index": index,
        "state": state,
        "pid": 4000 + index if running else None,
        "health": "pass" if running else "unknown",
        "traffic": "in" if running else "out",
        "since": START,
        "restarts": 0,
        "reason": "ready" if running else "request",
        "memory_bytes": 5 * 1024 * 1024 if running else None,
        "cpu_seconds": 0.25 if running else None,
        "invocation": f"run-{index}",
    }
    return m.InstanceDetail(**(fields | more))


class FakeCore:
    """Services that do at once what they are asked, and tell every stream."""

    def __init__(self, **services: int) -> None:
        self.instances: dict[str, list[m.InstanceDetail]] = {
            name: [detail(i) for i in range(count)] for name, count in services.items()
        }
        self.wanted = dict.fromkeys(services, Wanted.UP)
        self.calls: list[tuple[str, Any, Caller]] = []
        self.readers: list[asyncio.Queue[m.Event | None]] = []
        self.seq = 1
        self.runs = 0
        self.behave: Callable[[str, str, m.InstanceDetail], m.InstanceDetail] = self.obey
        self.shutdown = asyncio.Event()
        self.plan = m.Plan(actions=(), unchanged=0)
        self.health = m.HealthBody(status="pass", version=__version__)
        self.log: list[m.LogRecord] = []
        self.events: list[m.Event] = []
        self.secrets = FakeSecrets()
        self.jobs = FakeJobs()

    def handlers(self) -> dict[str, Handler]:
        own = {o.name for o in OPERATIONS} - {"openapi"}
        return {name: self._recorded(name) for name in own}

    def _recorded(self, name: str) -> Handler:
        if name.startswith("secret."):
            method = self.secrets.method(name)
        elif name.startswith(KINDS):
            method = self.jobs.method(name)
        else:
            method = getattr(self, "do_" + name.replace(".", "_").replace("-", "_"))

        async def handler(request: Any, caller: Caller) -> Any:
            self.calls.append((name, request, caller))
            return await method(request, caller)

        return handler

    def obey(self, verb: str, service: str, now: m.InstanceDetail) -> m.InstanceDetail:
        if verb == "stop":
            return detail(now.index, "stopped")
        if verb == "restart":
            self.runs += 1
            return detail(now.index, pid=9000 + self.runs, invocation=f"again-{self.runs}")
        return detail(now.index)

    def publish(self, **fields: Any) -> None:
        event = m.Event(seq=self.seq, time=START, **fields)
        self.seq += 1
        self.events.append(event)
        for reader in self.readers:
            reader.put_nowait(event)

    def change(self, service: str, index: int, now: m.InstanceDetail) -> None:
        old = self.instances[service][index]
        self.instances[service][index] = now
        self.publish(
            kind="transition",
            service=service,
            instance=index,
            old=str(old.state),
            new=str(now.state),
            reason=now.reason,
        )

    def known(self, name: str) -> list[m.InstanceDetail]:
        if name not in self.instances:
            raise AtlasError(
                "service.unknown",
                f"no service is called {name!r}",
                hint=nearest(name, tuple(self.instances)),
            )
        return self.instances[name]

    def affected(self, request: m.InstanceRequest) -> tuple[int, ...]:
        present = [i.index for i in self.known(request.service)]
        if request.instance is None:
            return tuple(present)
        if request.instance not in present:
            raise AtlasError(
                "instance.unknown", f"{request.service} has no instance {request.instance}"
            )
        return (request.instance,)

    async def _verb(self, verb: str, request: m.InstanceRequest) -> m.Accepted:
        affected = self.affected(request)
        seq = self.seq
        if verb in ("start", "stop") and request.instance is None:
            self.wanted[request.service] = Wanted.UP if verb == "start" else Wanted.DOWN
        loop = asyncio.get_running_loop()
        for index in affected:
            now = self.behave(verb, request.service, self.instances[request.service][index])
            # After the answer, as a real core does it.
            loop.call_soon(self.change, request.service, index, now)
        return m.Accepted(service=request.service, affected=affected, next_seq=seq)

    async def do_status(self, request: m.Nothing, caller: Caller) -> m.Status:
        plain = set(m.Instance.model_fields)
        return m.Status(
            services=tuple(
                m.ServiceState(
                    name=name,
                    wanted=self.wanted[name],
                    health=Health.PASS,
                    instances=tuple(
                        m.Instance.model_validate(i.model_dump(include=plain)) for i in instances
                    ),
                )
                for name, instances in sorted(self.instances.items())
            )
        )

    async def do_service(self, request: m.ServiceRequest, caller: Caller) -> m.ServiceDetail:
        instances = tuple(self.known(request.service))
        return m.ServiceDetail(
            name=request.service,
            wanted=self.wanted[request.service],
            health=Health.PASS,
            type="simple",
            critical=False,
            ready=True,
            command=("sleep", "inf"),
            instances=instances,
        )

    async def do_service_start(self, request: m.InstanceRequest, caller: Caller) -> m.Accepted:
        return await self._verb("start", request)

    async def do_service_stop(self, request: m.InstanceRequest, caller: Caller) -> m.Accepted:
        return await self._verb("stop", request)

    async def do_service_restart(self, request: m.InstanceRequest, caller: Caller) -> m.Accepted:
        return await self._verb("restart", request)

    async def do_service_reload(self, request: m.InstanceRequest, caller: Caller) -> m.Accepted:
        return await self._verb("reload", request)

    async def do_service_pause(self, request: m.ServiceRequest, caller: Caller) -> m.Accepted:
        indexes = tuple(i.index for i in self.known(request.service))
        self.wanted[request.service] = Wanted.PAUSED
        return m.Accepted(service=request.service, affected=indexes)

    async def do_service_signal(self, request: m.SignalRequest, caller: Caller) -> m.Accepted:
        return m.Accepted(service=request.service, affected=self.affected(request))

    async def do_service_scale(self, request: m.ScaleRequest, caller: Caller) -> m.Scaled:
        have = len(self.known(request.service))
        self.instances[request.service] = [detail(i) for i in range(request.instances)]
        actions = [
            m.Action(
                service=request.service,
                instance=index,
                action="start" if index >= have else "stop",
                reason="request",
            )
            for index in range(min(have, request.instances), max(have, request.instances))
        ]
        return m.Scaled(
            service=request.service, instances=request.instances, actions=tuple(actions)
        )

    async def do_service_logs(
        self, request: m.ServiceLogsRequest, caller: Caller
    ) -> AsyncIterator[m.LogRecord]:
        self.known(request.service)
        return self._lines(request, {request.service})

    async def do_logs(self, request: m.LogsRequest, caller: Caller) -> AsyncIterator[m.LogRecord]:
        for name in request.service:
            self.known(name)
        return self._lines(request, set(request.service or self.instances))

    async def _lines(
        self, request: m.LogsRequest | m.ServiceLogsRequest, names: set[str]
    ) -> AsyncIterator[m.LogRecord]:
        wanted = [r for r in self.log if r.service in names]
        if request.lines is not None:
            wanted = wanted[len(wanted) - min(request.lines, len(wanted)) :]
        for record in wanted:
            yield record

    async def do_service_why(self, request: m.WhyRequest, caller: Caller) -> m.Why:
        self.known(request.service)
        return m.Why(
            service=request.service,
            story=(f"{request.service} has been running since 17:44:43.",),
            next=("nothing needs doing",),
        )

    async def do_events(self, request: m.EventsRequest, caller: Caller) -> AsyncIterator[m.Event]:
        if request.service is not None:
            self.known(request.service)
        past = [e for e in self.events if request.since is None or e.seq >= request.since]
        if request.limit is not None:
            past = past[len(past) - min(request.limit, len(past)) :]
        queue: asyncio.Queue[m.Event | None] = asyncio.Queue()
        if request.follow:
            self.readers.append(queue)
        return self._events(past, queue if request.follow else None)

    async def _events(
        self, past: list[m.Event], queue: asyncio.Queue[m.Event | None] | None
    ) -> AsyncIterator[m.Event]:
        try:
            for event in past:
                yield event
            while queue is not None and (event_or_end := await queue.get()) is not None:
                yield event_or_end
        finally:
            if queue is not None:
                self.readers.remove(queue)

    async def do_plan(self, request: m.Nothing, caller: Caller) -> m.Plan:
        return self.plan

    async def do_apply(self, request: m.Nothing, caller: Caller) -> m.Plan:
        return self.plan

    async def do_config_reload(
        self, request: m.ConfigReloadRequest, caller: Caller
    ) -> m.ConfigReloaded:
        return m.ConfigReloaded(
            generation=8,
            dry_run=request.dry_run,
            changes=self.changes,
            applied=(),
            pending=self.plan.actions,
            notes=("2 checks changed",),
        )

    async def do_config_show(self, request: m.ConfigShowRequest, caller: Caller) -> m.ConfigBody:
        settings: dict[str, object] = {
            "log": {"level": "debug"},
            "services": {"web": {"command": ["serve"], "env": {"DB_PASSWORD": "secret://db"}}},
        }
        places = {
            "log.level": "/etc/atlasd/conf.d/log.toml:2:9",
            "services.web.command": "/etc/atlasd/atlasd.toml:5:11",
            "services.web.env.DB_PASSWORD": "/etc/atlasd/atlasd.toml:7:15",
        }
        return m.ConfigBody(
            generation=7,
            environment="production",
            environment_chosen_by="default",
            loaded=START,
            settings=settings,
            places=places,
        )

    async def do_config_explain(self, request: m.ConfigKeyRequest, caller: Caller) -> m.ConfigKey:
        if request.key != "log.level":
            raise AtlasError("config.unknown", f"there is no setting {request.key}", hint="look")
        return m.ConfigKey(
            key="log.level",
            set=True,
            value="debug",
            where="/etc/atlasd/conf.d/log.toml:2:9",
            shadows=(m.ShadowedValue(where="/etc/atlasd/atlasd.toml:9:9"),),
            default="info",
            expected='"debug", "info", "warning" or "error"',
            description="Least severity that is logged.",
            effect="live",
        )

    changes: tuple[m.ConfigChange, ...] = (
        m.ConfigChange(
            key="log.level",
            kind="changed",
            old="info",
            new="debug",
            effect="live",
            where="/etc/atlasd/conf.d/log.toml:2:9",
        ),
        m.ConfigChange(
            key="services.web.command",
            kind="changed",
            old=["serve"],
            new=["serve", "--fast"],
            effect="restart service web",
            where="/etc/atlasd/atlasd.toml:5:11",
        ),
    )

    async def do_config_sources(self, request: m.Nothing, caller: Caller) -> m.ConfigSources:
        main = m.ConfigLayer(
            name="main file",
            origin="/etc/atlasd/atlasd.toml",
            source="toml",
            modified=START,
            keys=12,
            present=True,
        )
        env = m.ConfigLayer(
            name=".env file",
            origin="/etc/atlasd/atlasd.env",
            source="dotenv",
            dialect="systemd",
            present=False,
        )
        return m.ConfigSources(
            environment="production", environment_chosen_by="default", layers=(main, env)
        )

    async def do_config_schema(self, request: m.Nothing, caller: Caller) -> m.ConfigSchema:
        return m.ConfigSchema({"type": "object"})

    async def do_config_diff(self, request: m.ConfigDiffRequest, caller: Caller) -> m.ConfigDiff:
        level = m.ConfigDifference(
            key="log.level", right="debug", right_where="/etc/atlasd/environments/staging.toml:1:9"
        )
        return m.ConfigDiff(left=request.left, right=request.right, differences=(level,))

    async def do_config_export(
        self, request: m.ConfigExportRequest, caller: Caller
    ) -> m.ConfigExport:
        return m.ConfigExport(format=request.format, text='[log]\nlevel = "debug"\n')

    async def do_config_reveal(
        self, request: m.ConfigExportRequest, caller: Caller
    ) -> m.ConfigExport:
        return m.ConfigExport(format=request.format, text='[log]\nlevel = "shown"\n')

    async def do_config_set(self, request: m.ConfigSetRequest, caller: Caller) -> m.ConfigEdited:
        if request.value == "loud":
            raise AtlasError("config.invalid", f"{request.key}: expected another", hint="look")
        return m.ConfigEdited(
            key=request.key,
            file=f"/etc/atlasd/{request.file or 'atlasd.toml'}",
            changes=self.changes[:1],
            warnings=("it is not meant",) if request.force else (),
            reloaded=await self.do_config_reload(m.ConfigReloadRequest(), caller)
            if request.reload
            else None,
        )

    async def do_config_unset(
        self, request: m.ConfigUnsetRequest, caller: Caller
    ) -> m.ConfigEdited:
        return m.ConfigEdited(key=request.key, file="/etc/atlasd/atlasd.toml")

    async def do_config_encrypt(
        self, request: m.ConfigEncryptRequest, caller: Caller
    ) -> m.ConfigEdited:
        return m.ConfigEdited(key=request.key, file="/etc/atlasd/atlasd.toml")

    async def do_config_decrypt(
        self, request: m.ConfigDecryptRequest, caller: Caller
    ) -> m.ConfigEdited:
        return m.ConfigEdited(key=request.key, file="/etc/atlasd/atlasd.toml")

    async def do_config_history(self, request: m.Nothing, caller: Caller) -> m.ConfigHistory:
        one = m.ConfigGeneration(
            number=7,
            time=START,
            actor="uid:0",
            environment="production",
            digest="d7",
            state="accepted",
            current=True,
            summary="log.level, services.web.command",
            changes=self.changes,
        )
        older = one.model_copy(
            update={
                "number": 6,
                "actor": "start",
                "current": False,
                "changes": (),
                "summary": "read at the start",
                "state": "partial",
                "detail": "log: no such level",
            }
        )
        return m.ConfigHistory(generations=(one, older))

    async def do_config_rollback(
        self, request: m.ConfigRollbackRequest, caller: Caller
    ) -> m.ConfigReloaded:
        return m.ConfigReloaded(
            generation=8,
            restored=request.generation or 6,
            changes=self.changes,
            applied=(),
            pending=(),
        )

    setting = m.Setting(
        key="db.password", value="secret://db", reference="secret://db", secret=True,
        where="/etc/shop/base.toml:4:12", default=False,
    )  # fmt: skip

    async def do_settings_list(self, request: m.Nothing, caller: Caller) -> m.SettingsList:
        one = m.SettingsSummary(
            name="shop", settings=1, secrets=1, validated_by="", services=("web",)
        )
        return m.SettingsList(sets=(one,))

    async def do_settings_show(self, request: m.SettingsRequest, caller: Caller) -> m.SettingsBody:
        return m.SettingsBody(
            name=request.name, environment="production", files=("/etc/shop/base.toml",),
            services=("web",), settings=(self.setting,),
        )  # fmt: skip

    async def do_settings_explain(
        self, request: m.SettingsKeyRequest, caller: Caller
    ) -> m.SettingExplained:
        return m.SettingExplained(
            **self.setting.model_dump(), set=request.name, kind="a string", expected="a string",
            shadows=("/etc/shop/.env:3:1",), variables=("DB_PASSWORD",),
        )  # fmt: skip

    async def do_settings_diff(
        self, request: m.SettingsDiffRequest, caller: Caller
    ) -> m.SettingsDiff:
        change = m.SettingChange(
            key="workers", left=2, right=None, left_where="/etc/shop/base.toml:1:11", right_where=""
        )
        return m.SettingsDiff(
            name=request.name, left=request.left, right=request.right, changes=(change,)
        )

    async def do_settings_render(
        self, request: m.SettingsRenderRequest, caller: Caller
    ) -> m.SettingsRendered:
        return m.SettingsRendered(
            service=request.service, variables={"DB_PASSWORD": "secret://db"}, files=()
        )

    async def do_settings_reveal(
        self, request: m.SettingsRenderRequest, caller: Caller
    ) -> m.SettingsRendered:
        return m.SettingsRendered(service=request.service, variables={"A": "b"}, files=())

    async def do_plugins(self, request: m.Nothing, caller: Caller) -> m.Plugins:
        offer = m.Offer(kind="check type", name="http", summary="An HTTP request")
        return m.Plugins(
            plugins=(
                m.Plugin(
                    name="http",
                    origin="atlasd",
                    version=__version__,
                    state="admitted",
                    offers=(offer,),
                ),
                m.Plugin(
                    name="broken",
                    origin="/etc/atlasd/plugins.d/broken.py",
                    state="refused",
                    reason="no module named 'nowhere'",
                ),
            )
        )

    async def do_health(self, request: m.Nothing, caller: Caller) -> m.HealthBody:
        return self.health

    async def do_health_service(self, request: m.ServiceRequest, caller: Caller) -> m.HealthBody:
        self.known(request.service)
        return self.health

    async def do_checks(self, request: m.Nothing, caller: Caller) -> m.Checks:
        return m.Checks(
            checks=(
                m.CheckResult(
                    name="home-page", type="http", status="warn", time=START, output="slow"
                ),
            )
        )

    async def do_checks_report(self, request: m.CheckReport, caller: Caller) -> m.Reported:
        return m.Reported(accepted=len(request.checks))

    async def do_doctor(self, request: m.Nothing, caller: Caller) -> m.Doctor:
        return m.Doctor(
            capabilities=(
                m.Capability(name="root", available=True, detail="uid 0"),
                m.Capability(
                    name="cgroup v2",
                    available=False,
                    reduced="limits of memory and cpu are not enforced",
                    hint="run under systemd with Delegate=yes",
                ),
            )
        )

    async def do_version(self, request: m.Nothing, caller: Caller) -> m.Version:
        return m.Version(
            version=__version__,
            python="3.11.7",
            core=m.RoleVersion(version=__version__, pid=10),
            services=m.RoleVersion(version=__version__, pid=11),
        )

    async def do_shutdown(self, request: m.ShutdownRequest, caller: Caller) -> m.ShuttingDown:
        asyncio.get_running_loop().call_later(0.05, self.shutdown.set)
        return m.ShuttingDown(
            keep_services=request.keep_services, services=tuple(sorted(self.instances))
        )

    async def do_services_role_upgrade(
        self, request: m.UpgradeRequest, caller: Caller
    ) -> m.Upgraded:
        return m.Upgraded(version=__version__, pid=11)

    async def do_metrics(self, request: m.Nothing, caller: Caller) -> str:
        return "# TYPE atlasd_build_info gauge\natlasd_build_info 1\n"
