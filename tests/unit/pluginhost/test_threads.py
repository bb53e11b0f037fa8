"""Threads of a plugin: results, errors, bounds, and a hanging call that keeps nobody."""

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

from atlasd.errors import AtlasError
from atlasd.pluginhost.threads import PluginThreads


async def test_a_call_runs_in_a_thread_named_after_the_plugin() -> None:
    threads = PluginThreads("shop")

    def work(a: int, *, b: int) -> str:
        return f"{threading.current_thread().name} {a}{b}"

    assert await threads.run(work, 1, b=2) == "plugin shop 12"
    threads.close()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_what_a_call_raises_reaches_its_caller(kind: type[BaseException]) -> None:
    threads = PluginThreads("shop")

    def fails() -> None:
        raise kind("no")

    with pytest.raises(kind, match="no"):
        await threads.run(fails)
    assert await threads.run(lambda: 2) == 2
    threads.close()


async def test_stop_iteration_does_not_end_the_caller_quietly() -> None:
    threads = PluginThreads("shop")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(next, iter(()))
    threads.close()


async def test_context_variables_are_seen_in_the_thread() -> None:
    variable = contextvars.ContextVar[str]("variable")
    variable.set("here")
    threads = PluginThreads("shop")
    assert await threads.run(variable.get) == "here"
    threads.close()


async def test_calls_beyond_threads_and_backlog_are_refused_and_the_rest_is_done() -> None:
    threads = PluginThreads("shop", threads=2, backlog=1)
    gate = threading.Event()
    calls = [asyncio.create_task(threads.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    assert threads.unfinished == 3
    with pytest.raises(AtlasError) as caught:
        await threads.run(gate.wait)
    assert caught.value.code == "plugin.busy"
    assert "2 blocking calls have not returned, and 1 more wait" in caught.value.message
    gate.set()
    assert await asyncio.gather(*calls) == [True, True, True]
    threads.close()


async def test_a_call_that_was_given_up_before_its_turn_is_not_begun() -> None:
    threads = PluginThreads("shop", threads=1)
    gate = threading.Event()
    begun: list[int] = []
    first = asyncio.create_task(threads.run(gate.wait))
    second = asyncio.create_task(threads.run(begun.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    await first
    assert await threads.run(lambda: "next") == "next"
    assert begun == []
    threads.close()


async def test_after_closing_nothing_more_is_taken() -> None:
    threads = PluginThreads("shop")
    threads.close()
    with pytest.raises(AtlasError, match="is being shut down"):
        await threads.run(int)


def test_a_call_that_hangs_does_not_keep_the_process_from_ending() -> None:
    program = (
        "import asyncio, threading\n"
        "from atlasd.pluginhost.threads import PluginThreads\n"
        "async def main():\n"
        "    call = asyncio.create_task(PluginThreads('shop').run(threading.Event().wait))\n"
        "    await asyncio.sleep(0)\n"
        "    call.cancel()\n"
        "asyncio.run(main())\n"
        "print('ended')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")
