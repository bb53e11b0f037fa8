"""etc/atlasd.toml is the reference for operators: every setting is in it, with its default."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from atlasd.config import shape
from atlasd.config.schema import Plugin, Settings
from atlasd.config.validate import PLACEHOLDER
from atlasd.contracts.config import KeyPath
from atlasd_plugins.secrets_fernet import FernetSettings
from tests.unit.config.desk import Desk

ETC = Path(__file__).parents[3] / "etc"
TEXT = (ETC / "atlasd.toml").read_text()
# `#key = value` and `#[table]` are settings; `# words` and `# --- words` are comments.
UNCOMMENTED = re.sub(r"^#(?=[A-Za-z_\[])", "", TEXT, flags=re.MULTILINE)
DATA = tomllib.loads(UNCOMMENTED)
REQUIRED: dict[str, dict[str, Any]] = {
    "Limit": {"count": 1},
    "Scale": {"max": 8},
    "Schedule": {"kind": "x"},
    "ServiceSecret": {"value": "secret://db"},
    "Socket": {"address": "tcp://127.0.0.1:1"},
    **{model.__name__: dict(values) for model, values in PLACEHOLDER.items()},
}

# Keys that belong to what a plugin supplies, not to the schema.
EXAMPLES_OF_OTHERS: dict[str, dict[str, set[str]]] = {
    "Check": {"http": {"url"}},
    "Store": {"postgres": {"dsn", "password", "schema", "patience", "poll"}},
    "SecretBackend": {"aws": {"region"}, "fernet": set(FernetSettings.model_fields)},
}


def tables(path: KeyPath, data: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Every table that has a model, with the way to it."""
    found = shape.at(path)
    assert found is not None, path
    if found.model is not None:
        yield path, data
    for key, value in data.items():
        below = found.child(key)
        if isinstance(value, dict) and below is not None and below.kinds >= {"table"}:
            yield from tables((*path, key), value)


TABLES = dict(tables((), DATA))


def model_at(path: KeyPath) -> type[BaseModel]:
    found = shape.at(path)
    assert found is not None
    assert found.model is not None
    return found.model


def test_every_table_of_the_schema_is_there() -> None:
    def models(shown: shape.Shape | None) -> Iterator[str]:
        if shown is None:
            return
        if shown.model is None:
            if "table" in shown.kinds and shown.spelling is None:
                yield from models(shown.child("NAME"))
            return
        yield shown.model.__name__
        for key in shown.keys:
            below = shown.child(key)
            # Lists of tables (hooks, steps of a stop) are described where they are used.
            if below is not None and "list" not in below.kinds:
                yield from models(below)

    assert {model_at(path).__name__ for path in TABLES} == set(models(shape.at(())))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: ".".join(map(str, path)) or "top")
def test_a_table_has_every_key_and_each_with_its_default(path: KeyPath) -> None:
    model = model_at(path)
    table = TABLES[path]
    if model is Plugin:
        return
    kind = table.get("type", path[-1] if path else "")
    extra = EXAMPLES_OF_OTHERS.get(model.__name__, {}).get(str(kind), set())
    assert set(table) - extra == set(model.model_fields)
    if model is Settings:
        return
    required = REQUIRED.get(model.__name__, {})
    for key, field in model.model_fields.items():
        below = shape.at((*path, key))
        assert below is not None
        read = getattr(model.model_validate({**required, key: table[key]}), key)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if default is None or isinstance(default, dict | BaseModel):
            continue  # an example
        assert read == default, key


def test_the_default_backend_has_every_key_and_each_with_its_default() -> None:
    table = DATA["secrets"]["backends"]["fernet"]
    assert set(table) == {"type", *FernetSettings.model_fields}
    assert FernetSettings.model_validate({k: v for k, v in table.items() if k != "type"}) == (
        FernetSettings()
    )


def test_it_can_be_used_as_it_is(desk: Desk) -> None:
    desk.write(TEXT)
    for path in (ETC / "environments").glob("*.toml"):
        desk.write(path.read_text(), f"environments/{path.name}")
    for env in ("development", "staging", "production"):
        desk.env = env
        assert desk.says() == []
        assert desk.load().specs() == ()
    desk.env = "development"
    assert desk.load().log.level == "debug"
    desk.env = "production"
    assert desk.load().log.level == "info"


def test_the_demo_is_a_valid_configuration(desk: Desk) -> None:
    desk = dataclasses.replace(
        desk, paths=dataclasses.replace(desk.paths, config=str(ETC / "demo" / "atlasd.toml"))
    )
    assert [problem for problem in desk.check() if not problem.warning] == []
    assert desk.load().specs() != ()
