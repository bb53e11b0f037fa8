"""What a backend keeps when things are not as they should be."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from atlasd.contracts.secrets import (
    Capability,
    SecretBackend,
    SecretStore,
)
from atlasd.testing.context import PlainContext
from atlasd.testing.secrets.asserting import (
    LIMIT,
    NOBODY,
    Disable,
    needs,
    opened,
    refused,
    value_of,
)


class Trouble:
    """Disabled, down, given up, closed."""

    async def test_a_disabled_version_is_said_to_be(
        self, backend: SecretBackend, store: SecretStore, disable: Disable | None
    ) -> None:
        """What exists and may not be used is told from what does not exist."""
        needs(backend, Capability.PUT)
        if disable is None:
            pytest.skip("secrets cannot be disabled there")
        put = await store.put("db", value_of("first"))
        await disable("db", put.version)
        with refused("secret.disabled", naming="db"):
            await store.get("db")
        if Capability.VERSIONS in backend.capabilities:
            assert [version.enabled for version in await store.versions("db")] == [False]

    async def test_it_opens_while_it_is_down(
        self, backend: SecretBackend, down: dict[str, Any] | None, context: PlainContext
    ) -> None:
        """Each call says that nobody answers, soon; opening doesn't fail."""
        if down is None:
            pytest.skip("there is nothing that could be down")
        async with asyncio.timeout(LIMIT.total_seconds()):
            async with backend.open(backend.settings.model_validate(down), context) as store:
                for _ in range(2):
                    with refused("secret.unavailable"):
                        await store.get("db")
                with refused("secret.unavailable"):
                    await store.describe("db")
                if Capability.PUT in backend.capabilities:
                    with refused("secret.unavailable"):
                        await store.put("db", value_of("lost"))
                if Capability.LIST in backend.capabilities:
                    with refused("secret.unavailable"):
                        await store.list()

    async def test_a_call_that_is_given_up_can_be_followed_by_another(
        self, backend: SecretBackend, store: SecretStore, present: Mapping[str, str]
    ) -> None:
        """Cancelling a call ends it, and leaves the store usable."""
        name = next(iter(present), "db")
        if not present:
            needs(backend, Capability.PUT)
            await store.put(name, value_of("first"))
        call = asyncio.ensure_future(store.get(name))
        await asyncio.sleep(0)
        call.cancel()
        async with asyncio.timeout(LIMIT.total_seconds()):
            await asyncio.wait({call})
            assert (await store.get(name)).value is not None

    async def test_nothing_is_left_when_it_is_closed(
        self, backend: SecretBackend, settings: dict[str, Any], context: PlainContext
    ) -> None:
        """No task of the store's goes on after it was closed."""
        before = asyncio.all_tasks()
        async with opened(backend, settings, context) as store:
            with refused("secret.not_found"):
                await store.get(NOBODY)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() - before == set()
