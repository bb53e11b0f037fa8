import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from pydantic import BaseModel

from atlasd.control import models
from atlasd.control.requests import body_of, refuse_strangers, request_from
from atlasd.control.wire import BY_NAME, OPERATIONS
from atlasd.errors import AtlasError

SCALE = BY_NAME["service.scale"]


def asked(name: str, path: dict[str, str], **source: Any) -> Any:
    operation = BY_NAME[name]
    return request_from(operation, getattr(models, operation.request), path, **source)


@pytest.mark.parametrize("host", ["atlasd", "localhost", "LOCALHOST", ""])
def test_our_own_hosts_are_let_in(host: str) -> None:
    refuse_strangers({"Host": host})
    refuse_strangers({})


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "atlasd", "Origin": "https://example.org"},
        {"Host": "atlasd", "Origin": "null"},
        {"Host": "example.org"},
        {"Host": "localhost:8000"},
        {"Host": "localhost.example.org"},
    ],
)
def test_web_pages_and_strange_hosts_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(AtlasError) as caught:
        refuse_strangers(headers)
    assert caught.value.code == "request.origin"
    assert caught.value.kind.status == 403


def test_a_query_is_text_and_becomes_what_it_means() -> None:
    query = MultiDict([("follow", "true"), ("lines", "5"), ("service", "a"), ("service", "b")])
    found = asked("logs", {}, query=query)
    assert (found.follow, found.lines, found.service) == (True, 5, ("a", "b"))
    one = asked("logs", {}, query=MultiDict([("service", "a")]))
    assert one.service == ("a",)


def test_a_body_is_json_and_stays_strict() -> None:
    assert asked("service.scale", {"service": "web"}, body={"instances": 4}).instances == 4
    for wrong in ("4", 4.0, True, None, [4]):
        with pytest.raises(AtlasError, match="instances"):
            asked("service.scale", {"service": "web"}, body={"instances": wrong})


@pytest.mark.parametrize(
    ("name", "source", "message", "hint"),
    [
        ("events", {"query": MultiDict(sinse="3")}, "sinse: is not known", "'since'"),
        ("events", {"query": MultiDict(since="x")}, "since: ", ""),
        ("events", {"query": MultiDict([("since", "1"), ("since", "2")])}, "since: ", ""),
        ("status", {"query": MultiDict(x="1")}, "x: is not known", "no fields"),
        ("shutdown", {"body": {"keep": True}}, "keep: is not known", "keep_services"),
        ("shutdown", {"body": {"keep_services": 1}}, "keep_services: ", ""),
    ],
)
def test_what_is_wrong_is_named(name: str, source: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(AtlasError) as caught:
        asked(name, {}, **source)
    assert caught.value.code == "request.invalid"
    assert message in caught.value.message
    assert hint in caught.value.hint
    errors = caught.value.details["errors"]
    assert isinstance(errors, list)
    assert errors[0]["field"] == message.split(":", maxsplit=1)[0]


def test_the_path_cannot_be_overruled() -> None:
    with pytest.raises(AtlasError, match="stands in the path"):
        asked("service.scale", {"service": "web"}, body={"service": "db", "instances": 1})
    with pytest.raises(AtlasError, match="stands in the path"):
        asked("service", {"service": "web"}, query=MultiDict(service="db"))


@pytest.mark.parametrize(
    ("content_type", "raw", "message"),
    [
        ("text/plain", b"{}", "not text/plain"),
        ("application/x-www-form-urlencoded", b"instances=4", "must be application/json"),
        ("application/json", b"{", "is not JSON"),
        ("application/json", b'{"instances": NaN}', "NaN"),
        ("application/json", b"[1]", "must be a JSON object"),
        ("application/json", b"\xff\xfe", "is not JSON"),
        ("application/json", b"[" * 100_000, "is not JSON"),
    ],
)
def test_bodies_that_are_refused(content_type: str, raw: bytes, message: str) -> None:
    with pytest.raises(AtlasError) as caught:
        body_of(SCALE, content_type, raw)
    assert caught.value.code == "request.invalid"
    assert message in caught.value.message


def test_no_body_asks_for_the_defaults_whatever_its_type() -> None:
    assert body_of(SCALE, "application/octet-stream", b" ") == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = sorted({f for o in OPERATIONS for f in getattr(models, o.request).model_fields})


@given(
    operation=st.sampled_from(OPERATIONS),
    service=st.text(max_size=300),
    given_=st.dictionaries(st.sampled_from(fields) | st.text(), json_values, max_size=4),
)
def test_any_body_is_a_request_or_a_refusal(
    operation: Any, service: str, given_: dict[str, object]
) -> None:
    model: type[BaseModel] = getattr(models, operation.request)
    found: BaseModel | AtlasError
    path = dict.fromkeys(operation.fields_in_path, service)
    try:
        raw = json.dumps(given_).encode()
        found = request_from(
            operation, model, path, body=body_of(operation, "application/json", raw)
        )
    except AtlasError as error:
        found = error
    if isinstance(found, AtlasError):
        assert found.code == "request.invalid"
        assert json.loads(json.dumps(found.to_wire()))["error"]["message"]
    else:
        assert isinstance(found, model)


@given(
    operation=st.sampled_from([o for o in OPERATIONS if o.method == "GET"]),
    service=st.text(max_size=300),
    pairs=st.lists(st.tuples(st.sampled_from(fields) | st.text(), st.text()), max_size=4),
)
def test_any_query_is_a_request_or_a_refusal(
    operation: Any, service: str, pairs: list[tuple[str, str]]
) -> None:
    model: type[BaseModel] = getattr(models, operation.request)
    found: BaseModel | AtlasError
    path = dict.fromkeys(operation.fields_in_path, service)
    try:
        found = request_from(operation, model, path, query=MultiDict(pairs))
    except AtlasError as error:
        found = error
    if isinstance(found, AtlasError):
        assert found.code == "request.invalid"
        assert json.loads(json.dumps(found.to_wire()))["error"]["message"]
    else:
        assert isinstance(found, model)


def test_a_number_in_the_path_is_one_beside_a_strict_body() -> None:
    operation = BY_NAME["job.retry"]
    found = request_from(operation, models.JobRetryRequest, {"id": "17"}, body={"args": {"a": 1}})
    assert isinstance(found, models.JobRetryRequest)
    assert (found.id, found.args) == (17, {"a": 1})
    for wrong in ("x", "-1", "1" * 30, "٣"):
        with pytest.raises(AtlasError, match="id: "):
            request_from(operation, models.JobRetryRequest, {"id": wrong}, body={})
