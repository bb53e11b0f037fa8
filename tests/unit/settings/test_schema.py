"""JSON Schema: all that does not fit at once, each with its place and without secrets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.config import KeyPath, Layer, Position
from atlasd.errors import AtlasError
from atlasd.settings.schema import Schema
from atlasd.settings.tree import dotted, nodes, undotted
from atlasd.settings.words import Speaker

SHOP: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["name", "db"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "mode": {"enum": ["fast", "safe"]},
        "ratio": {"type": ["number", "null"], "exclusiveMaximum": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "db": {"$ref": "#/$defs/db"},
        "cache": {"oneOf": [{"type": "boolean"}, {"$ref": "#/$defs/cache"}]},
        "mail": {"type": "string", "format": "email"},
        "password": {"type": "string", "minLength": 12},
    },
    "$defs": {
        "db": {
            "type": "object",
            "properties": {"host": {"type": "string"}, "port": {"type": "integer"}},
            "required": ["host"],
            "additionalProperties": False,
        },
        "cache": {
            "type": "object",
            "properties": {"ttl": {"type": "integer"}},
            "unevaluatedProperties": False,
        },
    },
}


def speaker(data: dict[str, Any], **secrets: Mapping[str, str]) -> Speaker:
    """Each value in a line of its own, for the places to be told apart."""
    places: dict[KeyPath, Position] = {
        path: Position(origin="shop.toml", line=number, column=3)
        for number, (path, _) in enumerate(nodes(data), start=1)
    }
    layer = Layer(origin="shop.toml", data=data, values=places, keys=places)
    return Speaker(layer=layer, secrets={undotted(key): v for key, v in secrets.items()})


def complaints(data: dict[str, Any], schema: Any = SHOP, **secrets: Mapping[str, str]) -> list[str]:
    found = Schema(schema, "file:///etc/shop/schema.json").complaints(
        data, speaker(data, **secrets)
    )
    return [
        f"{c.where}: {c.key}: " + (f"expected {c.expected}, got " if c.expected else "") + c.got
        + (f"; {c.hint}" if c.hint else "")
        for c in found
    ]  # fmt: skip


def test_what_fits_is_not_complained_of() -> None:
    assert complaints({"name": "shop", "port": 80, "db": {"host": "db"}, "ratio": None}) == []


def test_everything_that_is_wrong_is_told_at_once() -> None:
    data = {
        "name": "Shop", "prot": 80, "mode": "sfae", "ratio": 1, "tags": ["a", "a", 3], "db": 5
    }  # fmt: skip
    assert sorted(complaints(data)) == [
        'shop.toml:1:3: name: expected text that fits ^[a-z]+$, got "Shop"',
        "shop.toml:2:3: prot: unknown key; did you mean 'port'?",
        'shop.toml:3:3: mode: expected "fast" or "safe", got "sfae"',
        "shop.toml:4:3: ratio: expected less than 1, got 1",
        "shop.toml:5:3: tags: expected each item once, got a list",
        "shop.toml:8:3: tags[2]: expected a string, got 3",
        "shop.toml:9:3: db: expected a table, got 5",
    ]


def test_a_missing_key_is_told_where_its_table_stands() -> None:
    assert sorted(complaints({"name": "shop", "db": {"prot": 1}})) == [
        "shop.toml:2:3: db.host: expected a string, got nothing",
        "shop.toml:3:3: db.prot: unknown key; did you mean 'port'?",
    ]


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("on", 'shop.toml:4:3: cache: expected true or false or a table, got "on"'),
        ({"ttl": "1h"}, 'shop.toml:5:3: cache.ttl: expected a whole number, got "1h"'),
        ({"tll": 1}, "shop.toml:5:3: cache.tll: unknown key; did you mean 'ttl'?"),
    ],
)
def test_of_several_forms_the_one_that_was_meant_is_held_against(cache: object, said: str) -> None:
    assert complaints({"name": "shop", "db": {"host": "a"}, "cache": cache}) == [said]


def test_a_secret_is_never_told() -> None:
    data = {"name": "hunter2!", "db": {"host": 5}, "password": "short!"}
    said = "\n".join(complaints(data, name={"shop/name": "hunter2!"}))
    assert "hunter2" not in said
    assert "short!" not in said
    assert "name: expected text that fits ^[a-z]+$, got a string that is not shown" in said
    assert "password: expected at least 12 characters, got a string that is not shown" in said


def test_a_format_is_looked_at() -> None:
    (said,) = complaints({"name": "shop", "db": {"host": "a"}, "mail": "nobody"})
    assert said.endswith('mail: expected text of the format email, got "nobody"')


def test_what_may_stand_where() -> None:
    schema = Schema(SHOP, "file:///s.json")
    assert schema.kinds(("db", "port")) == {"integer"}
    assert schema.kinds(("ratio",)) == {"number", "null"}
    assert schema.kinds(("cache",)) == {"boolean", "object"}
    assert schema.kinds(("cache", "ttl")) == {"integer"}
    assert schema.kinds(("tags", 3)) == {"string"}
    assert schema.kinds(("nothing", "known")) == frozenset()
    assert {dotted(p) for p in schema.paths()} >= {"db", "db.host", "db.port", "cache.ttl", "mail"}
    assert schema.describe(("mode",)) == '"fast" or "safe"'


def test_a_schema_may_contain_itself() -> None:
    tree = {
        "properties": {"name": {"type": "string"}, "child": {"$ref": "#"}},
        "additionalProperties": False,
    }
    schema = Schema(tree, "file:///s.json")
    assert schema.kinds(("child", "child", "name")) == {"string"}
    data: dict[str, Any] = {"child": {"child": {"name": 1}}}
    (said,) = schema.complaints(data, speaker(data))
    assert said.key == "child.child.name"


def test_a_schema_refers_to_files_beside_it_and_to_nothing_on_the_network(tmp_path: Path) -> None:
    (tmp_path / "db.json").write_text('{"type": "object", "required": ["host"]}')
    (tmp_path / "s.json").write_text('{"properties": {"db": {"$ref": "db.json"}}}')
    schema = Schema.load(tmp_path / "s.json")
    data: dict[str, Any] = {"db": {}}
    (said,) = schema.complaints(data, speaker(data))
    assert said.key == "db.host"
    assert schema.files == [str(tmp_path / "db.json")]
    (tmp_path / "s.json").write_text('{"$ref": "https://example.org/s.json"}')
    with pytest.raises(AtlasError, match=r"refers to https://example.org/s.json, which is not"):
        Schema.load(tmp_path / "s.json").complaints(data, speaker(data))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"type": "strnig"}', "not a JSON Schema that can be used at /type"),
        ('{"$schema": "https://example.org/own"}', r"unknown \$schema"),
        ('{"type": ', r"s.json:1:10: not JSON"),
        ("[]", "a schema is a JSON object"),
    ],
)
def test_what_is_no_schema_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.json").write_text(text)
    for _ in range(2):  # what was found wrong once is not remembered as right
        with pytest.raises(AtlasError, match=said) as caught:
            Schema.load(tmp_path / "s.json")
        assert caught.value.code == "settings.invalid"


def test_an_older_draft_is_read_as_what_it_says() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"pair": {"items": [{"type": "integer"}, {"type": "string"}]}},
    }
    assert complaints({"pair": [1, "a"]}, schema) == []
    (said,) = complaints({"pair": ["a", "a"]}, schema)
    assert "pair[0]: expected a whole number" in said


def test_dates_are_text_to_a_schema(tmp_path: Path) -> None:
    import tomllib

    (tmp_path / "s.json").write_text(
        json.dumps({"properties": {"day": {"type": "string", "format": "date"}}})
    )
    data = tomllib.loads("day = 2026-11-25")
    assert Schema.load(tmp_path / "s.json").complaints(data, speaker(data)) == []
