"""The backend in memory fails, waits and counts as a test tells it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from atlasd.contracts.secrets import SecretStore
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd.testing import HandClock, MemoryBackend, PlainContext


@pytest.fixture
def memory() -> MemoryBackend:
    return MemoryBackend(clock=HandClock())


@pytest.fixture
async def store(memory: MemoryBackend, tmp_path: Path) -> AsyncIterator[SecretStore]:
    async with memory.descriptor.open(NoSettings(), PlainContext(tmp_path)) as store:
        yield store


async def text(store: SecretStore, name: str) -> str:
    value = (await store.get(name)).value
    assert value is not None
    return value.text()


async def test_what_was_planted_is_there_and_calls_are_counted(
    memory: MemoryBackend, store: SecretStore
) -> None:
    version = memory.plant("db", "first")
    memory.plant("db", "of staging", environment="staging")
    assert memory.calls == {"open": 1}
    found = await store.get("db")
    assert found.version == version
    assert await text(store, "db") == "first"
    assert memory.calls == {"open": 1, "get": 2}
    assert memory.asked == [("get", "db"), ("get", "db")]


async def test_it_fails_until_it_works(memory: MemoryBackend, store: SecretStore) -> None:
    memory.plant("db", "first")
    memory.fail("secret.unavailable")
    for _ in range(3):
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
        assert caught.value.code == "secret.unavailable"
    memory.works()
    assert await text(store, "db") == "first"
    assert memory.calls["get"] == 4


async def test_it_fails_so_many_times(memory: MemoryBackend, store: SecretStore) -> None:
    memory.plant("db", "first")
    memory.fail("secret.throttled", retry_after=30, times=2)
    for _ in range(2):
        with pytest.raises(AtlasError) as caught:
            await store.get("db")
        assert caught.value.details == {"retry_after": 30}
    assert await text(store, "db") == "first"


async def test_it_fails_for_one_name(memory: MemoryBackend, store: SecretStore) -> None:
    memory.plant("db", "first")
    memory.plant("api", "token")
    memory.fail("secret.denied", name="db")
    assert await text(store, "api") == "token"
    with pytest.raises(AtlasError, match="db"):
        await store.get("db")


async def test_it_waits_for_the_clock(memory: MemoryBackend, store: SecretStore) -> None:
    memory.plant("db", "first")
    memory.delay = timedelta(seconds=5)
    call = asyncio.ensure_future(text(store, "db"))
    await memory.wind(0)
    assert memory.waiting == 1
    await memory.wind(4.9)
    assert not call.done()
    await memory.wind(0.1)
    assert await call == "first"
    assert memory.waiting == 0


async def test_a_call_that_waits_can_be_given_up(memory: MemoryBackend, store: SecretStore) -> None:
    memory.delay = timedelta(seconds=5)
    call = asyncio.ensure_future(store.list())
    await memory.wind(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert memory.waiting == 0


async def test_disabled_and_forgotten(memory: MemoryBackend, store: SecretStore) -> None:
    first = memory.plant("db", "first")
    memory.plant("db", "second")
    memory.disable("db", first)
    assert await text(store, "db") == "second"
    with pytest.raises(AtlasError) as caught:
        await store.get("db", version=first)
    assert caught.value.code == "secret.disabled"
    memory.enable("db")
    assert (await store.get("db", version=first)).enabled
    memory.forget("db")
    with pytest.raises(AtlasError) as caught:
        await store.get("db")
    assert caught.value.code == "secret.not_found"


async def test_a_recovery_window_ends(memory: MemoryBackend, store: SecretStore) -> None:
    memory.plant("db", "first")
    await store.delete("db", recovery=timedelta(hours=1))
    await memory.wind(3599)
    assert (await store.describe("db")).deleted
    await memory.wind(1)
    with pytest.raises(AtlasError) as caught:
        await store.recover("db")
    assert caught.value.code == "secret.not_found"
