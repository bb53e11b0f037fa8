import typing
from collections import Counter

import pytest
from pydantic import BaseModel, RootModel

from atlasd.control import models, wire
from atlasd.control.wire import OPERATIONS, Operation

by_name = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)


def test_names_and_paths_are_taken_once() -> None:
    names = Counter(o.name for o in OPERATIONS)
    places = Counter((o.method, o.path) for o in OPERATIONS)
    assert [name for name, count in names.items() if count > 1] == []
    assert [place for place, count in places.items() if count > 1] == []


@by_name
def test_a_row_names_models_that_exist(operation: Operation) -> None:
    request = getattr(models, operation.request)
    assert issubclass(request, BaseModel)
    if operation.answer != "str":
        assert issubclass(getattr(models, operation.answer), BaseModel)
    assert set(operation.fields_in_path) <= request.model_fields.keys()


@by_name
def test_a_row_keeps_to_the_rules_of_paths(operation: Operation) -> None:
    assert operation.path.startswith("/v1/")
    assert operation.method in {"GET", "POST"}
    assert operation.summary.endswith(".")
    # Whatever changes something is a POST, and needs more than the right to read.
    assert (operation.method == "POST") == (operation.right is not wire.Right.READ)
    assert operation.stream == (operation.media == wire.NDJSON)
    assert operation.stream or not operation.lossy


def test_no_path_of_atlasd_lies_where_plugins_put_theirs() -> None:
    assert [o.path for o in OPERATIONS if o.path.startswith(wire.PLUGIN_PREFIX + "/")] == []


def every_model() -> list[type[BaseModel]]:
    found = [
        model
        for model in vars(models).values()
        if isinstance(model, type)
        and issubclass(model, BaseModel)
        and model.__module__.startswith(models.__name__)
        and not issubclass(model, RootModel)  # any object: the schema of OpenAPI is not ours
    ]
    assert len(found) > 20
    return found


@pytest.mark.parametrize("model", every_model(), ids=lambda m: m.__name__)
def test_every_field_is_described_and_nothing_unknown_passes(model: type[BaseModel]) -> None:
    undescribed = [
        name
        for name, field in model.model_fields.items()
        if not field.description and "description" not in str(field.annotation)
    ]
    assert undescribed == []
    assert model.model_config.get("extra") == "forbid"
    assert model.model_config.get("strict") is True
    assert model.__doc__


def test_status_has_exactly_the_promised_shape() -> None:
    assert list(models.Status.model_fields) == ["services"]
    assert list(models.ServiceState.model_fields) == ["name", "wanted", "health", "instances"]
    assert list(models.Instance.model_fields) == [
        "index", "state", "pid", "health", "traffic", "since", "restarts", "reason",
        "memory_bytes", "cpu_seconds",
    ]  # fmt: skip


def test_a_log_line_has_exactly_the_promised_shape() -> None:
    assert list(models.LogRecord.model_fields) == [
        "time", "service", "instance", "stream", "message",
    ]  # fmt: skip


@by_name
def test_a_query_is_flat(operation: Operation) -> None:
    if operation.method != "GET":
        return
    request = getattr(models, operation.request)
    nested = [
        name
        for name, field in request.model_fields.items()
        for part in (field.annotation, *typing.get_args(field.annotation))
        if isinstance(part, type) and issubclass(part, BaseModel)
    ]
    assert nested == []
