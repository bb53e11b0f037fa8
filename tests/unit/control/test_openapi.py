from typing import Any

import pytest
from pydantic import BaseModel

from atlasd.contracts.operations import Operation as PluginOperation
from atlasd.control import openapi
from atlasd.control.server import ControlServer
from atlasd.control.wire import OPERATIONS
from atlasd.errors import AtlasError
from tests.control_double import FakeCore


class Wish(BaseModel):
    """A plugin's request."""

    whom: str


class Granted(BaseModel):
    """A plugin's answer."""

    wish: Wish


async def grant(operation: PluginOperation, request: Any) -> BaseModel:
    return Granted(wish=request)


def plugin_operation(**more: Any) -> PluginOperation:
    async def unused(request: Any, context: Any) -> BaseModel:
        raise AssertionError

    fields: dict[str, Any] = {
        "name": "shop.grant",
        "summary": "Grants a wish.",
        "path": "grant",
        "request": Wish,
        "answer": Granted,
        "handle": unused,
        "method": "POST",
    }
    return PluginOperation(**(fields | more))


@pytest.fixture
def server() -> ControlServer:
    made = ControlServer("/nowhere/control.sock", FakeCore(web=1).handlers())
    made.register_operations("shop", [plugin_operation()], grant)
    return made


@pytest.fixture
def document(server: ControlServer) -> dict[str, Any]:
    return openapi.document(server._bound.values())


def test_every_operation_stands_in_it(document: dict[str, Any]) -> None:
    found = {
        operation["operationId"]: (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    expected = {o.name: (o.method, o.path) for o in OPERATIONS}
    assert found == expected | {"shop.grant": ("POST", "/v1/plugins/shop/grant")}
    assert document["openapi"] == "3.1.0"


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return here + [r for below in node.values() for r in references(below)]
    if isinstance(node, list):
        return [r for below in node for r in references(below)]
    return []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 10
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        assert node


def test_fields_are_where_the_server_looks_for_them(document: dict[str, Any]) -> None:
    scale = document["paths"]["/v1/services/{service}/scale"]["post"]
    assert [(p["name"], p["in"], p["required"]) for p in scale["parameters"]] == [
        ("service", "path", True)
    ]
    body = scale["requestBody"]["content"]["application/json"]["schema"]
    assert (list(body["properties"]), body["required"]) == (["instances"], ["instances"])
    assert body["additionalProperties"] is False
    events = document["paths"]["/v1/events"]["get"]
    shapes = {p["name"]: p["schema"].get("type") for p in events["parameters"]}
    assert shapes == {
        "follow": "boolean",
        "since": "integer",
        "limit": "integer",
        "service": "string",
        "kind": "string",
    }
    logs = document["paths"]["/v1/logs"]["get"]
    services = next(p for p in logs["parameters"] if p["name"] == "service")
    assert services["schema"]["type"] == "array"


def test_no_request_model_is_left_over_as_a_component(document: dict[str, Any]) -> None:
    named = set(document["components"]["schemas"])
    assert named >= {"Status", "Plan", "Granted", "Wish"}
    assert not named & {o.request for o in OPERATIONS if o.request != "CheckReport"}


def test_a_stream_says_what_its_lines_are(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]
    line = content["application/x-ndjson"]["x-atlasd-line"]["$ref"]
    assert line.endswith("/Event")


@pytest.mark.parametrize(
    "wrong", [{"name": "status", "path": "other"}, {"name": "shop.other"}], ids=["name", "path"]
)
def test_a_plugin_cannot_take_what_is_taken(server: ControlServer, wrong: dict[str, str]) -> None:
    with pytest.raises(AtlasError) as caught:
        server.register_operations("shop", [plugin_operation(**wrong)], grant)
    assert caught.value.code == "plugin.refused"


def test_a_missing_handler_is_named_before_anything_is_served() -> None:
    handlers = FakeCore().handlers()
    del handlers["service.scale"]
    with pytest.raises(AtlasError, match=r"service\.scale has no handler"):
        ControlServer("/nowhere/control.sock", handlers)


def test_a_handler_without_a_row_is_named() -> None:
    handlers = FakeCore().handlers()
    handlers["service.dance"] = handlers["status"]
    with pytest.raises(AtlasError, match=r"service\.dance"):
        ControlServer("/nowhere/control.sock", handlers)
