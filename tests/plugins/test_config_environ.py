"""The environ source: each setting has a variable, and each variable means one setting or none."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.config import texts
from atlasd.config.outline import outline
from atlasd.config.shape import Shape, at
from atlasd.contracts.config import KeyPath, Layer
from atlasd_plugins.config_environ import name_settings

PREFIX = "ATLASD__"
BELOW = {
    "services": {
        "web": {"env": {"lower": "x"}},
        "my-shop": {},
        "a__b": {},
        "twin-1": {},
        "twin_1": {},
    },
    "settings": {"shop": {"values": {"Depth": {"max": 5}}}},
}


def named(*names: str) -> Layer:
    variables = texts.variables(dict.fromkeys(names, "1"), PREFIX)
    return name_settings(variables, outline(BELOW), PREFIX)


def path_of(layer: Layer) -> KeyPath | None:
    path: list[str] = []
    value: Any = layer.data
    while isinstance(value, dict):
        if not value:
            return None
        ((key, value),) = value.items()
        path.append(key)
    return tuple(path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("HOST__LOG_BUDGET", ("host", "log_budget")),
        ("HOST__RESTART_BUDGET__RATE", ("host", "restart_budget", "rate")),
        ("SERVICES__WEB__NICE", ("services", "web", "nice")),
        ("SERVICES__MY_SHOP__NICE", ("services", "my-shop", "nice")),
        ("SERVICES__NEW_ONE__NICE", ("services", "new_one", "nice")),
        ("SERVICES__A__B__NICE", ("services", "a__b", "nice")),
        ("SERVICES__WEB__ENV__LOG_LEVEL", ("services", "web", "env", "LOG_LEVEL")),
        ("SERVICES__WEB__ENV__A__B__C", ("services", "web", "env", "A__B__C")),
        ("SERVICES__WEB__ENV__LOWER", ("services", "web", "env", "lower")),
        (
            "SERVICES__WEB__SECRETS__DB_KEY__VALUE",
            ("services", "web", "secrets", "DB_KEY", "value"),
        ),
        (
            "SERVICES__WEB__SOCKETS__HTTP__ADDRESS",
            ("services", "web", "sockets", "http", "address"),
        ),
        ("SERVICES__WEB__SOCKETS__HTTP", ("services", "web", "sockets", "http")),
        ("SETTINGS__SHOP__VALUES__DEPTH__MAX", ("settings", "shop", "values", "Depth", "max")),
        ("SETTINGS__SHOP__VALUES__NEW", ("settings", "shop", "values", "new")),
        ("CHECKS__DISK__PATH", ("checks", "disk", "path")),
    ],
)
def test_a_name_means_a_setting(name: str, path: KeyPath) -> None:
    layer = named(PREFIX + name)
    assert layer.faults == ()
    assert path_of(layer) == path
    assert str(layer.where(path)) == f"environment {PREFIX}{name}"


@pytest.mark.parametrize(
    ("name", "got", "hint"),
    [
        ("HOST__LOG_BUDGT", "a variable that means no setting", f"'{PREFIX}HOST__LOG_BUDGET'"),
        ("HSOT__LOG_BUDGET", "a variable that means no setting", f"'{PREFIX}HOST__LOG_BUDGET'"),
        (
            "SERVICES__WEB__NISE",
            "a variable that means no setting",
            f"'{PREFIX}SERVICES__WEB__NICE'",
        ),
        (
            "SERVICES__WEB__RESTART__POLICE",
            "a variable",
            f"'{PREFIX}SERVICES__WEB__RESTART__POLICY'",
        ),
        ("HOST__LOG_BUDGET__X", "a variable that means no setting", "HOST__LOG_BUDGET"),
        ("host__log_budget", "a variable that means no setting", "known: "),
        ("", "a variable that means no setting", ""),
        (
            "SERVICES__TWIN_1__NICE",
            "it may mean services.twin-1.nice or services.twin_1.nice",
            "--set",
        ),
    ],
)
def test_a_name_that_means_nothing_or_too_much_is_refused(name: str, got: str, hint: str) -> None:
    layer = named(PREFIX + name)
    (fault,) = layer.faults
    assert layer.data == {}
    assert fault.got.startswith(got)
    assert hint in fault.hint
    assert fault.where.origin == f"environment {PREFIX}{name}"


def test_two_variables_for_one_setting_are_refused() -> None:
    layer = named(f"{PREFIX}LOG", f"{PREFIX}LOG__LEVEL")
    assert [fault.got for fault in layer.faults] == [f"{PREFIX}LOG says it too"]


def test_variables_of_others_are_passed_over() -> None:
    layer = name_settings(
        Layer(origin="x", data={"ATLASD_ENV": "x", "PATH": "y"}), outline(BELOW), PREFIX
    )
    assert (layer.data, layer.faults) == ({}, ())


def paths_of(shape: Shape, path: KeyPath = (), depth: int = 0) -> list[KeyPath]:
    """The way to every key of the schema, `name` standing for what the operator chooses."""
    found = [path] if path else []
    if depth > 6:
        return found
    keys = shape.keys or (("name",) if "table" in shape.kinds and shape.child("name") else ())
    for key in keys:
        below = shape.child(key)
        if below is not None:
            found += paths_of(below, (*path, key), depth + 1)
    return found


def whole() -> Shape:
    found = at(())
    assert found is not None
    return found


ALL = [path for path in paths_of(whole()) if "values" not in path]


def test_every_setting_of_the_schema_has_a_variable() -> None:
    assert len(ALL) > 150
    for path in ALL:
        # A name is written as it is: in capitals only where the operator wrote it so.
        words = [str(key).upper().replace("-", "_") for key in path]
        layer = named(PREFIX + "__".join(words))
        cased = [
            "NAME" if index == 3 and path[2] in ("env", "secrets") else key
            for index, key in enumerate(path)
        ]
        assert (layer.faults, path_of(layer)) == ((), tuple(cased))


WORDS = st.sampled_from(["HOST", "SERVICES", "WEB", "A", "B", "ENV", "NICE", "LOG", "", "X", "x"])


@settings(max_examples=200)
@given(st.lists(st.lists(WORDS, max_size=6).map("__".join), max_size=4, unique=True))
def test_each_variable_is_a_setting_or_a_fault_and_never_lost(names: list[str]) -> None:
    layer = named(*(PREFIX + name for name in names))
    told = {fault.where.origin for fault in layer.faults}
    placed = {
        str(where) for path, where in layer.values.items() if isinstance(leaf(layer, path), str)
    }
    assert told | placed == {f"environment {PREFIX}{name}" for name in names}


def leaf(layer: Layer, path: KeyPath) -> Any:
    value: Any = layer.data
    for key in path:
        value = value[key]
    return value
