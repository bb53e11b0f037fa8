import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.control.client import LineStream, _Answer, _request, error_from
from atlasd.control.wire import BY_NAME
from atlasd.errors import AtlasError


class Wire:
    """A connection on which the answer arrives in the given pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.silent = False

    def recv(self, size: int) -> bytes:
        if self.silent:
            self.silent = False
            raise TimeoutError
        return self.pieces.pop(0) if self.pieces else b""

    def settimeout(self, seconds: float | None) -> None:
        pass

    def close(self) -> None:
        pass


def answer(*pieces: bytes) -> tuple[_Answer, Wire]:
    wire = Wire(pieces)
    return _Answer(wire, "control.sock", 5.0), wire  # type: ignore[arg-type]


HEAD = b"HTTP/1.1 200 OK\r\nAtlasd-Version: 9\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunks(*bodies: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(raw)) for place in places})
    return [raw[a:b] for a, b in zip([0, *edges], [*edges, len(raw)], strict=True)]


@given(
    bodies=st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    places=st.lists(st.integers(0, 500), max_size=10),
)
def test_a_chunked_body_is_put_together_however_it_arrives(
    bodies: list[bytes], places: list[int]
) -> None:
    raw = CHUNKED + chunks(*bodies) + b"0\r\n\r\n"
    read, _ = answer(*cut(raw, places))
    read.read_head()
    assert read.rest() == b"".join(bodies)
    assert (read.status, read.headers["atlasd-version"]) == (200, "9")


@given(body=st.binary(max_size=100), places=st.lists(st.integers(0, 300), max_size=10))
def test_a_body_of_known_length_is_read_to_its_end_and_no_further(
    body: bytes, places: list[int]
) -> None:
    raw = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    read, _ = answer(*cut(raw, places))
    read.read_head()
    assert read.rest() == body


@given(
    lines=st.lists(st.dictionaries(st.text(), st.integers() | st.text()), max_size=5),
    places=st.lists(st.integers(0, 500), max_size=10),
    frames=st.lists(st.integers(0, 500), max_size=5),
)
def test_lines_are_lines_whatever_the_frames(
    lines: list[dict[str, object]], places: list[int], frames: list[int]
) -> None:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    raw = CHUNKED + chunks(*(piece for piece in cut(body, frames) if piece)) + b"0\r\n\r\n"
    read, _ = answer(*cut(raw, places))
    read.read_head()
    assert list(LineStream(read)) == lines


def test_a_stream_can_be_read_on_after_a_time_limit() -> None:
    read, wire = answer(CHUNKED, chunks(b'{"a": 1}\n{"b"'), chunks(b": 2}\n"), b"0\r\n\r\n")
    read.read_head()
    stream = LineStream(read)
    assert stream.read(1.0) == {"a": 1}
    wire.silent = True
    with pytest.raises(TimeoutError):
        stream.read(1.0)
    assert stream.read(1.0) == {"b": 2}
    assert stream.read(1.0) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        CHUNKED,
        CHUNKED + b"5\r\nab",
        CHUNKED + chunks(b"ab"),
        CHUNKED + b"zz\r\n",
        HEAD + b"Content-Length: 10\r\n\r\nabc",
    ],
)
def test_an_answer_that_breaks_off_is_no_answer(raw: bytes) -> None:
    read, _ = answer(raw)

    def whole() -> bytes:
        read.read_head()
        return read.rest()

    with pytest.raises(AtlasError) as caught:
        whole()
    assert caught.value.code == "core.unreachable"
    assert "control.sock" in caught.value.message


def test_a_stream_that_ends_with_an_error_raises_it() -> None:
    error = AtlasError("core.stopping", "core is shutting down", hint="later")
    line = json.dumps(error.to_wire()).encode() + b"\n"
    read, _ = answer(CHUNKED + chunks(b'{"seq":1}\n', line) + b"0\r\n\r\n")
    read.read_head()
    stream = LineStream(read)
    assert stream.read() == {"seq": 1}
    with pytest.raises(AtlasError, match="shutting down") as caught:
        stream.read()
    assert (caught.value.code, caught.value.hint) == ("core.stopping", "later")


def test_an_error_answer_keeps_all_its_parts() -> None:
    error = AtlasError("service.unknown", "no weeb", hint="web?", details={"a": 1})
    found = error_from(404, json.dumps(error.to_wire()).encode())
    assert found.to_wire() == error.to_wire()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"error": {"code": "of.tomorrow"}}', b'{"error": 3}', b"[]"]
)
def test_an_answer_of_somebody_else_is_shown(body: bytes) -> None:
    found = error_from(502, body)
    assert found.code == "internal"
    assert "502" in found.message


@pytest.mark.parametrize(
    ("name", "fields", "line", "body"),
    [
        ("status", {}, "GET /v1/status HTTP/1.1", ""),
        (
            "logs",
            {"service": ("a", "b"), "follow": True, "grep": "a b&c", "lines": 0},
            "GET /v1/logs?service=a&service=b&follow=true&grep=a%20b%26c&lines=0 HTTP/1.1",
            "",
        ),
        ("service", {"service": "a/ü"}, "GET /v1/services/a%2F%C3%BC HTTP/1.1", ""),
        (
            "service.scale",
            {"service": "web", "instances": 0},
            "POST /v1/services/web/scale HTTP/1.1",
            '{"instances": 0}',
        ),
        (
            "service.stop",
            {"service": "web", "instance": None},
            "POST /v1/services/web/stop HTTP/1.1",
            "",
        ),
    ],
)
def test_a_call_becomes_a_request(
    name: str, fields: dict[str, object], line: str, body: str
) -> None:
    head, _, rest = _request(BY_NAME[name], fields).decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == line
    assert "Host: atlasd" in lines
    assert "Connection: close" in lines
    assert rest == body
    if name != "status" and line.startswith("POST"):
        assert f"Content-Length: {len(body)}" in lines
