"""Layers laid over each other: what wins, what is kept, and where everything came from."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.config.merge import Merged, Rules, merge
from atlasd.config.shape import kind_of
from atlasd.contracts.config import KeyPath, Layer, Position


def positions(data: Any, origin: str, path: KeyPath = ()) -> dict[KeyPath, Position]:
    """A position for every value; the column tells them apart."""
    found: dict[KeyPath, Position] = {}
    if path:
        found[path] = Position(origin=origin, line=len(path), column=abs(hash(path)) % 1000 + 1)
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for key, value in items:
        found |= positions(value, origin, (*path, key))
    return found


def layer(data: dict[str, Any], origin: str) -> Layer:
    found = positions(data, origin)
    keys = {path: where for path, where in found.items() if isinstance(path[-1], str)}
    return Layer(origin=origin, data=data, values=found, keys=keys)


RULES = Rules(kind_of=kind_of)


def merged(*data: dict[str, Any]) -> Merged:
    return merge([layer(d, f"file{number}") for number, d in enumerate(data)], RULES)


def test_tables_are_merged_deep_and_everything_else_is_replaced() -> None:
    result = merged(
        {"a": {"x": 1, "y": {"p": 1}}, "list": [1, 2, 3], "s": "low"},
        {"a": {"y": {"q": 2}}, "list": [9], "s": "high", "new": True},
    )
    assert result.data == {
        "a": {"x": 1, "y": {"p": 1, "q": 2}},
        "list": [9],
        "s": "high",
        "new": True,
    }
    assert result.conflicts == ()


def test_every_value_keeps_the_file_that_had_the_last_word() -> None:
    result = merged({"a": {"x": 1, "y": 2}, "l": [1, 2]}, {"a": {"y": 3}, "l": [7]})
    origins = {path: where.origin for path, where in result.layer.values.items()}
    assert origins == {
        ("a",): "file0",
        ("a", "x"): "file0",
        ("a", "y"): "file1",
        ("l",): "file1",
        ("l", 0): "file1",
    }


def test_what_was_replaced_is_remembered_in_order() -> None:
    result = merged({"a": 1}, {"a": 2}, {"a": 3})
    assert [old.place.origin for old in result.shadowed(("a",))] == ["file0", "file1"]
    assert result.layer.where(("a",)).origin == "file2"


@pytest.mark.parametrize(
    ("low", "high"),
    [({"x": 1}, "text"), ("text", {"x": 1}), ([1], "text"), (1, "text"), (True, 1), (1, False)],
)
def test_another_kind_of_value_is_a_conflict_and_the_lower_one_stays(low: Any, high: Any) -> None:
    result = merged({"a": low}, {"a": high})
    (conflict,) = result.conflicts
    assert conflict.path == ("a",)
    assert (conflict.lower.origin, conflict.higher.origin) == ("file0", "file1")
    assert result.data == {"a": low}
    assert result.layer.where(("a",)).origin == "file0"


def test_whole_and_real_numbers_are_one_kind() -> None:
    assert merged({"a": 1}, {"a": 1.5}).data == {"a": 1.5}


def test_a_setting_with_two_spellings_may_change_its_kind() -> None:
    layers = [layer({"c": "a b", "d": "x"}, "low"), layer({"c": ["a"], "d": ["x"]}, "high")]

    def kinds(path: KeyPath) -> frozenset[str]:
        return frozenset({"string", "list"}) if path == ("c",) else frozenset({"string"})

    result = merge(layers, Rules(kind_of=kind_of, kinds=kinds))
    assert result.data == {"c": ["a"], "d": "x"}
    assert [conflict.path for conflict in result.conflicts] == [("d",)]


KEYS = st.sampled_from("abc")
LEAVES = st.one_of(st.integers(), st.text(max_size=3), st.booleans(), st.lists(st.integers()))
TABLES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3),
    lambda inner: st.dictionaries(KEYS, st.one_of(LEAVES, inner), max_size=3),
    max_leaves=8,
)


@given(TABLES)
def test_one_layer_alone_is_what_it_is(table: dict[str, Any]) -> None:
    result = merged(table)
    assert result.data == table
    assert result.layer.values == positions(table, "file0")


@given(TABLES)
def test_a_layer_over_itself_changes_nothing(table: dict[str, Any]) -> None:
    result = merged(table, table)
    assert result.data == table
    assert result.conflicts == ()


@given(TABLES, TABLES, TABLES)
def test_merging_in_steps_is_merging_at_once(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    at_once = merged(a, b, c)
    first = merge([layer(a, "file0"), layer(b, "file1")], RULES)
    in_steps = merge([first.layer, layer(c, "file2")], RULES)
    assert in_steps.data == at_once.data
    assert in_steps.layer.values == at_once.layer.values


@given(TABLES, TABLES)
def test_positions_are_those_of_the_result_and_the_layers_stay_as_they_were(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    before = copy.deepcopy((a, b))
    result = merged(a, b)
    assert set(result.layer.values) == set(positions(result.data, "any"))
    assert (a, b) == before
    for path, where in result.layer.values.items():
        value: Any = (a, b)[int(where.origin[-1])]
        for key in path:
            value = value[key]
        if not isinstance(value, dict):
            assert value == _at(result.data, path)


def _at(data: Any, path: KeyPath) -> Any:
    for key in path:
        data = data[key]
    return data


@given(TABLES, TABLES)
def test_the_higher_layer_wins_unless_there_is_a_conflict(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    result = merged(a, b)
    conflicts = {conflict.path for conflict in result.conflicts}
    for path in positions(b, "file1"):
        if any(path[: len(c)] == c for c in conflicts):
            continue
        value = _at(b, path)
        if not isinstance(value, dict):
            assert _at(result.data, path) == value
