"""The guard: whatever work does, it costs only itself, in time and in the books."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from atlasd.breaker import Breaker, BreakerPolicy, BreakerState
from atlasd.clock import HandClock
from atlasd.errors import AtlasError
from atlasd.events import Event, PluginFailed
from atlasd.pluginhost.guard import Backend, Guard, WrongAnswerError
from atlasd.pluginhost.ledger import Cause, Ledger

NOW = timedelta(0)
LONG = timedelta(minutes=1)
BACKEND = Backend(plugin="shop", kind="check", name="check web")


class Bench:
    def __init__(self, *, failures: int = 3, most_strays: int = 8) -> None:
        self.clock = HandClock()
        self.published: list[Event] = []
        self.ledger = Ledger(self.clock, self.published.append)
        self.breaker = Breaker(self.clock, BreakerPolicy(failures=failures))
        self.guard = Guard(
            BACKEND,
            ledger=self.ledger,
            breaker=self.breaker,
            clock=self.clock,
            grace=NOW,
            most_strays=most_strays,
        )

    @property
    def failures(self) -> int:
        return self.ledger.costs()["shop", "check"].failures

    async def fails(self, work: Any, limit: timedelta | None = LONG, accept: Any = None) -> str:
        with pytest.raises(AtlasError) as caught:
            await self.guard.call(work, limit=limit, accept=accept or str)
        assert caught.value.code == "plugin.failed"
        return caught.value.message


async def one() -> int:
    return 1


async def breaks() -> int:
    return 1 // 0


async def waits() -> int:
    await asyncio.Event().wait()
    return 1


async def test_an_answer_goes_through_what_accepts_it_and_time_is_booked() -> None:
    bench = Bench()

    async def work() -> int:
        bench.clock.wind(0.25)
        return 20

    assert await bench.guard.call(work, limit=LONG, accept=lambda n: n + 1) == 21
    cost = bench.ledger.costs()["shop", "check"]
    assert (cost.calls, cost.seconds, cost.failures) == (1, 0.25, 0)
    assert bench.ledger.ailing("shop") == ()


async def test_what_raises_is_a_sentence_a_count_and_one_event() -> None:
    bench = Bench()
    message = await bench.fails(breaks)
    assert message.startswith("check web (plugin shop): ZeroDivisionError: integer division")
    await bench.fails(breaks)
    assert bench.failures == 2
    (failure,) = bench.ledger.ailing("shop")
    assert (failure.cause, failure.kind) == (Cause.RAISED, "check")
    assert bench.published == [
        PluginFailed(time=failure.time, plugin="shop", detail=failure.detail)
    ]


async def test_what_hangs_is_cancelled_and_counted() -> None:
    bench = Bench()
    gone = []

    async def hangs() -> int:
        try:
            return await waits()
        finally:
            gone.append(True)

    message = await bench.fails(hangs, NOW)
    assert message == "check web (plugin shop): it did not return within 0 s"
    await asyncio.sleep(0)
    assert gone == [True]
    assert bench.failures == 1
    assert bench.ledger.ailing("shop")[0].cause is Cause.HUNG


async def test_what_ignores_its_cancellation_is_left_to_itself_and_not_called_again() -> None:
    bench = Bench(most_strays=1)
    let_go = asyncio.Event()

    async def deaf() -> int:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                pass
        raise ValueError("in its own time")

    await bench.fails(deaf, NOW)
    assert bench.guard.strays == 1
    assert "still has not ended what it was doing" in await bench.fails(one)
    assert bench.failures == 2
    let_go.set()
    while bench.guard.strays:  # noqa: ASYNC110  a task ends when the loop has come to it
        await asyncio.sleep(0)
    assert await bench.guard.call(one, limit=LONG, accept=int) == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_what_tries_to_end_the_daemon_does_not(kind: type[BaseException]) -> None:
    bench = Bench()

    async def leaves() -> int:
        raise kind("7")

    assert f"tried to end the daemon ({kind.__name__})" in await bench.fails(leaves)
    assert bench.failures == 1


async def test_what_cancels_itself_has_failed_and_the_caller_goes_on() -> None:
    bench = Bench()

    async def cancels() -> int:
        raise asyncio.CancelledError

    assert "it cancelled itself" in await bench.fails(cancels)


async def test_a_wrong_answer_is_a_failure() -> None:
    bench = Bench()

    def accept(answer: int) -> int:
        raise WrongAnswerError(f"{answer} is no verdict")

    assert "1 is no verdict" in await bench.fails(one, accept=accept)
    assert bench.ledger.ailing("shop")[0].cause is Cause.WRONG


async def test_an_explained_error_keeps_its_words_and_its_hint() -> None:
    bench = Bench()

    async def busy() -> int:
        raise AtlasError("plugin.busy", "no thread is free", hint="wait")

    with pytest.raises(AtlasError) as caught:
        await bench.guard.call(busy, limit=LONG, accept=int)
    assert caught.value.message == "check web (plugin shop): no thread is free"
    assert caught.value.hint == "wait"


async def test_an_honest_error_passes_and_is_no_failure() -> None:
    bench = Bench()

    async def refuses() -> int:
        raise AtlasError("plugin.shop_closed", "closed")

    with pytest.raises(AtlasError) as caught:
        await bench.guard.call(refuses, limit=LONG, accept=int, honest=(AtlasError,))
    assert caught.value.code == "plugin.shop_closed"
    assert bench.failures == 0


async def test_after_failures_in_a_row_it_rests_and_then_one_call_tries() -> None:
    bench = Bench(failures=2)
    await bench.fails(breaks)
    await bench.fails(breaks)
    assert bench.guard.resting
    called = []

    async def noted() -> int:
        called.append(True)
        return 1

    message = await bench.fails(noted)
    assert message == (
        "check web (plugin shop): it failed 2 times in a row and rests; next try in 30 s"
    )
    assert (called, bench.failures) == ([], 2)
    bench.clock.wind(30)
    assert await bench.guard.call(noted, limit=LONG, accept=int) == 1
    assert bench.breaker.state is BreakerState.CLOSED
    assert bench.ledger.ailing("shop") == ()


async def test_a_caller_that_gives_up_takes_its_work_along_and_blames_nobody() -> None:
    bench = Bench(failures=1)
    begun = asyncio.Event()
    gone = asyncio.Event()

    async def work() -> int:
        begun.set()
        try:
            return await waits()
        finally:
            gone.set()

    task = asyncio.create_task(bench.guard.call(work, limit=None, accept=int))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone.wait()
    assert bench.failures == 0
    assert bench.breaker.state is BreakerState.CLOSED


async def test_one_call_in_trouble_does_not_hold_up_another() -> None:
    bench = Bench()
    stuck = asyncio.create_task(bench.guard.call(waits, limit=None, accept=int))
    await asyncio.sleep(0)
    assert await bench.guard.call(one, limit=LONG, accept=int) == 1
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
