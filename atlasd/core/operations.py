"""What core does when it is asked about services: one method an operation."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from atlasd.clock import utc
from atlasd.core import crashes, why
from atlasd.core.engine import Core
from atlasd.errors import AtlasError, nearest
from atlasd.events import KINDS, Event, ServiceScaled, to_wire
from atlasd.services.protocol import InstanceStatus, ServiceStatus
from atlasd.services.spec import ServiceSpec
from atlasd.states import Health, Wanted, worst

Body = dict[str, Any]

CALL_TIMEOUT = 10.0
"""Seconds that the services role may take to accept an operation."""
REMEMBERED = frozenset({"start", "stop", "restart", "pause", "scale"})
"""Operations whose wish outlives a services role that is not there."""
BACKLOG = "backlog"
"""Who scales a service that is scaled by its backlog."""
TOLD = frozenset(
    {
        "transition",
        "crash",
        "health",
        "leftovers",
        "hook",
        "signal",
        "delivery",
        "roll-halted",
        "scaled",
        "operation",
    }
)
"""Kinds of facts that a service's story is made of."""


class ServiceOperations:
    """Operations on services, as plain values.

    Each method takes the caller's name and the fields of its request in `atlasd.control.models`,
    gives the body of its answer, and raises `AtlasError` for what is expected to go wrong.
    """

    def __init__(self, core: Core, *, crash_dir: str) -> None:
        """`crash_dir` is where the services role leaves its crash records."""
        self._core = core
        self._crash_dir = crash_dir

    # --- services

    async def status(self, *, actor: str) -> Body:
        """`status`."""
        del actor
        snapshot = await self._core.snapshot()
        return {"services": [self._state(service) for service in snapshot["services"]]}

    def _state(self, service: ServiceStatus) -> Body:
        return {
            "name": service["name"],
            "wanted": service["wanted"],
            "health": self._health_word(service),
            "instances": [_instance(instance) for instance in service["instances"]],
        }

    def _health_word(self, service: ServiceStatus) -> Health:
        now = self._core.clock.wall()
        checks = [c.fresh(now) for c in self._core.checks.of(service["name"]) if c.required]
        return worst(Health(service["health"]), *checks) if checks else Health(service["health"])

    async def service(self, *, service: str, actor: str) -> Body:
        """`service`."""
        del actor
        spec = self._spec(service)
        found = await self._one(service)
        return {
            **self._state(found),
            "type": found["type"],
            "critical": found["critical"],
            "ready": found["ready"],
            "waiting_for": found["waiting_for"],
            "restarts_by_reason": found["restarts_total"],
            "oom_kills": found["oom_kills_total"],
            "last_exit": None if found["last_exit"] is None else utc(found["last_exit"]),
            "command": spec.command if spec else (),
            "instances": [_instance_detail(instance) for instance in found["instances"]],
        }

    def _spec(self, name: str) -> ServiceSpec | None:
        return self._core.reconciler.resolved().specs.get(name)

    async def _one(self, name: str) -> ServiceStatus:
        snapshot = await self._core.snapshot(name)
        for service in snapshot["services"]:
            if service["name"] == name:
                return service
        raise self._unknown(name)

    def _unknown(self, name: str) -> AtlasError:
        known = sorted(self._core.reconciler.resolved().specs)
        if name in self._core.reconciler.wish.specs and name not in known:
            return AtlasError(
                "service.unknown",
                f"service {name!r} is configured, and waits to be applied",
                hint="atlasctl apply",
            )
        return AtlasError(
            "service.unknown", f"no service is called {name!r}", hint=nearest(name, known)
        )

    def _known(self, name: str, instance: int | None = None) -> ServiceSpec:
        # Looked at here as well, so that what cannot be done is not remembered either.
        spec = self._spec(name)
        if spec is None:
            raise self._unknown(name)
        if instance is not None and instance >= spec.instances:
            raise AtlasError(
                "instance.unknown",
                f"service {name!r} has no instance {instance}",
                hint=f"it has {spec.instances}, counted from 0",
            )
        return spec

    async def start(self, *, service: str, instance: int | None, actor: str) -> Body:
        """`service.start`: what it requires is wanted up from now on too."""
        self._known(service, instance)
        specs = self._core.reconciler.resolved().specs
        for name in pulled_in(specs, service):
            await self._ask(name, Wanted.UP, actor)
        return await self._do("start", service, instance, actor)

    async def stop(self, *, service: str, instance: int | None, actor: str) -> Body:
        """`service.stop`."""
        self._known(service, instance)
        if instance is None:
            await self._ask(service, Wanted.DOWN, actor)
        return await self._do("stop", service, instance, actor)

    async def restart(self, *, service: str, instance: int | None, actor: str) -> Body:
        """`service.restart`."""
        self._known(service, instance)
        await self._ask(service, Wanted.UP, actor)
        return await self._do("restart", service, instance, actor)

    async def reload(self, *, service: str, instance: int | None, actor: str) -> Body:
        """`service.reload`."""
        self._known(service)
        return await self._do("reload", service, instance, actor)

    async def pause(self, *, service: str, actor: str) -> Body:
        """`service.pause`."""
        spec = self._known(service)
        next_seq = self._core.bus.next_seq
        await self._ask(service, Wanted.PAUSED, actor)
        await self._call("pause", service=service, actor=actor)
        return {
            "service": service,
            "affected": tuple(range(spec.instances)),
            "next_seq": next_seq,
        }

    async def signal(self, *, service: str, instance: int | None, signal: str, actor: str) -> Body:
        """`service.signal`."""
        self._known(service)
        name = signal.removeprefix("SIG")
        return await self._do("signal", service, instance, actor, signal=name)

    async def _ask(self, service: str, wanted: Wanted, actor: str) -> None:
        # Kept before services is asked: should it be gone, the next pass does what was asked.
        now = self._core.clock.wall()
        await self._core.intents.ask(service, wanted, actor=actor, now=now)

    async def _do(
        self, op: str, service: str, instance: int | None, actor: str, **fields: str
    ) -> Body:
        next_seq = self._core.bus.next_seq
        answer = await self._call(op, service=service, instance=instance, actor=actor, **fields)
        self._core.changed()
        return {
            "service": service,
            "affected": tuple(answer.get("affected", ())),
            "next_seq": next_seq,
        }

    async def _call(self, op: str, **fields: object) -> dict[str, Any]:
        try:
            return await self._core.services.call(op, timeout=CALL_TIMEOUT, **fields)
        except AtlasError as error:
            if error.code == "services.unreachable" and op in REMEMBERED:
                error.hint = f"what was asked is remembered, and done when it is back; {error.hint}"
            raise

    async def scale(self, *, service: str, instances: int, actor: str) -> Body:
        """`service.scale`. Where the backlog decides, it goes on from there."""
        self._known(service)
        bounds = self._core.reconciler.wish.scales.get(service)
        if bounds is not None and not bounds[0] <= instances <= bounds[1]:
            raise AtlasError(
                "service.state",
                f"service {service!r} has {bounds[0]} to {bounds[1]} instances, by its backlog: "
                f"{instances} is out of these",
                hint=f"change `scale` of [services.{service}]",
            )
        return await self._scale(service, instances, actor)

    async def scale_by_backlog(self, service: str, instances: int, why: str) -> None:
        """Change how many instances there are, for a reason that stands in `service.why`.

        Raises as `scale` does.
        """
        old, began = self._known(service).instances, self._core.clock.wall()
        await self._scale(service, instances, BACKLOG)
        self._core.bus.publish(
            ServiceScaled(
                time=began, service=service, actor=BACKLOG,
                old=str(old), new=str(instances), detail=why,
            )
        )  # fmt: skip

    async def _scale(self, service: str, instances: int, actor: str) -> Body:
        next_seq = self._core.bus.next_seq
        configured = self._core.reconciler.wish.specs.get(service)
        await self._core.intents.scale(
            service,
            instances,
            configured=configured.instances if configured else instances,
            actor=actor,
            now=self._core.clock.wall(),
        )
        answer = await self._call("scale", service=service, instances=instances, actor=actor)
        self._core.changed()
        return {
            "service": service,
            "instances": instances,
            "actions": answer.get("actions", ()),
            "next_seq": next_seq,
        }

    async def why(self, *, service: str, limit: int, actor: str) -> Body:
        """`service.why`."""
        del actor
        found = await self._one(service)
        events = await self._core.journal.events(limit=limit, service=service, kinds=TOLD)
        # A request is noted when it is done, and belongs before what came of it.
        events.sort(key=lambda event: (event.time, event.seq))
        try:
            records = await asyncio.to_thread(crashes.read, self._crash_dir, service)
        except OSError:
            past = await self._core.journal.events(limit=200, service=service, kinds={"crash"})
            records = crashes.from_journal(past)
        now = self._core.clock.wall()
        return {
            "service": service,
            "story": why.story(found, events, records, now=now),
            "next": why.advice(found, records),
            "crashes": why.grouped(records),
            "events": [event_body(event) for event in events],
        }

    async def events(
        self,
        *,
        follow: bool,
        since: int | None,
        limit: int | None,
        service: str | None,
        kind: str | None,
        actor: str,
    ) -> AsyncIterator[Body]:
        """`events`: past ones, and with `follow` those to come; none between them is missed."""
        del actor
        if kind is not None and kind not in KINDS:
            raise AtlasError(
                "request.invalid",
                f"there is no kind of event called {kind!r}",
                hint=nearest(kind, list(KINDS)),
            )
        kinds = None if kind is None else (kind,)
        subscription = (
            self._core.bus.subscribe("events stream", kinds=kinds, limit=4096) if follow else None
        )
        try:
            if follow and since is None and limit is None:
                past: list[Event] = []
            else:
                past = await self._core.journal.events(
                    since=since, limit=limit, service=service, kinds=kinds
                )
        except BaseException:
            if subscription is not None:
                subscription.close()
            raise

        async def stream() -> AsyncIterator[Body]:
            last = 0
            for event in past:
                last = event.seq
                yield event_body(event)
            if subscription is None:
                return
            async with subscription:
                async for event in subscription:
                    mine = service is None or getattr(event, "service", None) == service
                    if event.kind == "events-lost" or (mine and event.seq > last):
                        yield event_body(event)

        return stream()


def pulled_in(specs: Mapping[str, ServiceSpec], service: str) -> list[str]:
    """The service and all that starting it starts: what it requires and wants, and so on."""
    found: list[str] = []
    todo = [service]
    while todo:
        name = todo.pop()
        if name in found or name not in specs:
            continue
        found.append(name)
        todo += [edge.service for edge in specs[name].edges if edge.kind != "after"]
    return found


def event_body(event: Event) -> Body:
    """A fact as `atlasd.control.models.Event` has it; what does not apply is left out."""
    body = {key: value for key, value in to_wire(event).items() if value not in (None, "")}
    body["time"] = utc(event.time)
    return body


def _instance(instance: InstanceStatus) -> Body:
    return {
        "index": instance["index"],
        "state": instance["state"],
        "pid": instance["pid"],
        "health": instance["health"],
        "traffic": instance["traffic"],
        "since": utc(instance["since"]),
        "restarts": instance["restarts"],
        "reason": instance["reason"],
        "memory_bytes": instance["memory_bytes"],
        "cpu_seconds": instance["cpu_seconds"],
    }


def _instance_detail(instance: InstanceStatus) -> Body:
    return {
        **_instance(instance),
        "detail": instance["detail"],
        "failures": instance["failures"],
        "next_start_in": instance["next_start_in"],
        "tasks": instance["tasks"],
        "invocation": instance["invocation"],
        "status_text": instance["status_text"],
        "delivery": instance.get("delivery", ""),
        "outdated": tuple(instance.get("outdated", ())),
        "leftovers": tuple(instance["leftovers"]),
        "crash_loop": instance["crash_loop"],
    }
