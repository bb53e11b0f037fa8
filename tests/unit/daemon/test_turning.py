"""A role's loop ends, whatever is left running in it."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from atlasd.daemon.turning import turn
from atlasd.errors import AtlasError


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end of the test, so that the thread that waits for it can go."""
    event = threading.Event()
    yield event
    event.set()


def test_nothing_is_left_of_what_can_be_cancelled() -> None:
    ended: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("tidied up")

    async def role() -> None:
        tasks.append(asyncio.create_task(tidy(), name="tidy"))
        await asyncio.to_thread(ended.append, "worked in a thread")

    tasks: list[asyncio.Task[None]] = []
    assert turn(role())
    assert ended == ["worked in a thread", "tidied up"]


def test_a_task_that_swallows_its_cancellation_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = 0

    async def stubborn() -> None:
        nonlocal asked
        while asked < 2:  # the second time it is the test that asks
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked += 1

    tasks: list[asyncio.Task[None]] = []

    async def role() -> None:
        tasks.append(asyncio.create_task(stubborn(), name="stubborn"))
        await asyncio.sleep(0)

    assert not turn(role(), patience=0.01)
    assert "stubborn" in caplog.text
    loop = tasks[0].get_loop()
    tasks[0].cancel()
    loop.run_until_complete(tasks[0])
    loop.close()


def test_a_call_that_does_not_return_is_left_behind(
    release: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def role() -> None:
        loops.append(asyncio.get_running_loop())
        loops[0].run_in_executor(None, release.wait)

    assert not turn(role(), patience=0.01)
    assert "a call in a thread" in caplog.text
    loops[0].close()


def test_what_the_role_raises_is_raised() -> None:
    async def role() -> None:
        raise AtlasError("internal", "it fell")

    with pytest.raises(AtlasError, match="it fell"):
        turn(role())
