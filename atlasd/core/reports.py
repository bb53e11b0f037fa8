"""What core tells about itself and the host: health, checks, metrics, plugins, versions."""

import asyncio
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from atlasd.clock import utc
from atlasd.contracts.collectors import Histogram, Metric
from atlasd.core import doctor, health, metrics
from atlasd.core.engine import Core
from atlasd.core.health import CheckState, Verdict
from atlasd.errors import AtlasError, nearest
from atlasd.events import CheckReported
from atlasd.states import Health

Body = dict[str, Any]


UPGRADE_TIMEOUT = 90.0
"""Seconds within which a new program, or else the old one again, must answer."""


class Reported(Protocol):
    """One verdict of a report, as `atlasd.control.models.CheckResult` has it."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def type(self) -> str: ...  # noqa: D102

    @property
    def status(self) -> str: ...  # noqa: D102

    @property
    def time(self) -> datetime: ...  # noqa: D102

    @property
    def service(self) -> str | None: ...  # noqa: D102

    @property
    def required(self) -> bool: ...  # noqa: D102

    @property
    def interval_seconds(self) -> float | None: ...  # noqa: D102

    @property
    def duration_seconds(self) -> float | None: ...  # noqa: D102

    @property
    def output(self) -> str: ...  # noqa: D102

    @property
    def observed_value(self) -> float | int | str | None: ...  # noqa: D102

    @property
    def observed_unit(self) -> str | None: ...  # noqa: D102


class Plugins(Protocol):
    """What is needed of the plugin host."""

    def described(self) -> list[Body]:
        """Every plugin that was found, as `atlasd.control.models.Plugin` has it."""

    def costs(self) -> Mapping[tuple[str, str], metrics.Cost]:
        """What each plugin has cost, by its name and the kind of work."""

    async def collect(self) -> Iterable[Metric]:
        """The metrics of plugins' collectors."""


class QueueReport(Protocol):
    """How a queue does."""

    @property
    def word(self) -> str: ...  # noqa: D102

    @property
    def reason(self) -> str: ...  # noqa: D102

    @property
    def since(self) -> float: ...  # noqa: D102


class JobsReport(Protocol):
    """What is needed of the job engine."""

    def verdict(self) -> Verdict:
        """Whether jobs can be enqueued and worked."""

    def queues(self) -> Mapping[str, QueueReport]:
        """How each queue does, by name."""

    async def metrics(self) -> Sequence[Metric | Histogram]:
        """Its metrics."""


class Reports:
    """Operations on core itself, as plain values; see `ServiceOperations` for the manner."""

    def __init__(
        self,
        core: Core,
        *,
        host: str,
        plugins: Plugins,
        watch_numbers: Callable[[], Mapping[str, float]] = dict,
        secret_numbers: Callable[[], Iterable[metrics.SecretNumber]] = tuple,
        secret_faults: Callable[[], Sequence[str]] = tuple,
        managed_by_systemd: bool = False,
        jobs: "JobsReport | None" = None,
    ) -> None:
        """`host` names this one in health bodies; `watch_numbers` are the watchdog's.

        `secret_faults` has a sentence for each secret that cannot be fetched or rotated.
        """
        self._secret_numbers = secret_numbers
        self._jobs = jobs
        self._secret_faults = secret_faults
        self._managed_by_systemd = managed_by_systemd
        self._core = core
        self._host = host
        self._plugins = plugins
        self._watch_numbers = watch_numbers

    async def plugins(self, *, actor: str) -> Body:
        """`plugins`."""
        del actor
        return {"plugins": sorted(self._plugins.described(), key=lambda p: str(p["name"]))}

    async def health(self, *, actor: str) -> Body:
        """`health`."""
        del actor
        now = self._core.clock.wall()
        grace = self._grace(now)
        checks = self._core.checks.all()
        details = self._own_details(now)
        snapshot = await self._core.snapshot_or_none()
        verdicts = [
            self._link_verdict(),
            self._store_verdict(),
            self._core.configuration.verdict(),
            self._secrets_verdict(),
            self._stopping_verdict(),
            self._jobs_verdict(),
        ]
        if snapshot is not None:
            verdicts.append(health.of_host(snapshot["services"], checks, now=now, grace=grace))
            for service in snapshot["services"]:
                details.update(health.service_details(service, (), now=now, grace=grace))
        details.update(health.check_details(checks, now=now))
        return health.body(
            health.worst(verdicts),
            details,
            version=self._core.version,
            subject=self._host,
            description="host",
            notes=self._notes(now),
        )

    def _grace(self, now: float) -> float:
        # A core that has just begun knows nothing yet; that is no service's fault.
        young = now - self._core.started < health.START_GRACE
        return health.START_GRACE if not young else health.START_GRACE * 2

    def _link_verdict(self) -> Verdict:
        if self._core.services.connected:
            return Verdict(status=Health.PASS)
        young = self._core.clock.wall() - self._core.started < 5.0 and not self._core.connections
        why = f"the services role does not answer: {self._core.services.why_not}"
        return Verdict(status=Health.UNKNOWN if young else Health.FAIL, output=why)

    def _store_verdict(self) -> Verdict:
        failing = self._core.journal.failing
        if failing:
            return Verdict(status=Health.WARN, output=f"the database: {failing}")
        return Verdict(status=Health.PASS)

    def _secrets_verdict(self) -> Verdict:
        faults = self._secret_faults()
        if not faults:
            return Verdict(status=Health.PASS)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return Verdict(status=Health.WARN, output=f"{faults[0]}{more}")

    def _stopping_verdict(self) -> Verdict:
        if self._core.stopping:
            return Verdict(status=Health.WARN, output="atlasd is shutting down")
        return Verdict(status=Health.PASS)

    def _jobs_verdict(self) -> Verdict:
        return self._jobs.verdict() if self._jobs is not None else Verdict(status=Health.PASS)

    def _adopted_verdict(self) -> Verdict:
        if self._core.converged or not self._core.services.connected:
            return Verdict(status=Health.PASS)
        return Verdict(status=Health.WARN, output="what is wanted is not yet handed over")

    def _own_details(self, now: float) -> dict[str, list[dict[str, Any]]]:
        """What `/health/ready` of the api role is made of, beside being details."""
        found: dict[str, list[dict[str, Any]]] = {}
        for key, verdict in (
            ("atlasd:services-link", self._link_verdict()),
            ("atlasd:adopted", self._adopted_verdict()),
            ("atlasd:store", self._store_verdict()),
            ("atlasd:config", self._core.configuration.verdict()),
            ("atlasd:secrets", self._secrets_verdict()),
            ("atlasd:stopping", self._stopping_verdict()),
            ("atlasd:jobs", self._jobs_verdict()),
        ):
            item: dict[str, Any] = {
                "componentType": "system",
                "status": verdict.status.value,
                "time": utc(now),
            }
            if verdict.output:
                item["output"] = verdict.output
            found[key] = [item]
        for name, one in (self._jobs.queues() if self._jobs is not None else {}).items():
            found[f"{name}:queue"] = [
                {
                    "componentId": name, "componentType": "component", "observedValue": one.word,
                    "status": (Health.PASS if one.word == "ok" else Health.WARN).value,
                    "time": utc(one.since), "output": one.reason,
                }
            ]  # fmt: skip
        return found

    def _notes(self, now: float) -> tuple[str, ...]:
        checks = self._core.checks.all()
        last = self._core.checks.last_report or self._core.started
        longest = max((check.interval or 0.0 for check in checks), default=0.0)
        if checks and now - last > max(300.0, 3 * longest):
            return ("the monitoring role has not reported lately: start atlas-monitoring",)
        return ()

    async def service_health(self, *, service: str, actor: str) -> Body:
        """`health.service`."""
        del actor
        now = self._core.clock.wall()
        snapshot = await self._core.snapshot(service)
        if not snapshot["services"]:
            known = sorted(self._core.reconciler.resolved().specs)
            raise AtlasError(
                "service.unknown",
                f"no service is called {service!r}",
                hint=nearest(service, known),
            )
        found = snapshot["services"][0]
        checks = self._core.checks.of(service)
        grace = self._grace(now)
        return health.body(
            health.of_service(found, checks, now=now, grace=grace),
            health.service_details(found, checks, now=now, grace=grace),
            version=self._core.version,
            subject=service,
            description="service",
        )

    async def checks(self, *, actor: str) -> Body:
        """`checks`."""
        del actor
        now = self._core.clock.wall()
        return {
            "checks": [
                {
                    "name": check.name,
                    "type": check.type,
                    "status": check.fresh(now),
                    "time": utc(check.time),
                    "service": check.service,
                    "required": check.required,
                    "interval_seconds": check.interval,
                    "duration_seconds": check.duration,
                    "output": check.output,
                    "observed_value": check.observed_value,
                    "observed_unit": check.observed_unit,
                }
                for check in self._core.checks.all()
            ]
        }

    async def report(self, *, checks: Sequence[Reported], actor: str) -> Body:
        """`checks.report`."""
        del actor
        now = self._core.clock.wall()
        for result in checks:
            check = CheckState(
                name=result.name,
                type=result.type,
                status=Health(result.status),
                # A reporter whose clock is ahead must not stay fresh for ever.
                time=min(now, result.time.timestamp()),
                service=result.service,
                required=result.required,
                interval=result.interval_seconds,
                duration=result.duration_seconds,
                output=result.output,
                observed_value=result.observed_value,
                observed_unit=result.observed_unit,
            )
            before = self._core.checks.report(check, now=now)
            if before is not None:
                self._core.bus.publish(
                    CheckReported(
                        time=check.time,
                        check=check.name,
                        old=before.status.value,
                        new=check.status.value,
                        detail=check.output[:500],
                    )
                )
        return {"accepted": len(checks)}

    async def doctor(self, *, actor: str) -> Body:
        """`doctor`: what the services role found counts, as it is the one that needs it."""
        del actor
        hello = self._core.services.hello
        found = doctor.examine(
            hello.capabilities if hello else None, why_not=self._core.services.why_not
        )
        return {"capabilities": [capability.to_wire() for capability in found]}

    async def version(self, *, actor: str) -> Body:
        """`version`."""
        del actor
        hello = self._core.services.hello
        return {
            "version": self._core.version,
            "python": platform.python_version(),
            "core": {
                "version": self._core.version,
                "pid": os.getpid(),
                "since": utc(self._core.started),
            },
            "services": None if hello is None else {"version": hello.version, "pid": hello.pid},
        }

    async def metrics(self, *, actor: str) -> str:
        """`metrics`."""
        del actor
        numbers = {**self._core.numbers(), **self._watch_numbers()}
        return metrics.render(
            self._core.metrics,
            version=self._core.version,
            snapshot=await self._core.snapshot_or_none(),
            checks=self._core.checks.all(),
            numbers=numbers,
            plugins=self._plugins.costs(),
            secrets=self._secret_numbers(),
            added=[*await self._plugins.collect(), *await self._job_metrics()],
            now=self._core.clock.wall(),
        )

    async def _job_metrics(self) -> Sequence[Metric | Histogram]:
        return await self._jobs.metrics() if self._jobs is not None else ()

    async def shutdown(self, *, keep_services: bool, actor: str) -> Body:
        """`shutdown`: begun when this answers; core ends when the services have.

        Raises `services.unreachable` when the services are to be stopped and cannot be: core goes
        on then. With `keep_services` that is no hindrance. Raises `operation.denied` when systemd
        runs the roles one by one: it would start them again at once.
        """
        if self._managed_by_systemd:
            raise AtlasError(
                "operation.denied",
                "systemd runs this daemon, and would start it again",
                hint="with its services: systemctl stop atlas.target; services run on: "
                "systemctl stop atlas-core atlas-monitoring atlas-api",
            )
        names: list[str] = []
        if self._core.services.connected or not keep_services:
            snapshot = await self._core.snapshot()
            names = [service["name"] for service in snapshot["services"]]
        self._core.shut_down(keep_services=keep_services, actor=actor)
        return {"keep_services": keep_services, "services": names}

    async def upgrade(self, *, executable: str | None, actor: str) -> Body:
        """`services-role.upgrade`: done when the program that took over answers.

        The connection ends with the old program, so its end is no failure; an error answer is.
        """
        before = self._core.connections
        try:
            await self._core.services.call(
                "upgrade", timeout=UPGRADE_TIMEOUT, executable=executable, actor=actor
            )
        except AtlasError as error:
            if error.code != "services.unreachable":
                raise
        try:
            async with asyncio.timeout(UPGRADE_TIMEOUT):
                hello = await self._core.next_hello(before)
        except TimeoutError:
            raise AtlasError(
                "services.upgrade",
                f"the services role has not come back within {UPGRADE_TIMEOUT:g} s",
                hint="its services run on; see its log",
            ) from None
        if hello.last_upgrade.get("ok") is False:
            raise AtlasError(
                "services.upgrade",
                "the new program did not come up, and the one before has taken its place again: "
                f"{hello.last_upgrade.get('detail')}",
                hint="no service was touched; the log of the services role tells more",
            )
        return {"version": hello.version, "pid": hello.pid}
