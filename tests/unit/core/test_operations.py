from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from atlasd.core.operations import event_body, pulled_in
from atlasd.events import CheckReported, EventsLost, InstanceMoved
from atlasd.services.order import pulled_in as as_services_does_it
from atlasd.services.spec import Edge, ServiceSpec

NAMES = st.sampled_from("abcdef")
EDGES = st.lists(
    st.builds(Edge, service=NAMES, kind=st.sampled_from(["requires", "wants", "after"])),
    max_size=3,
).map(tuple)


@given(st.dictionaries(NAMES, EDGES), NAMES)
def test_a_start_wants_up_what_the_services_role_starts_with_it(
    graph: dict[str, tuple[Edge, ...]], service: str
) -> None:
    specs = {
        name: ServiceSpec(name=name, command=("true",), edges=edges)
        for name, edges in graph.items()
    }
    assert set(pulled_in(specs, service)) == as_services_does_it(graph, [service])


def test_an_events_line_says_only_what_applies() -> None:
    moved = InstanceMoved(time=0.0, seq=7, service="web", instance=0, old="starting", new="running")
    assert event_body(moved) == {
        "seq": 7,
        "time": datetime(1970, 1, 1, tzinfo=UTC),
        "kind": "transition",
        "service": "web",
        "instance": 0,
        "old": "starting",
        "new": "running",
    }
    checked = event_body(CheckReported(time=0.0, check="disk", old="pass", new="fail"))
    assert checked["data"] == {"check": "disk"}
    assert event_body(EventsLost(time=0.0, count=3))["data"] == {"count": 3}
