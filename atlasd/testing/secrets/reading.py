"""What every backend keeps: it says what it can do, does that, and reads."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from atlasd.contracts.secrets import (
    CURRENT,
    Capability,
    KeyRing,
    Sealer,
    SecretBackend,
    SecretStore,
    SecretValue,
)
from atlasd.testing.descriptors import assert_settings_are_strict
from atlasd.testing.secrets.asserting import (
    MARK,
    NOBODY,
    NOTHING,
    ODD_NAMES,
    needs,
    refused,
    shows,
    text_of,
    value_of,
)


class Reading:
    """What it declares, what it lacks, and what is there already."""

    def test_settings_are_strict(self, backend: SecretBackend, settings: dict[str, Any]) -> None:
        """Settings are read, unknown names refused, and every field described."""
        assert_settings_are_strict(backend.settings, settings)

    def test_capabilities_go_together(self, backend: SecretBackend) -> None:
        """They are capabilities, and none without what it needs."""
        has = backend.capabilities
        assert isinstance(has, frozenset)
        assert all(isinstance(capability, Capability) for capability in has)
        assert Capability.RECOVER not in has or Capability.DELETE in has
        assert Capability.STAGE not in has or Capability.VERSIONS in has
        assert has <= set(Capability)

    async def test_it_has_the_calls_it_declares(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A key ring, and sealing, where it says so."""
        assert Capability.KEYS not in backend.capabilities or isinstance(store, KeyRing)
        assert Capability.SEAL not in backend.capabilities or isinstance(store, Sealer)

    async def test_what_it_cannot_do_is_refused_by_name(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A call for which it lacks the capability says so, and names the capability."""
        calls: dict[Capability, Callable[[], Awaitable[object]]] = {
            Capability.PUT: lambda: store.put("a", value_of("x")),
            Capability.LIST: store.list,
            Capability.VERSIONS: lambda: store.versions("a"),
            Capability.STAGE: lambda: store.stage("a", "1", CURRENT),
            Capability.DELETE: lambda: store.delete("a"),
            Capability.RECOVER: lambda: store.recover("a"),
        }
        for capability, call in calls.items():
            if capability not in backend.capabilities:
                with refused("secret.unsupported", naming=str(capability)):
                    await call()

    async def test_a_recovery_that_it_cannot_give_is_refused(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Without recovery nothing is deleted by somebody who counts on it."""
        needs(backend, Capability.PUT, Capability.DELETE)
        if Capability.RECOVER in backend.capabilities:
            pytest.skip("it can recover")
        await store.put("kept", value_of("kept"))
        with refused("secret.unsupported", naming=str(Capability.RECOVER)):
            await store.delete("kept", recovery=timedelta(days=7))
        assert await text_of(store, "kept") == f"{MARK}-kept"

    async def test_what_is_there_is_read(
        self, store: SecretStore, present: Mapping[str, str]
    ) -> None:
        """What was there before is given as it is, in a type that does not print."""
        for name, text in present.items():
            found = await store.get(name)
            assert found.name == name
            assert found.value == SecretValue(text)
            assert found.version
            assert CURRENT in found.stages
            assert (await store.describe(name)).name == name
            assert not shows(repr(found) + str(found.value))

    async def test_what_is_there_is_listed(
        self, backend: SecretBackend, store: SecretStore, present: Mapping[str, str]
    ) -> None:
        """The list has what can be read, by name."""
        needs(backend, Capability.LIST)
        names = [info.name for info in await store.list()]
        assert names == sorted(names)
        assert set(present) <= set(names)

    async def test_what_is_not_there_is_not_found(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Whatever is asked of a name that nobody has put, says so and repeats the name."""
        has = backend.capabilities
        with refused("secret.not_found", naming=NOBODY):
            await store.get(NOBODY)
        with refused("secret.not_found", naming=NOBODY):
            await store.describe(NOBODY)
        if Capability.VERSIONS in has:
            with refused("secret.not_found", naming=NOBODY):
                await store.versions(NOBODY)
        if Capability.STAGE in has:
            with refused("secret.not_found", naming=NOBODY):
                await store.stage(NOBODY, "1", CURRENT)
        if Capability.DELETE in has:
            for recovery in (None, NOTHING):
                with refused("secret.not_found", naming=NOBODY):
                    await store.delete(NOBODY, recovery=recovery)
        if Capability.RECOVER in has:
            with refused("secret.not_found", naming=NOBODY):
                await store.recover(NOBODY)

    async def test_odd_names_are_read_safely(self, store: SecretStore) -> None:
        """A name of any form is not found, or cannot be had; it breaks nothing."""
        for name in ODD_NAMES:
            with refused("secret.not_found", "secret.invalid"):
                await store.get(name)

    async def test_many_reads_at_the_same_time_all_have_their_turn(
        self, backend: SecretBackend, store: SecretStore, present: Mapping[str, str]
    ) -> None:
        """A configuration with many references asks for all at once; none is turned away."""
        texts = dict(present)
        if Capability.PUT in backend.capabilities:
            await store.put("popular", value_of("popular"))
            texts["popular"] = f"{MARK}-popular"
        for name, text in texts.items():
            found = await asyncio.gather(*(store.get(name) for _ in range(60)))
            assert {version.value for version in found} == {SecretValue(text)}
