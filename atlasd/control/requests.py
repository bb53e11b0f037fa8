"""From an HTTP request to an operation's request model, or to a sentence about what is wrong."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn, get_origin

from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from atlasd.control.wire import HOST, JSON, Operation
from atlasd.errors import AtlasError, nearest

_HOSTS = frozenset({"", HOST, "localhost"})


def refuse_strangers(headers: Mapping[str, str]) -> None:
    """Raise `request.origin` for what only a web page, or a proxy gone astray, would send.

    No browser speaks to a unix socket by itself; but one that is led here through a forwarder
    says where it comes from.
    """
    if "Origin" in headers:
        raise AtlasError(
            "request.origin",
            "requests of web pages are refused: the header Origin is set",
            hint="ask without the header Origin",
        )
    host = headers.get("Host", "")
    if host.lower() not in _HOSTS:
        raise AtlasError(
            "request.origin",
            f"the host {host[:100]!r} is not served here",
            hint="ask for the host localhost: curl --unix-socket SOCKET http://localhost/v1/status",
        )


def body_of(operation: Operation, content_type: str, raw: bytes) -> Mapping[str, object]:
    """The JSON object in a request's body; an empty body is an empty object.

    Raises `request.invalid` for another media type, and for what is not a JSON object.
    """
    if not raw.strip():
        return {}
    if content_type != JSON:
        raise AtlasError(
            "request.invalid",
            f"{operation.name}: the body must be {JSON}, not {content_type[:100]}",
            hint=f"set the header `Content-Type: {JSON}`; curl does so with --json",
        )
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as fault:
        raise AtlasError(
            "request.invalid", f"{operation.name}: the body is not JSON: {fault}"
        ) from None
    if not isinstance(body, dict):
        raise AtlasError(
            "request.invalid", f"{operation.name}: the body must be a JSON object", hint="{…}"
        )
    return body


def request_from(
    operation: Operation,
    model: type[BaseModel],
    path: Mapping[str, str],
    *,
    query: MultiMapping[str] | None = None,
    body: Mapping[str, object] | None = None,
) -> BaseModel:
    """The operation's request from its path and its query (all strings) or body (strict JSON).

    Raises `request.invalid`, which names each field that is wrong.
    """
    given: dict[str, Any] = {}
    if query is not None:
        for name in query:
            values = query.getall(name)
            several = _takes_several(model, name)
            given[name] = values if several or len(values) > 1 else values[0]
    given.update(body or {})
    for name in path:
        if name in given:
            raise AtlasError(
                "request.invalid",
                f"{operation.name}: {name} stands in the path already",
                hint=f"leave {name} out of the {'query' if body is None else 'body'}",
            )
    given.update({name: _from_path(model, name, text) for name, text in path.items()})
    try:
        if body is None:
            # A query has nothing but strings: `3` is the number there.
            return model.model_validate(given, strict=False)
        # By way of JSON, since strict JSON may have a list where the model has a tuple.
        return model.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as fault:
        _refuse(operation, model, fault)


def _from_path(model: type[BaseModel], name: str, text: str) -> object:
    """A path has nothing but strings either, also where the body beside it is strict."""
    field = model.model_fields.get(name)
    number = field is not None and field.annotation is int
    return int(text) if number and text.isascii() and text.isdecimal() and len(text) < 20 else text


def _takes_several(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and get_origin(field.annotation) is tuple


def _refuse(operation: Operation, model: type[BaseModel], fault: ValidationError) -> NoReturn:
    known = tuple(model.model_fields)
    errors = []
    hint = ""
    for error in fault.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            message = "is not known"
            if not hint:
                hint = nearest(str(error["loc"][-1]), known) if len(error["loc"]) == 1 else ""
                hint = hint or f"{operation.name} has no fields"
        else:
            message = error["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
        errors.append({"field": field, "message": message})
    first = "; ".join(f"{e['field'] or 'body'}: {e['message']}" for e in errors[:3])
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    raise AtlasError(
        "request.invalid",
        f"{operation.name}: {first}{more}",
        hint=hint,
        details={"errors": errors[:100]},
    ) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
