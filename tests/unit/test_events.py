import ast
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd import events
from atlasd.events import KINDS, CheckReported, Event, InstanceMoved, from_wire, to_wire

ROOT = Path(__file__).parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@st.composite
def facts(draw: st.DrawFn) -> Event:
    cls = draw(st.sampled_from(sorted(KINDS.values(), key=lambda c: c.kind)))
    values: dict[str, object] = {}
    for f in fields(cls):
        match f.name:
            case "time":
                values[f.name] = draw(st.floats(0, 4e9))
            case "seq" | "pid" | "count" | "instance":
                values[f.name] = draw(st.integers(0, 2**31))
            case "data":
                values[f.name] = draw(st.dictionaries(st.text(), JSON))
            case _:
                values[f.name] = draw(st.text())
    return cls(**values)  # type: ignore[arg-type]


@given(facts())
def test_a_fact_survives_the_wire(event: Event) -> None:
    assert from_wire(to_wire(event)) == event


def test_what_the_services_role_says_of_a_step_of_a_plan_stands_beside_its_kind() -> None:
    event = from_wire(
        {"kind": "plan", "time": 1.0, "service": "web", "instance": 0, "action": "restart"}
    )
    assert isinstance(event, events.PlanApplied)
    assert (event.service, event.action) == ("web", "restart")


def test_fields_of_another_version_are_passed_over() -> None:
    body = to_wire(InstanceMoved(time=1.0, service="web", old="starting", new="running"))
    assert from_wire({**body, "colour": "green"}) == from_wire(body)


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "of-tomorrow", "time": 1.0},
        {"kind": "transition", "time": 1.0, "service": "web"},
        {},
    ],
)
def test_what_cannot_be_understood_is_none(body: dict[str, object]) -> None:
    assert from_wire(body) is None


def test_every_class_of_facts_has_a_kind_of_its_own() -> None:
    classes = {
        value
        for value in vars(events).values()
        if isinstance(value, type)
        and issubclass(value, Event)
        and value not in (Event, events.ServiceEvent)
    }
    assert set(KINDS.values()) == classes
    assert len({cls.kind for cls in classes}) == len(classes)


def test_every_kind_that_the_services_role_tells_is_known() -> None:
    told: set[str] = set()
    for path in (ROOT / "atlasd" / "services").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "add"
                and ast.unparse(node.func.value).endswith("journal")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                told.add(str(node.args[0].value))
    assert "transition" in told
    assert told - KINDS.keys() == set()


def test_what_is_no_column_stands_in_data() -> None:
    body = to_wire(CheckReported(time=1.0, check="disk", old="pass", new="fail"))
    assert body["data"] == {"check": "disk"}
    assert body["old"] == "pass"
