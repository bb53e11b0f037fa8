import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from atlasd.clock import HandClock
from atlasd.control.models import Event
from atlasd.control.server import explain
from atlasd.control.streams import Stream
from atlasd.errors import AtlasError
from tests.control_double import START


class Reader:
    """Takes what is written, when it is let."""

    def __init__(self) -> None:
        self.got = b""
        self.free = asyncio.Event()
        self.free.set()
        self.writing = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.writing.set()
        await self.free.wait()
        self.got += data

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.got.splitlines()]


def event(seq: int) -> Event:
    return Event(seq=seq, time=START, kind="transition")


class Source:
    """Lines that the test gives out."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event | bytes | Exception | None] = asyncio.Queue()
        self.taken = 0
        self.closed = False

    async def lines(self) -> AsyncIterator[Event | bytes]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                self.taken += 1
                yield item
        finally:
            self.closed = True


def stream(source: Source, reader: Reader, limit: int | None) -> Stream:
    return Stream(
        source.lines(),
        reader,
        limit=limit,
        clock=HandClock(),
        explain=lambda fault: explain(fault, "events"),
    )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_lines_arrive_in_order_and_an_end_is_an_end() -> None:
    source, reader = Source(), Reader()
    for item in (event(1), b'{"raw":1}\n', event(2), None):
        source.queue.put_nowait(item)
    await stream(source, reader, 10).run()
    assert [line.get("seq", line.get("raw")) for line in reader.lines] == [1, 1, 2]
    assert source.closed


async def test_fields_that_do_not_apply_are_left_out_of_an_event() -> None:
    source, reader = Source(), Reader()
    source.queue.put_nowait(event(1))
    source.queue.put_nowait(None)
    await stream(source, reader, 10).run()
    assert set(reader.lines[0]) == {"seq", "time", "kind", "data"}


async def test_a_slow_reader_of_a_lossy_stream_loses_the_oldest_and_is_told() -> None:
    source, reader = Source(), Reader()
    reader.free.clear()
    running = asyncio.create_task(stream(source, reader, 3).run())
    source.queue.put_nowait(event(1))
    await reader.writing.wait()  # the first line is on its way, and stuck
    for seq in range(2, 10):
        source.queue.put_nowait(event(seq))
    await settle()
    assert source.taken == 9  # nobody waited for the reader
    reader.free.set()
    source.queue.put_nowait(None)
    await running
    kinds = [(line["kind"], line["seq"]) for line in reader.lines]
    assert kinds == [
        ("transition", 1),
        ("events-lost", 0),
        ("transition", 7),
        ("transition", 8),
        ("transition", 9),
    ]
    assert reader.lines[1]["data"] == {"count": 5}


async def test_the_source_of_a_lossless_stream_waits_for_a_slow_reader() -> None:
    source, reader = Source(), Reader()
    reader.free.clear()
    running = asyncio.create_task(stream(source, reader, None).run())
    for seq in range(1, 2001):
        source.queue.put_nowait(event(seq))
    for _ in range(20):
        await settle()
    assert source.taken < 600
    reader.free.set()
    source.queue.put_nowait(None)
    await running
    assert [line["seq"] for line in reader.lines] == list(range(1, 2001))


async def test_an_error_is_the_last_line() -> None:
    source, reader = Source(), Reader()
    source.queue.put_nowait(event(1))
    source.queue.put_nowait(AtlasError("services.unreachable", "services is gone", hint="wait"))
    await stream(source, reader, 10).run()
    assert reader.lines[0]["seq"] == 1
    error = reader.lines[1]["error"]
    assert isinstance(error, dict)
    assert (error["code"], error["hint"]) == ("services.unreachable", "wait")


async def test_a_surprise_is_a_last_line_without_its_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, reader = Source(), Reader()
    source.queue.put_nowait(RuntimeError("the password is swordfish"))
    await stream(source, reader, 10).run()
    error = reader.lines[0]["error"]
    assert isinstance(error, dict)
    assert error["code"] == "internal"
    assert b"swordfish" not in reader.got
    assert error["details"]["reference"] in caplog.text
    assert "swordfish" in caplog.text


async def test_an_ended_stream_says_why_and_lets_go_of_its_source() -> None:
    source, reader = Source(), Reader()
    made = stream(source, reader, 10)
    running = asyncio.create_task(made.run())
    source.queue.put_nowait(event(1))
    await settle()
    made.end(AtlasError("core.stopping", "core is shutting down"))
    await running
    assert [line.get("seq") for line in reader.lines] == [1, None]
    assert source.closed


async def test_a_cancelled_stream_lets_go_of_its_source() -> None:
    source, reader = Source(), Reader()
    running = asyncio.create_task(stream(source, reader, 10).run())
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert source.closed
