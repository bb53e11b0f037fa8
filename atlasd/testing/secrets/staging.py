"""What a backend with versions and stages keeps."""

from atlasd.contracts.secrets import (
    CURRENT,
    PENDING,
    PREVIOUS,
    Capability,
    SecretBackend,
    SecretStore,
)
from atlasd.errors import AtlasError
from atlasd.testing.secrets.asserting import assert_stages, needs, only, refused, value_of


class Staging:
    """Versions, pending ones, promotion and rollback."""

    async def test_versions_are_told_the_newest_first(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Each can be read by its id; the list has no values."""
        needs(backend, Capability.PUT, Capability.VERSIONS)
        texts = ["one", "two", "three", "four"]
        made = [(await store.put("db", value_of(text))).version for text in texts]
        versions = list(await store.versions("db"))
        assert [version.version for version in versions] == made[::-1]
        assert [version.stages for version in versions] == [(CURRENT,), (PREVIOUS,), (), ()]
        assert {version.name for version in versions} == {"db"}
        assert [version.value for version in versions] == [None] * 4
        for version, text in zip(made, texts, strict=True):
            found = await store.get("db", version=version)
            assert (found.version, found.value) == (version, value_of(text))
        assert (await store.describe("db")).versions in {None, 4}

    async def test_unknown_versions_are_not_found(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Neither made-up ids, nor those of other secrets."""
        needs(backend, Capability.PUT, Capability.VERSIONS)
        await store.put("db", value_of("db"))
        other = (await store.put("other", value_of("other"))).version
        mine = {version.version for version in await store.versions("db")}
        for version in ("no-such-version", "99999", "0" * 32, "a b/../c", *({other} - mine)):
            with refused("secret.not_found", naming="db"):
                await store.get("db", version=version)

    async def test_pending_leaves_current_alone(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A version that is being tried is seen by those who ask for it."""
        needs(backend, Capability.PUT, Capability.STAGE)
        await store.put("db", value_of("old"))
        pending = await store.put("db", value_of("new"), stage=PENDING)
        assert pending.stages == (PENDING,)
        await assert_stages(store, "db", {CURRENT: "old", PREVIOUS: None, PENDING: "new"})
        await store.put("db", value_of("newer"), stage=PENDING)
        await assert_stages(store, "db", {CURRENT: "old", PREVIOUS: None, PENDING: "newer"})

    async def test_promotion(self, backend: SecretBackend, store: SecretStore) -> None:
        """What was pending becomes current and is pending no longer; current becomes previous."""
        needs(backend, Capability.PUT, Capability.STAGE)
        await store.put("db", value_of("oldest"))
        await store.put("db", value_of("old"))
        pending = await store.put("db", value_of("new"), stage=PENDING)
        await store.stage("db", pending.version, CURRENT)
        await assert_stages(store, "db", {CURRENT: "new", PREVIOUS: "old", PENDING: None})
        assert (await store.get("db")).version == pending.version
        await store.stage("db", pending.version, CURRENT)
        await assert_stages(store, "db", {CURRENT: "new", PREVIOUS: "old", PENDING: None})
        await store.put("db", value_of("newest"))
        await assert_stages(store, "db", {CURRENT: "newest", PREVIOUS: "new", PENDING: None})

    async def test_rollback(self, backend: SecretBackend, store: SecretStore) -> None:
        """Going back to the previous version, and to it again, exchanges the two."""
        needs(backend, Capability.PUT, Capability.STAGE)
        first = await store.put("db", value_of("first"))
        second = await store.put("db", value_of("second"))
        await store.stage("db", first.version, CURRENT)
        await assert_stages(store, "db", {CURRENT: "first", PREVIOUS: "second"})
        await store.stage("db", second.version, CURRENT)
        await assert_stages(store, "db", {CURRENT: "second", PREVIOUS: "first"})
        third = await store.put("db", value_of("third"))
        await store.stage("db", first.version, CURRENT)
        await assert_stages(store, "db", {CURRENT: "first", PREVIOUS: "third"})
        stages = {version.version: version.stages for version in await store.versions("db")}
        assert stages == {third.version: (PREVIOUS,), second.version: (), first.version: (CURRENT,)}

    async def test_a_first_version_may_be_pending(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A new secret may begin with a version that is tried.

        Where the service makes every first version current it is both.
        """
        needs(backend, Capability.PUT, Capability.STAGE)
        put = await store.put("new", value_of("first"), stage=PENDING)
        found = await store.get("new", stage=PENDING)
        assert (found.version, found.value) == (put.version, value_of("first"))
        try:
            assert (await store.get("new")).version == put.version
        except AtlasError as error:
            only(error, "secret.not_found")
        await store.stage("new", put.version, CURRENT)
        await assert_stages(store, "new", {CURRENT: "first", PREVIOUS: None, PENDING: None})

    async def test_stages_are_moved_only_to_what_there_is(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Unknown versions and made-up stages are refused, and nothing has changed."""
        needs(backend, Capability.PUT, Capability.STAGE)
        put = await store.put("db", value_of("only"))
        with refused("secret.not_found", naming="db"):
            await store.stage("db", "no-such-version", CURRENT)
        with refused("secret.invalid", naming="live"):
            await store.stage("db", put.version, "live")
        with refused("secret.invalid", naming="live"):
            await store.put("db", value_of("live"), stage="live")
        await assert_stages(store, "db", {CURRENT: "only", PREVIOUS: None, PENDING: None})
