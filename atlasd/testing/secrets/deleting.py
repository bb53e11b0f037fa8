"""What a backend that can delete and recover keeps."""

from datetime import timedelta

from atlasd.contracts.secrets import (
    CURRENT,
    PREVIOUS,
    Capability,
    SecretBackend,
    SecretStore,
)
from atlasd.errors import AtlasError
from atlasd.testing.secrets.asserting import (
    MARK,
    NOTHING,
    assert_gone,
    assert_stages,
    needs,
    only,
    refused,
    text_of,
    value_of,
)


class Deleting:
    """Gone for good, gone for a while, and had back."""

    async def test_what_is_deleted_for_good_is_gone(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """It cannot be had, and its name is free for another."""
        needs(backend, Capability.PUT, Capability.DELETE)
        await store.put("db", value_of("old"))
        before = await store.put("db", value_of("older"))
        await store.put("neighbour", value_of("neighbour"))
        assert (await store.delete("db", recovery=NOTHING)).name == "db"
        await assert_gone(backend, store, "db")
        after = await store.put("db", value_of("new"))
        assert after.version != before.version
        await assert_stages(store, "db", {CURRENT: "new", PREVIOUS: None})
        assert await text_of(store, "neighbour") == f"{MARK}-neighbour"

    async def test_what_is_deleted_can_be_recovered(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Until then it is not found, but told of; then all is as it was."""
        needs(backend, Capability.PUT, Capability.RECOVER)
        first = await store.put("db", value_of("first"))
        second = await store.put("db", value_of("second"))
        info = await store.delete("db")
        assert info.name == "db"
        assert info.deleted is not None
        with refused("secret.not_found", naming="db"):
            await store.get("db")
        with refused("secret.not_found", naming="db"):
            await store.get("db", stage=PREVIOUS)
        described = await store.describe("db")
        assert described.deleted is not None
        assert described.recoverable_until is None or described.recoverable_until.tzinfo
        if Capability.LIST in backend.capabilities:
            listed = await store.list("d")
            assert [info.name for info in listed] == ["db"]
            assert listed[0].deleted is not None
        assert (await store.recover("db")).deleted is None
        assert (await store.describe("db")).deleted is None
        await assert_stages(store, "db", {CURRENT: "second", PREVIOUS: "first"})
        assert (await store.get("db")).version == second.version
        assert (await store.get("db", stage=PREVIOUS)).version == first.version

    async def test_a_deleted_name_is_not_free(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Putting, and deleting once more, would lose what can be recovered: a conflict."""
        needs(backend, Capability.PUT, Capability.RECOVER)
        await store.put("db", value_of("first"))
        await store.delete("db")
        with refused("secret.conflict", naming="db"):
            await store.put("db", value_of("second"))
        with refused("secret.conflict", "secret.not_found", naming="db"):
            await store.delete("db")
        await store.recover("db")
        assert await text_of(store, "db") == f"{MARK}-first"

    async def test_a_deleted_secret_can_be_deleted_for_good(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Who does not want it back need not wait for its end."""
        needs(backend, Capability.PUT, Capability.RECOVER)
        await store.put("db", value_of("first"))
        await store.delete("db")
        await store.delete("db", recovery=NOTHING)
        await assert_gone(backend, store, "db")

    async def test_only_what_is_deleted_is_recovered(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Recovering what is in use is a conflict, or nothing at all."""
        needs(backend, Capability.PUT, Capability.RECOVER)
        await store.put("db", value_of("first"))
        try:
            assert (await store.recover("db")).deleted is None
        except AtlasError as error:
            only(error, "secret.conflict")
        assert await text_of(store, "db") == f"{MARK}-first"

    async def test_a_time_for_recovery_is_kept_or_refused(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Fourteen days are given, or refused as not possible there; a negative time always is."""
        needs(backend, Capability.PUT, Capability.RECOVER)
        await store.put("db", value_of("first"))
        with refused("secret.invalid"):
            await store.delete("db", recovery=timedelta(days=-1))
        try:
            info = await store.delete("db", recovery=timedelta(days=14))
        except AtlasError as error:
            only(error, "secret.invalid")
            assert await text_of(store, "db") == f"{MARK}-first"
        else:
            assert info.deleted is not None
            if info.recoverable_until is not None:
                time = info.recoverable_until - info.deleted
                assert abs(time - timedelta(days=14)) < timedelta(days=1)
