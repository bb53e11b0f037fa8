"""Health: verdicts of instances and checks, put together for a service and for the host."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from atlasd.clock import utc
from atlasd.services.protocol import InstanceStatus, ServiceStatus
from atlasd.states import Health, Lifecycle, Wanted

STALE_AFTER = 3.0
"""Intervals after which a check that was not heard of counts as unknown."""
START_GRACE = 60.0
"""Seconds after a start in which nothing being known yet is nothing to worry about."""

_RANK = {Health.PASS: 0, Health.UNKNOWN: 1, Health.WARN: 2, Health.FAIL: 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckState:
    """What was last heard of one check."""

    name: str
    type: str
    status: Health
    time: float
    """Wall time of the observation, seconds since the epoch."""
    service: str | None = None
    required: bool = True
    interval: float | None = None
    """Seconds between two runs; None: it does not grow stale."""
    duration: float | None = None
    """Seconds that the run took."""
    output: str = ""
    observed_value: float | int | str | None = None
    observed_unit: str | None = None

    def fresh(self, now: float) -> Health:
        """The verdict, or unknown when it is older than three intervals."""
        if self.interval is not None and now - self.time > STALE_AFTER * self.interval:
            return Health.UNKNOWN
        return self.status


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A status with the reason that a person reads."""

    status: Health
    output: str = ""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict, with the outputs of all that are not pass; pass when there is none."""
    status, outputs = Health.PASS, []
    for verdict in verdicts:
        if _RANK[verdict.status] > _RANK[status]:
            status = verdict.status
        if verdict.status is not Health.PASS and verdict.output:
            outputs.append(verdict.output)
    return Verdict(status=status, output="; ".join(outputs[:5]))


def capped(verdict: Verdict) -> Verdict:
    """The verdict, with fail turned into warn: for what must not make more than itself fail."""
    if verdict.status is Health.FAIL:
        return Verdict(status=Health.WARN, output=verdict.output)
    return verdict


def of_instance(
    service: ServiceStatus, instance: InstanceStatus, *, now: float, grace: float = START_GRACE
) -> Verdict:
    """The verdict on one instance, from where its lifecycle stands and what its probes say."""
    name = f"{service['name']}/{instance['index']}"
    state, detail = Lifecycle(instance["state"]), instance["detail"] or instance["reason"]
    probes = Health(instance["health"])
    if instance["leftovers"]:
        return Verdict(status=Health.WARN, output=f"{name}: processes would not die")
    if service["wanted"] == Wanted.DOWN:
        status = Health.PASS if state is not Lifecycle.LOST else Health.WARN
        return Verdict(status=status, output=f"{name}: {state}")
    if state in (Lifecycle.RUNNING, Lifecycle.RELOADING):
        if probes in (Health.FAIL, Health.WARN):
            return Verdict(status=probes, output=f"{name}: {detail or 'its probes say so'}")
        if instance["crash_loop"]:
            return Verdict(status=Health.WARN, output=f"{name}: keeps crashing")
        return Verdict(status=Health.PASS)
    if state is Lifecycle.EXITED:
        return Verdict(status=Health.PASS)
    if state in (Lifecycle.FAILED, Lifecycle.LOST, Lifecycle.BACKOFF):
        return Verdict(status=Health.FAIL, output=f"{name}: {state}: {detail}")
    if state is Lifecycle.STARTING and instance["failures"]:
        return Verdict(status=Health.FAIL, output=f"{name}: starting again: {detail}")
    # Waiting, starting, stopping, stopped: on its way, and only suspicious when that takes long.
    late = now - instance["since"] > grace
    return Verdict(
        status=Health.WARN if late else Health.UNKNOWN, output=f"{name}: {state}: {detail}"
    )


def of_service(
    service: ServiceStatus,
    checks: Sequence[CheckState],
    *,
    now: float,
    grace: float = START_GRACE,
) -> Verdict:
    """The verdict on a service: its instances together, and the worst of its required checks.

    Optional checks make it warn at most. One instance of several that fails makes it warn: the
    others do the work; all of them make it fail.
    """
    verdicts = [of_instance(service, i, now=now, grace=grace) for i in service["instances"]]
    together = worst(verdicts)
    if any(v.status in (Health.PASS, Health.WARN) for v in verdicts):
        together = capped(together)
    if service["wanted"] == Wanted.DOWN:
        return Verdict(status=together.status)
    parts = [together]
    for check in checks:
        verdict = _of_check(check, now, grace)
        parts.append(verdict if check.required else capped(verdict))
    return worst(parts)


def _of_check(check: CheckState, now: float, grace: float) -> Verdict:
    status = check.fresh(now)
    if status is Health.UNKNOWN:
        late = now - check.time > grace
        return Verdict(
            status=Health.WARN if late else Health.UNKNOWN,
            output=f"check {check.name}: not heard of for {now - check.time:.0f} s"
            if check.status is not Health.UNKNOWN
            else f"check {check.name}: {check.output or 'no verdict yet'}",
        )
    return Verdict(status=status, output=f"check {check.name}: {check.output}")


def of_host(
    services: Sequence[ServiceStatus],
    checks: Sequence[CheckState],
    *,
    now: float,
    grace: float = START_GRACE,
) -> Verdict:
    """The verdict on the host: the worst of its critical services; others make it warn at most.

    A critical service that was stopped on request makes it warn. Checks that belong to no service
    are the host's own. What is still unknown within the grace is not held against the host.
    """
    by_service = _by_service(checks)
    parts: list[Verdict] = []
    for service in services:
        verdict = of_service(service, by_service.get(service["name"], ()), now=now, grace=grace)
        if service["wanted"] == Wanted.DOWN and service["critical"]:
            verdict = worst(
                [verdict, Verdict(status=Health.WARN, output=f"{service['name']}: wanted down")]
            )
        parts.append(verdict if service["critical"] else capped(verdict))
    names = {service["name"] for service in services}
    for check in checks:
        if check.service is None or check.service not in names:
            verdict = _of_check(check, now, grace)
            parts.append(verdict if check.required else capped(verdict))
    return worst(parts)


def _by_service(checks: Sequence[CheckState]) -> Mapping[str, list[CheckState]]:
    found: dict[str, list[CheckState]] = {}
    for check in checks:
        if check.service is not None:
            found.setdefault(check.service, []).append(check)
    return found


def body(
    verdict: Verdict,
    details: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    version: str,
    subject: str,
    description: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """A body as draft-inadarei-api-health-check-06 has it; unknown is told as pass, with a note.

    Only pass, warn and fail exist there, and nothing known yet is no reason to answer 503.
    """
    unknown = verdict.status is Health.UNKNOWN
    found: dict[str, Any] = {
        "status": "pass" if unknown else verdict.status.value,
        "version": version,
        "serviceId": subject,
        "description": description,
        "checks": {key: tuple(dict(item) for item in items) for key, items in details.items()},
    }
    if verdict.status is not Health.PASS and verdict.output:
        found["output"] = verdict.output
    told = (*notes, "starting: not everything is known yet") if unknown else tuple(notes)
    if told:
        found["notes"] = told
    return found


def service_details(
    service: ServiceStatus, checks: Sequence[CheckState], *, now: float, grace: float = START_GRACE
) -> dict[str, list[dict[str, Any]]]:
    """The `checks` of a body that concern one service: its instances, then its checks."""
    instances: list[dict[str, Any]] = []
    for instance in service["instances"]:
        verdict = of_instance(service, instance, now=now, grace=grace)
        item: dict[str, Any] = {
            "componentId": f"{service['name']}/{instance['index']}",
            "componentType": "component",
            "observedValue": instance["state"],
            "status": verdict.status.value,
            "time": _time(instance["since"]),
        }
        if verdict.output and verdict.status is not Health.PASS:
            item["output"] = verdict.output
        instances.append(item)
    found = {f"{service['name']}:state": instances}
    found.update(check_details(checks, now=now))
    return found


def check_details(checks: Sequence[CheckState], *, now: float) -> dict[str, list[dict[str, Any]]]:
    """The `checks` of a body that are configured checks."""
    found: dict[str, list[dict[str, Any]]] = {}
    for check in checks:
        item: dict[str, Any] = {
            "componentId": check.name,
            "status": check.fresh(now).value,
            "time": _time(check.time),
        }
        if check.observed_value is not None:
            item["observedValue"] = check.observed_value
        if check.observed_unit:
            item["observedUnit"] = check.observed_unit
        if check.output and check.status is not Health.PASS:
            item["output"] = check.output
        found[f"{check.name}:{check.type}"] = [item]
    return found


def _time(wall: float) -> datetime:
    return utc(wall)
