"""What has to be done: nothing twice, and only to the instances that it concerns."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atlasd.services.plan import Action, Present, plan
from atlasd.services.spec import ServiceSpec, Stop
from atlasd.states import LIVE, Lifecycle, Wanted

SPEC = ServiceSpec(name="web", command=("web",))


def running(spec: ServiceSpec, index: int = 0) -> Present:
    return Present(index=index, state=Lifecycle.RUNNING, digest=spec.digest())


def one(
    *,
    before: ServiceSpec | None,
    after: ServiceSpec | None,
    present: list[Present],
    **wanted: Wanted,
) -> list[tuple[int, str, str]]:
    actions = plan(
        old={} if before is None else {before.name: before},
        new={} if after is None else {after.name: after},
        wanted=wanted,
        present={"web": present},
    )
    return [(a.instance, a.action, a.detail) for a in actions]


def test_one_changed_service_of_twenty_is_exactly_one_action() -> None:
    old = {f"s{i}": ServiceSpec(name=f"s{i}", command=("x",)) for i in range(20)}
    new = old | {"s7": replace(old["s7"], command=("y",))}
    present = {name: [running(spec)] for name, spec in old.items()}
    actions = plan(old=old, new=new, wanted={}, present=present)
    assert [(a.service, a.instance, a.action, a.detail) for a in actions] == [
        ("s7", 0, "restart", "changed: command")
    ]


def test_new_changed_live_and_removed() -> None:
    assert one(before=None, after=SPEC, present=[]) == [(0, "start", "new")]
    live = replace(SPEC, stop=Stop(timeout=1))
    assert one(before=SPEC, after=live, present=[running(SPEC)]) == [(0, "update", "changed: stop")]
    assert one(before=SPEC, after=None, present=[running(SPEC)]) == [
        (0, "stop", "removed from the configuration")
    ]


def test_scaling_touches_no_instance_that_stays() -> None:
    three = replace(SPEC, instances=3)
    up = [running(SPEC), running(SPEC, 1)]
    assert one(before=replace(SPEC, instances=2), after=three, present=up) == [(2, "start", "new")]
    assert one(before=replace(SPEC, instances=2), after=SPEC, present=up) == [
        (1, "stop", "scaled to 1")
    ]


def test_wanted_down_and_paused() -> None:
    assert one(before=SPEC, after=SPEC, present=[running(SPEC)], web=Wanted.DOWN) == [
        (0, "stop", "wanted down")
    ]
    changed = replace(SPEC, command=("y",))
    assert one(before=SPEC, after=changed, present=[running(SPEC)], web=Wanted.PAUSED) == []


def test_an_instance_that_somebody_stopped_stays_down() -> None:
    two = replace(SPEC, instances=2)
    stopped = Present(index=1, state=Lifecycle.STOPPED, digest="", asked_down=True)
    assert one(before=two, after=two, present=[running(SPEC), stopped]) == []


def test_what_has_failed_is_tried_again_only_with_a_new_definition() -> None:
    failed = Present(index=0, state=Lifecycle.FAILED, digest="")
    assert one(before=SPEC, after=SPEC, present=[failed]) == []
    assert one(before=SPEC, after=replace(SPEC, command=("y",)), present=[failed]) == [
        (0, "start", "changed: command")
    ]


commands = st.sampled_from([("a",), ("b",)])
specs = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(ServiceSpec, name=st.just(""), command=commands, instances=st.integers(0, 3)),
)
wishes = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(list(Wanted)))


def carried_out(
    actions: list[Action], new: dict[str, ServiceSpec], present: dict[str, list[Present]]
) -> dict[str, list[Present]]:
    """What is after every action has come to its good end."""
    after = {name: {p.index: p for p in found} for name, found in present.items()}
    for action in actions:
        found = after.setdefault(action.service, {})
        if action.action == "stop":
            found.pop(action.instance, None)
        elif action.action in ("start", "restart"):
            found[action.instance] = running(new[action.service], action.instance)
    return {name: list(found.values()) for name, found in after.items()}


@given(old=specs, new=specs, wanted=wishes, data=st.data())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    old: dict[str, ServiceSpec],
    new: dict[str, ServiceSpec],
    wanted: dict[str, Wanted],
    data: st.DataObject,
) -> None:
    states = st.sampled_from(list(Lifecycle))
    present = {
        name: [
            Present(index=i, state=state, digest=spec.digest() if state in LIVE else "")
            for i in range(spec.instances)
            for state in [data.draw(states)]
        ]
        for name, spec in old.items()
    }
    actions = plan(old=old, new=new, wanted=wanted, present=present)
    assert len({(a.service, a.instance) for a in actions}) == len(actions)
    after = carried_out(actions, new, present)
    assert plan(old=new, new=new, wanted=wanted, present=after) == []
