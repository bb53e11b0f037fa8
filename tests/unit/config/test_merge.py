"""Layers laid over each other: what wins, what is kept, and where everything came from."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
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


# --- operators, and lists of tables that say who they are


UNSET: dict[str, Any] = {"unset": True}


@pytest.mark.parametrize(
    ("low", "high", "result"),
    [
        ({"a": [1, 2]}, {"a+": [3]}, {"a": [1, 2, 3]}),
        ({"a": [1, 2, 1]}, {"a-": [1]}, {"a": [2]}),
        ({"a": [1, 2]}, {"a-": [2], "a+": [3]}, {"a": [1, 3]}),
        ({"a": [1]}, {"a+": [2], "a-": [1]}, {"a": [2]}),
        ({}, {"a+": [1]}, {"a": [1]}),
        ({"t": {"a": [1]}}, {"t": {"a+": [2]}}, {"t": {"a": [1, 2]}}),
        ({"a": 1, "b": 2}, {"a": UNSET}, {"b": 2}),
        ({"t": {"a": 1, "b": 2}}, {"t": {"a": UNSET}}, {"t": {"b": 2}}),
        ({"t": {"a": 1}}, {"t": UNSET}, {}),
        (
            {"a": [{"id": 1, "x": 1}]},
            {"a": [{"id": 1, "y": 2}]},
            {"a": [{"id": 1, "x": 1, "y": 2}]},
        ),
        (
            {"a": [{"id": 1}, {"id": 2}]},
            {"a": [{"id": 2, "x": 1}, {"id": 3}]},
            {"a": [{"id": 1}, {"id": 2, "x": 1}, {"id": 3}]},
        ),
        ({"a": [{"id": 1}, {"id": 2}]}, {"a": [{"id": 1, "unset": True}]}, {"a": [{"id": 2}]}),
        ({"a": [{"id": 1}, {"id": 2}]}, {"a-": [1]}, {"a": [{"id": 2}]}),
        ({"a": [{"x": 1}]}, {"a": [{"y": 2}]}, {"a": [{"y": 2}]}),
        ({"a": [{"id": 1}]}, {"a": []}, {"a": []}),
        (
            {"a": [{"id": 1, "l": [1]}]},
            {"a": [{"id": 1, "l+": [2]}]},
            {"a": [{"id": 1, "l": [1, 2]}]},
        ),
        ({"a": [1]}, {"a-": [True]}, {"a": [1]}),
        ({"+": 1}, {"-": 2}, {"+": 1, "-": 2}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": None}, {"a": None}),
    ],
)
def test_operators_do_what_they_say(
    low: dict[str, Any], high: dict[str, Any], result: dict[str, Any]
) -> None:
    assert merged(low, high).data == result
    assert merged(low, high).conflicts == ()


def test_files_of_others_may_have_keys_that_look_like_operators() -> None:
    layers = [layer({"O+": "frequent", "t": {"unset": True}}, "file0")]
    found = merge(layers, Rules(kind_of=kind_of, operators=False))
    assert found.data == {"O+": "frequent", "t": {"unset": True}}
    assert found.misuses == ()


@pytest.mark.parametrize(
    ("low", "high", "complaint", "warning"),
    [
        ({"a": [1]}, {"a+": 2}, "no list", False),
        ({"a": 1}, {"a+": [2]}, "no list below", False),
        ({"a": [1]}, {"a-": [2]}, "no such item", True),
        ({}, {"a-": [2]}, "nothing below", True),
        ({}, {"a": UNSET}, "nothing below", True),
        ({"a": [{"id": 1}]}, {"a": [{"id": 1}, {"x": 2}]}, "ids", False),
        ({"a": [{"id": 1}]}, {"a": [{"id": 1}, {"id": 1}]}, "ids", False),
        ({"a": [{"id": 1}]}, {"a": [{"id": 2, "unset": True}]}, "no such item", True),
    ],
)
def test_an_operator_without_work_is_complained_of(
    low: dict[str, Any], high: dict[str, Any], complaint: str, warning: bool
) -> None:
    (misuse,) = merged(low, high).misuses
    assert (misuse.complaint, misuse.warning) == (complaint, warning)
    assert misuse.path == ("a",)
    assert misuse.where.origin == "file1"


def test_each_item_of_a_list_keeps_its_place() -> None:
    result = merged({"a": [1, 2, {"x": 3}]}, {"a-": [1], "a+": [4]}, {"a+": [5]})
    assert result.data == {"a": [2, {"x": 3}, 4, 5]}
    origins = [result.layer.where(("a", index)).origin for index in range(4)]
    assert origins == ["file0", "file0", "file1", "file2"]
    assert (
        result.layer.where(("a", 1, "x"))
        == positions({"a": [1, 2, {"x": 3}]}, "file0")["a", 2, "x"]
    )
    assert result.layer.where(("a",)).origin == "file2"
    assert [old.value for old in result.shadowed(("a",))] == [
        [1, 2, {"x": 3}],
        [2, {"x": 3}],
        [2, {"x": 3}, 4],
    ]


def test_what_was_unset_is_known_until_it_is_set_again() -> None:
    below = {"t": {"a": 1, "b": {"c": 2}}}
    gone = merged(below, {"t": UNSET})
    assert list(gone.unset) == [("t",)]
    assert gone.unset["t",].origin == "file1"
    assert [old.value for old in gone.shadowed(("t", "b", "c"))] == [2]
    again = merged(below, {"t": UNSET}, {"t": {"a": 3}})
    assert again.data == {"t": {"a": 3}}
    assert again.unset == {}
    assert [old.place.origin for old in again.shadowed(("t", "a"))] == ["file0"]


def test_an_operator_works_on_the_default_where_no_layer_has_the_key() -> None:
    rules = Rules(
        kind_of=kind_of,
        default=lambda path: [1, 2] if path == ("t", "a") else None,
        as_list=lambda _path, value: [value] if isinstance(value, str) else None,
    )
    found = merge([layer({"t": {"a-": [1], "a+": ["x"]}, "s": "one"}, "file0")], rules)
    assert found.data == {"t": {"a": [2, "x"]}, "s": "one"}
    found = merge([layer({"s": "one"}, "file0"), layer({"s+": "two"}, "file1")], rules)
    assert found.data == {"s": ["one", "two"]}
    assert [found.layer.where(("s", index)).origin for index in (0, 1)] == ["file0", "file1"]


def test_a_reference_may_stand_for_a_value_of_another_kind_but_no_table() -> None:
    rules = Rules(kind_of=kind_of, stands_for_any=lambda value: value == "secret://x")
    found = merge(
        [layer({"a": 1, "t": {}}, "file0"), layer({"a": "secret://x", "t": "secret://x"}, "file1")],
        rules,
    )
    assert found.data == {"a": "secret://x", "t": {}}
    assert [conflict.path for conflict in found.conflicts] == [("t",)]


# --- against a naive model, which knows nothing of places


OPERATED = st.sampled_from(["a", "b", "c", "a+", "a-", "b+", "b-"])
IDS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(0, 3)},
        optional={"x": st.integers(0, 2), "x+": st.lists(st.integers(0, 2))},
    ),
    max_size=3,
    unique_by=lambda table: table["id"],
)
OPERANDS = st.one_of(
    st.integers(0, 2),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from(["x", True, None, UNSET, {"id": 1, "unset": True}]),
    IDS,
)
LAYERS = st.lists(
    st.recursive(
        st.dictionaries(OPERATED, OPERANDS, max_size=4),
        lambda inner: st.dictionaries(OPERATED, st.one_of(OPERANDS, inner), max_size=4),
        max_leaves=8,
    ),
    max_size=4,
)


def naive(layers: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for one in layers:
        result = naive_over(result, one)
    return result


def naive_over(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    result = dict(low)
    for key, value in high.items():
        old = result.get(key)
        if key[-1] in "+-":
            continue
        if value == UNSET:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(old, dict):
            result[key] = naive_over(old, value)
        elif key not in result or old is None:
            result[key] = naive_fresh(value)
        elif value is None and not isinstance(old, dict):
            result[key] = None
        elif kind_of(old) == kind_of(value):
            identified = all(
                isinstance(items, list) and items and all(isinstance(i, dict) for i in items)
                for items in (old, value)
            )
            result[key] = naive_ids(old, value) if identified else naive_fresh(value)
    for key in [k for k in high if k[-1] == "-"] + [k for k in high if k[-1] == "+"]:
        name, given_items = key[:-1], high[key]
        old = result.get(name, [])
        if isinstance(given_items, list) and isinstance(old, list):
            if key[-1] == "+":
                result[name] = old + given_items
            elif name in result:
                result[name] = [i for i in old if not any(naive_is(i, g) for g in given_items)]
    return result


def naive_is(item: Any, unwanted: Any) -> bool:
    if isinstance(item, dict) and not isinstance(unwanted, dict):
        item = item.get("id")
    return type(item) is type(unwanted) and bool(item == unwanted)


def naive_ids(low: list[dict[str, Any]], high: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = [[table.get("id") for table in tables] for tables in (low, high)]
    if any(None in one or len(set(one)) < len(one) for one in ids):
        return high
    result = list(low)
    for table in high:
        found = [index for index, old in enumerate(result) if old["id"] == table["id"]]
        removes = table == {"id": table["id"], "unset": True}
        if found and removes:
            del result[found[0]]
        elif found:
            result[found[0]] = naive_over(result[found[0]], table)
        elif not removes:
            result.append(naive_over({}, table))
    return result


def naive_fresh(value: Any) -> Any:
    return naive_over({}, value) if isinstance(value, dict) else value


@settings(max_examples=400, deadline=None)
@given(LAYERS)
def test_a_merge_is_what_the_naive_model_gives(layers: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(layers)
    result = merged(*layers)
    assert result.data == naive(layers)
    assert layers == before


@settings(max_examples=200, deadline=None)
@given(LAYERS)
def test_every_leaf_stands_where_its_layer_says_it(layers: list[dict[str, Any]]) -> None:
    result = merged(*layers)
    for path in positions(result.data, "any"):
        value = _at(result.data, path)
        where = result.layer.where(path)
        assert where.origin == result.layer_of(path).origin
        if isinstance(value, dict | list):
            continue
        number = int(where.origin.removeprefix("file"))
        given_there = [
            _at(layers[number], there)
            for there, at in positions(layers[number], where.origin).items()
            if at == where
        ]
        assert any(type(found) is type(value) and found == value for found in given_there), path
