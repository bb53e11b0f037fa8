import asyncio
import io
import threading

import pytest

from atlasd.core.watch import LastWords, LoopLag, Watchdog, stacks


class Parts:
    """Parts of a made-up core, which can be told to hang or to fail."""

    def __init__(self, *names: str) -> None:
        self.mood = dict.fromkeys(names, "well")

    def all(self) -> "dict[str, object]":
        return {name: self.part(name) for name in self.mood}

    def part(self, name: str) -> object:
        async def prove() -> None:
            if self.mood[name] == "hangs":
                await asyncio.Event().wait()
            if self.mood[name] == "fails":
                raise OSError("disk full")

        return prove


def watchdog(
    parts: Parts, pings: list[int], reports: list[str], *, interval: float | None = 0.06
) -> Watchdog:
    return Watchdog(
        parts.all(),  # type: ignore[arg-type]
        interval=interval,
        ping=lambda: pings.append(1),
        last_words=None,
        report=reports.append,
    )


async def test_systemd_is_pinged_while_every_part_proves_itself() -> None:
    pings: list[int] = []
    dog = watchdog(Parts("store", "scheduler", "link"), pings, [])
    assert await dog.round()
    assert await dog.round()
    assert len(pings) == dog.pings == 2


@pytest.mark.parametrize("mood", ["hangs", "fails"])
@pytest.mark.parametrize("broken", ["store", "scheduler", "link"])
async def test_one_part_that_stands_still_ends_the_pings(broken: str, mood: str) -> None:
    pings: list[int] = []
    reports: list[str] = []
    parts = Parts("store", "scheduler", "link")
    dog = watchdog(parts, pings, reports)
    parts.mood[broken] = mood
    assert not await dog.round()
    assert not await dog.round()
    assert pings == []
    assert dog.stuck == (broken,)
    assert len(reports) == 1, "once is enough, until something changes"
    assert broken in reports[0]
    parts.mood[broken] = "well"
    assert await dog.round()
    assert pings == [1]


async def test_nobody_is_pinged_who_has_not_asked() -> None:
    pings: list[int] = []
    dog = watchdog(Parts("store"), pings, [], interval=None)
    assert await dog.round()
    assert pings == []


def test_three_rounds_fit_into_systemds_limit() -> None:
    assert watchdog(Parts(), [], [], interval=30.0).period == 10.0


async def test_the_last_words_name_every_task_and_thread() -> None:
    async def stuck_in_a_plugin() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(stuck_in_a_plugin(), name="plugin shop")
    await asyncio.sleep(0)
    text = stacks(asyncio.get_running_loop(), "no progress for 24 s")
    task.cancel()
    assert "no progress for 24 s" in text
    assert "thread MainThread" in text
    assert "task plugin shop" in text
    assert "stuck_in_a_plugin" in text


class Sheet(io.StringIO):
    """A file that tells when something was written on it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def flush(self) -> None:
        super().flush()
        self.written.set()


async def test_silence_is_followed_by_the_stacks_even_with_the_loop_blocked() -> None:
    sheet = Sheet()
    words = LastWords(0.01, file=sheet)
    words.start()
    assert sheet.written.wait(30)  # which blocks the loop: nobody is alive to say so
    words.close()
    assert "test_silence_is_followed_by_the_stacks" in sheet.getvalue()


async def test_who_is_alive_is_left_alone() -> None:
    sheet = Sheet()
    words = LastWords(3600.0, file=sheet)
    words.start()
    words.alive()
    words.close()
    assert sheet.getvalue() == ""


async def test_a_loop_that_was_held_up_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlasd.core.watch.LAG_EVERY", 0.001)
    lag = LoopLag()
    assert lag.seconds == 0.0
    task = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    threading.Event().wait(0.02)
    async with asyncio.timeout(30):
        while lag.seconds < 0.01:  # noqa: ASYNC110  another task measures
            await asyncio.sleep(0)
    task.cancel()
