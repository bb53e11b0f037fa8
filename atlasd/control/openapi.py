"""The OpenAPI 3.1 document, made from the table of operations and the models."""

from collections.abc import Iterable
from typing import Any, Protocol

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from atlasd import __version__
from atlasd.control.models import Error
from atlasd.control.wire import JSON, Operation
from atlasd.errors import CODES

_REF = "#/components/schemas/{model}"


class Served(Protocol):
    """An operation and its models."""

    @property
    def operation(self) -> Operation:
        """Its row."""

    @property
    def request(self) -> type[BaseModel]:
        """Model of the request."""

    @property
    def answer(self) -> type[BaseModel] | None:
        """Model of the answer, or of one line; None: plain text."""


def document(served: Iterable[Served]) -> dict[str, object]:
    """The document for these operations."""
    rows = tuple(served)
    requests = {row.request for row in rows}
    answers = {row.answer for row in rows if row.answer is not None} | {Error}
    names, schemas = models_json_schema(
        [
            *((model, "validation") for model in sorted(requests, key=_name)),
            *((model, "serialization") for model in sorted(answers, key=_name)),
        ],
        ref_template=_REF,
    )
    components: dict[str, Any] = dict(schemas.get("$defs", {}))
    paths: dict[str, dict[str, object]] = {}
    for row in rows:
        request = components[_key(names[row.request, "validation"])]
        answer = names[row.answer, "serialization"] if row.answer is not None else None
        path = paths.setdefault(row.operation.path, {})
        path[row.operation.method.lower()] = _operation(row, request, answer)
    error = names[Error, "serialization"]
    used = _referenced({"paths": paths, "error": error}, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "atlasd control",
            "version": __version__,
            "description": "What core can be asked over its control socket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost", "description": "over the unix socket"}],
        "paths": paths,
        "components": {
            "schemas": {name: components[name] for name in sorted(used)},
            "responses": {
                "Error": {
                    "description": "The request was refused or the operation failed.",
                    "content": {JSON: {"schema": error}},
                }
            },
        },
    }


def _operation(
    row: Served, request: dict[str, Any], answer: dict[str, Any] | None
) -> dict[str, object]:
    operation = row.operation
    properties: dict[str, Any] = request.get("properties", {})
    required = set(request.get("required", ()))
    in_path = set(operation.fields_in_path)
    parameters = [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in in_path or name in required,
            "description": schema.get("description", ""),
            "schema": _parameter(schema),
        }
        for name, schema in properties.items()
        if name in in_path or operation.method == "GET"
    ]
    described: dict[str, object] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.owner or operation.name.split(".")[0]],
        "x-atlasd-right": operation.right.value,
        "parameters": parameters,
        "responses": _responses(operation, answer),
    }
    rest = {name: schema for name, schema in properties.items() if name not in in_path}
    if operation.method != "GET" and rest:
        needed = sorted(required & rest.keys())
        body: dict[str, object] = {
            "type": "object",
            "properties": rest,
            "additionalProperties": False,
        }
        if needed:
            body["required"] = needed
        described["requestBody"] = {"required": bool(needed), "content": {JSON: {"schema": body}}}
    if operation.stream:
        described["description"] = "A stream: one JSON object a line, without an end if followed."
    return described


def _responses(operation: Operation, answer: dict[str, Any] | None) -> dict[str, object]:
    media = operation.media.split(";")[0]
    if answer is None or operation.stream:
        # A stream's lines have the schema; the body as a whole is no JSON document.
        content: dict[str, object] = {"schema": {"type": "string"}}
        if answer is not None:
            content["x-atlasd-line"] = answer
    else:
        content = {"schema": answer}
    refused: dict[str, object] = {"$ref": "#/components/responses/Error"}
    return {
        "200": {"description": "Done.", "content": {media: content}},
        **{str(status): refused for status in sorted({c.status for c in CODES.values()})},
    }


def _parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema as it applies to a query: there is no null, a field is left out instead."""
    shown = {k: v for k, v in schema.items() if k not in ("description", "title", "default")}
    kinds = shown.pop("anyOf", None)
    if kinds is not None:
        kept = [kind for kind in kinds if kind != {"type": "null"}]
        shown = {**kept[0], **shown} if len(kept) == 1 else {"anyOf": kept, **shown}
    if not shown.get("format", "x"):
        shown.pop("format")
    return shown


def _referenced(root: object, components: dict[str, Any]) -> set[str]:
    """Names of the components that are reached from `root`."""
    found: set[str] = set()
    open_ends: list[object] = [root]
    while open_ends:
        node = open_ends.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
                name = reference.rsplit("/", 1)[1]
                if name not in found:
                    found.add(name)
                    open_ends.append(components[name])
            open_ends.extend(node.values())
        elif isinstance(node, list):
            open_ends.extend(node)
    return found


def _key(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rsplit("/", 1)[1]


def _name(model: type[BaseModel]) -> str:
    return model.__qualname__
