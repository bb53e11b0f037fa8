"""The pieces that the reference is made with."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from atlasd.config.fields import Section
from atlasd.config.schema import Settings
from atlasd.config.service import Service
from atlasd.states import Lifecycle
from docs import schema, settings
from docs.markdown import attributes, cell, table


class Inner(BaseModel):
    """Something inside."""

    word: Literal["a", "b"] = "a"


class Outer(BaseModel):
    """Something outside."""

    many: list[Inner] = []
    name: str = Field(description="What it is called.")
    ratio: float | None = None
    table: dict[str, int] = {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", "a\\|b"), ("two\nlines  here", "two lines here"), (7, "7")],
)
def test_a_cell_is_one_line_without_bars(text: object, shown: str) -> None:
    assert cell(text) == shown


def test_an_empty_table_says_so() -> None:
    assert table(("a",), []) == "None.\n"


def test_a_table_has_a_row_for_each_row() -> None:
    assert table(("a", "b"), [(1, 2), (3, 4)]).splitlines() == [
        "| a | b |",
        "|---|---|",
        "| 1 | 2 |",
        "| 3 | 4 |",
    ]


def test_what_stands_below_an_attribute_is_its_meaning() -> None:
    meanings = attributes(Lifecycle)
    assert meanings["EXITED"] == "Finished as expected."
    assert meanings["RUNNING"] == ""


def test_a_class_of_others_has_no_say() -> None:
    @dataclass
    class Foreign:
        field: int
        """Not ours."""

    assert attributes(Foreign) == {}
    assert attributes(StrEnum) == {}


def test_fields_of_a_schema() -> None:
    body = Outer.model_json_schema(mode="serialization")
    rows = schema.fields(body, body["$defs"]).splitlines()[2:]
    assert rows == [
        "| `many` | list of Inner | `[]` | Something inside. |",
        "| `name` | text | required | What it is called. |",
        "| `ratio` | number |  |  |",
        "| `table` | table of integer | `{ }` |  |",
    ]


def test_an_alternative_is_spelt_out() -> None:
    body = Inner.model_json_schema()
    assert schema.kind(body["properties"]["word"], {}) == 'one of "a", "b"'


@pytest.mark.parametrize(
    ("key", "value", "default"),
    [
        ("command", "a command: a list of words", ""),
        ("start_timeout", "a duration", '`"1m"`'),
        ("instances", "a whole number", "`1`"),
        ("sockets", "tables by name", ""),
        ("type", 'one of "simple", "oneshot"', '`"simple"`'),
        ("no_new_privs", "true or false", "`false`"),
    ],
)
def test_a_setting_is_shown_as_it_is_written(key: str, value: str, default: str) -> None:
    field = Service.model_fields[key]
    assert settings.value(field).startswith(value)
    assert settings.default(field) == default


def test_every_table_of_the_configuration_is_on_the_page() -> None:
    names = [name for name, _ in settings.sections("", Settings)]
    assert {"host", "services.NAME", "services.NAME.ready", "checks.NAME"} <= set(names)


def test_the_name_of_an_annotated_model_is_found() -> None:
    class Holder(Section):
        below: Annotated[Section, "note"] | None = None

    assert [name for name, _ in settings.sections("", Holder)] == ["", "below"]
