"""What has to be done: nothing twice, and only to the instances that it concerns."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atlasd.services import delivery
from atlasd.services.plan import Action, Present, plan
from atlasd.services.spec import Delivery, OnChange, ServiceSpec, Stop
from atlasd.states import LIVE, Lifecycle, Reason, Wanted

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


# ---------------------------------------------------------------------- what is handed over


def handed(*contents: str, way: str = "restart") -> ServiceSpec:
    """The service, handed A, B … as files of these contents."""
    deliveries = tuple(
        Delivery(name=name, content=content) for name, content in zip("ABC", contents, strict=False)
    )
    return replace(SPEC, deliveries=deliveries, on_change=OnChange(kind=way))


def having(spec: ServiceSpec, state: Lifecycle = Lifecycle.RUNNING) -> Present:
    return Present(
        index=0,
        state=state,
        digest=spec.digest() if state in LIVE else "",
        delivered=delivery.digest(spec.deliveries),
        given=delivery.fingerprints(spec.deliveries),
    )


def test_other_contents_are_delivered_and_restart_nothing_by_themselves() -> None:
    old, new = handed("MQ==", "MQ=="), handed("MQ==", "Mg==")
    assert one(before=old, after=new, present=[having(old)]) == [(0, "deliver", "changed: B")]
    (action,) = plan(old={"web": old}, new={"web": new}, wanted={}, present={"web": [having(old)]})
    assert action.reason is Reason.DELIVERY
    assert one(before=old, after=old, present=[having(old)]) == []
    # It comes of what the process has, whatever the definition before was.
    assert one(before=new, after=new, present=[having(old)]) == [(0, "deliver", "changed: B")]
    assert one(before=old, after=new, present=[having(new)]) == [
        (0, "update", "changed: deliveries")
    ]


def test_what_is_to_be_done_stands_in_the_detail() -> None:
    old, new = handed("MQ==", way="swap"), handed("Mg==", way="swap")
    assert one(before=old, after=new, present=[having(old)]) == [
        (0, "deliver", "changed: A; files are exchanged, nobody is told")
    ]


def test_a_new_file_needs_a_new_process() -> None:
    old, new = handed("MQ=="), handed("MQ==", "MQ==")
    assert one(before=old, after=new, present=[having(old)]) == [
        (0, "restart", "changed: deliveries")
    ]


def test_other_changes_go_along() -> None:
    old = handed("MQ==")
    new = replace(handed("Mg=="), stop=Stop(timeout=1))
    assert one(before=old, after=new, present=[having(old)]) == [(0, "deliver", "changed: A")]
    new = replace(new, command=("y",))
    assert one(before=old, after=new, present=[having(old)]) == [
        (0, "restart", "changed: command, stop, deliveries")
    ]


def test_what_does_not_run_has_it_at_its_next_start() -> None:
    old, new = handed("MQ=="), handed("Mg==")
    tried = [(0, "deliver", "changed: A; it is started with that")]
    for state, expected in {
        Lifecycle.FAILED: tried,
        Lifecycle.BACKOFF: tried,
        Lifecycle.WAITING: [],
        Lifecycle.EXITED: [],
        Lifecycle.LOST: [],
    }.items():
        assert one(before=old, after=new, present=[having(old, state)]) == expected, state
    later = replace(new, on_change=OnChange(kind="none"))
    assert one(before=old, after=later, present=[having(old, Lifecycle.FAILED)]) == []
    more = handed("Mg==", "Mg==")
    assert one(before=old, after=more, present=[having(old, Lifecycle.FAILED)]) == [
        (0, "start", "changed: deliveries")
    ]


def test_who_is_paused_or_stopped_is_handed_nothing() -> None:
    old, new = handed("MQ=="), handed("Mg==")
    assert one(before=old, after=new, present=[having(old)], web=Wanted.PAUSED) == []
    down = replace(having(old), asked_down=True)
    assert one(before=old, after=new, present=[down]) == []
