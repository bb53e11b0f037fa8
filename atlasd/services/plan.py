"""What has to be done so that what runs becomes what is wanted: per instance, action and reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atlasd.services import delivery
from atlasd.services.spec import ServiceSpec
from atlasd.states import LIVE, Lifecycle, Reason, Wanted

HANDED = frozenset({"deliveries", "secrets", "on_change"})
"""Fields that say what a service is handed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One step: what is done to one instance, and why."""

    service: str
    instance: int
    action: str
    """start | stop | restart | deliver | update"""
    reason: Reason
    detail: str

    def to_wire(self) -> dict[str, object]:
        """As `protocol.ActionBody`."""
        return {
            "service": self.service,
            "instance": self.instance,
            "action": self.action,
            "reason": self.reason.value,
            "detail": self.detail,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Present:
    """An instance as it is: its state and the digest that its process was started with."""

    index: int
    state: Lifecycle
    digest: str
    delivered: str = ""
    """Digest of what it was handed, and told of since."""
    given: Mapping[str, str] = field(default_factory=dict)
    """`delivery.fingerprints` of what its process has."""
    wanted: Wanted = Wanted.UP
    """Of this instance: one that stops is started again afterwards if it is wanted up."""
    asked_down: bool = False
    """Somebody has stopped this very instance; it stays down until somebody starts it."""


def plan(
    *,
    old: Mapping[str, ServiceSpec],
    new: Mapping[str, ServiceSpec],
    wanted: Mapping[str, Wanted],
    present: Mapping[str, Sequence[Present]],
) -> list[Action]:
    """The difference between what is (`old` specifications, `present` instances) and is wanted.

    Empty when there is nothing to do, so that asking twice does nothing twice. An instance that
    waits, backs off or has failed needs no action unless its definition changed: the supervisor
    is at work on it already. Sorted by service and instance.
    """
    actions: list[Action] = []
    for name in sorted(set(old) | set(present) | set(new)):
        instances = {p.index: p for p in present.get(name, ())}
        spec = new.get(name)
        if spec is None:
            actions += [
                _action(name, i, "stop", Reason.CONFIG, "removed from the configuration")
                for i in sorted(instances)
                if instances[i].state is not Lifecycle.STOPPED
            ]
            continue
        up = wanted.get(name, Wanted.UP if spec.enabled else Wanted.DOWN)
        before = old.get(name)
        changed = spec.changed(before) if before is not None else ()
        changed = tuple(field for field in changed if field != "instances")  # of the service
        for index in sorted(set(instances) | set(range(spec.instances))):
            action = _one(name, index, spec, up, before, changed, instances.get(index))
            if action is not None:
                actions.append(action)
    return actions


def _one(
    name: str,
    index: int,
    spec: ServiceSpec,
    wanted: Wanted,
    before: ServiceSpec | None,
    changed: tuple[str, ...],
    present: Present | None,
) -> Action | None:
    live = present is not None and present.state in LIVE
    settled_down = present is None or present.state is Lifecycle.STOPPED
    if index >= spec.instances:
        if settled_down:
            return None
        return _action(name, index, "stop", Reason.CONFIG, f"scaled to {spec.instances}")
    if wanted is Wanted.DOWN:
        if settled_down or (present is not None and present.state is Lifecycle.STOPPING):
            return None
        if (
            present is not None
            and not live
            and present.state
            in (
                Lifecycle.EXITED,
                Lifecycle.FAILED,
                Lifecycle.LOST,
            )
        ):
            return None
        return _action(name, index, "stop", Reason.REQUEST, "wanted down")
    if wanted is Wanted.PAUSED or (present is not None and present.asked_down):
        return None
    if settled_down:
        detail = "new" if before is None or (present is None and index >= before.instances) else ""
        return _action(name, index, "start", Reason.CONFIG, detail or "wanted up")
    assert present is not None
    if present.state is Lifecycle.STOPPING and present.wanted is Wanted.DOWN:
        return _action(name, index, "start", Reason.CONFIG, "wanted up")
    if live and present.digest and present.digest != spec.digest():
        fields = ", ".join(changed) or "definition"
        return _action(name, index, "restart", Reason.CONFIG, f"changed: {fields}")
    if live:
        return _running(name, index, spec, changed, present)
    return _idle(name, index, spec, before, changed, present.state)


def _running(
    name: str, index: int, spec: ServiceSpec, changed: tuple[str, ...], present: Present
) -> Action | None:
    if present.delivered != delivery.digest(spec.deliveries):
        names = delivery.differing(present.given, delivery.fingerprints(spec.deliveries))
        detail = delivery.in_words(spec, names)
        return _action(name, index, "deliver", Reason.DELIVERY, detail)
    if changed:
        return _action(name, index, "update", Reason.CONFIG, "changed: " + ", ".join(changed))
    return None


def _idle(
    name: str,
    index: int,
    spec: ServiceSpec,
    before: ServiceSpec | None,
    changed: tuple[str, ...],
    state: Lifecycle,
) -> Action | None:
    if not changed:
        return None
    same = before is not None and spec.digest() == before.digest()
    if before is not None and same and HANDED.issuperset(changed):
        return _deliver_at_start(name, index, spec, before, state)
    if state in (Lifecycle.FAILED, Lifecycle.LOST, Lifecycle.BACKOFF, Lifecycle.WAITING):
        # A new definition is a new chance, with the counters cleared.
        return _action(name, index, "start", Reason.CONFIG, "changed: " + ", ".join(changed))
    if before is not None and not same:
        return _action(name, index, "start", Reason.CONFIG, "changed: " + ", ".join(changed))
    return None


def _deliver_at_start(
    name: str, index: int, spec: ServiceSpec, before: ServiceSpec, state: Lifecycle
) -> Action | None:
    """What is handed has changed, and the instance has no process: its next start has it."""
    names = delivery.differing(
        delivery.fingerprints(before.deliveries), delivery.fingerprints(spec.deliveries)
    )
    if not names or spec.on_change.kind == "none":
        return None
    if state not in (Lifecycle.FAILED, Lifecycle.BACKOFF):
        return None
    # It may have failed for what it was handed: a new chance, with the counters cleared.
    detail = f"changed: {', '.join(names)}; it is started with that"
    return _action(name, index, "deliver", Reason.DELIVERY, detail)


def _action(name: str, index: int, action: str, reason: Reason, detail: str) -> Action:
    return Action(service=name, instance=index, action=action, reason=reason, detail=detail)
