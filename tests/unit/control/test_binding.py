from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from atlasd.clock import HandClock
from atlasd.control import models as m
from atlasd.control.binding import bind
from atlasd.control.rights import Caller
from atlasd.control.wire import Operation, Right
from atlasd.errors import AtlasError

CALLER = Caller(pid=1, uid=7, gid=7, groups=frozenset(), right=Right.OPERATE)


class Book:
    """Notes what was performed."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.entries: list[tuple[str, float, str, str | None]] = []

    def __call__(
        self,
        operation: Operation,
        *,
        began: float,
        actor: str,
        request: BaseModel,
        error: AtlasError | None,
    ) -> None:
        self.entries.append((operation.name, began, actor, error.code if error else None))


async def test_a_method_gets_the_fields_by_name_and_its_body_becomes_the_answer() -> None:
    book = Book()

    async def stop(*, service: str, instance: int | None, actor: str) -> dict[str, Any]:
        book.clock.wind(5.0)
        return {"service": service, "affected": [0, 1], "next_seq": 3}

    began = book.clock.wall()
    handler = bind({"service.stop": stop}, performed=book, clock=book.clock)["service.stop"]
    answer = await handler(m.InstanceRequest(service="web"), CALLER)
    assert answer == m.Accepted(service="web", affected=(0, 1), next_seq=3)
    assert book.entries == [("service.stop", began, "uid:7", None)]


async def test_a_refusal_is_noted_and_goes_on_to_the_caller() -> None:
    book = Book()

    async def refuse(**_: Any) -> None:
        raise AtlasError("service.unknown", "no")

    handler = bind({"service.stop": refuse}, performed=book, clock=book.clock)["service.stop"]
    with pytest.raises(AtlasError, match="no"):
        await handler(m.InstanceRequest(service="web"), CALLER)
    assert book.entries[0][3] == "service.unknown"


async def test_a_body_against_the_model_is_our_mistake_and_is_not_served() -> None:
    async def wrong(**_: Any) -> dict[str, Any]:
        return {"service": "web", "affected": "all of them"}

    handler = bind({"service.stop": wrong}, performed=Book(), clock=HandClock())["service.stop"]
    with pytest.raises(ValidationError):
        await handler(m.InstanceRequest(service="web"), CALLER)


async def test_text_is_text() -> None:
    async def metrics(*, actor: str) -> str:
        return f"# for {actor}\n"

    handler = bind({"metrics": metrics}, performed=Book(), clock=HandClock())["metrics"]
    assert await handler(m.Nothing(), CALLER) == "# for uid:7\n"


async def test_a_stream_is_validated_line_by_line_and_closed_with_its_reader() -> None:
    closed: list[bool] = []

    async def events(**_: Any) -> AsyncIterator[dict[str, Any] | bytes]:
        async def lines() -> AsyncIterator[dict[str, Any] | bytes]:
            try:
                yield {"seq": 1, "time": 0.0, "kind": "status"}
                yield b"as it is\n"
            finally:
                closed.append(True)

        return lines()

    handler = bind({"events": events}, performed=Book(), clock=HandClock())["events"]
    given = await handler(m.EventsRequest(), CALLER)
    assert not isinstance(given, BaseModel | str)
    first = await anext(given)
    assert isinstance(first, m.Event)
    assert (first.seq, first.kind) == (1, "status")
    assert await anext(given) == b"as it is\n"
    await given.aclose()  # type: ignore[attr-defined]
    assert closed == [True]


def test_a_name_without_a_row_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        bind({"no.such": lambda **_: None}, performed=Book(), clock=HandClock())  # type: ignore[dict-item]
