"""What a backend that can put keeps: values and names come back as they were."""

import asyncio
from typing import Any

import pytest

from atlasd.contracts.secrets import (
    CURRENT,
    PENDING,
    PREVIOUS,
    Capability,
    SecretBackend,
    SecretInfo,
    SecretStore,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd.testing.context import PlainContext
from atlasd.testing.secrets.asserting import (
    MARK,
    ODD_NAMES,
    assert_stages,
    needs,
    only,
    opened,
    other_environment,
    refused,
    shown,
    shows,
    text_of,
    value_of,
)


class Putting:
    """New versions, names, several at a time, environments, lists."""

    async def test_what_was_put_is_had(self, backend: SecretBackend, store: SecretStore) -> None:
        """A value comes back as it was, at the version that `put` has told."""
        needs(backend, Capability.PUT)
        put = await store.put("prod/db", value_of("first"), actor="uid:0")
        assert put.value is None, "a value stands only where it was asked for"
        assert (put.name, put.stages) == ("prod/db", (CURRENT,))
        found = await store.get("prod/db")
        assert found.value == value_of("first")
        assert (found.name, found.version) == ("prod/db", put.version)
        assert CURRENT in found.stages
        assert found.enabled
        assert found.created is None or found.created.tzinfo is not None
        assert found.created_by in {"", "uid:0"}
        info = await store.describe("prod/db")
        assert info.name == "prod/db"
        assert info.current in {"", put.version}
        assert (info.deleted, info.recoverable_until) == (None, None)

    async def test_a_second_put_makes_the_first_previous(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """The new one is current, the one before can still be had."""
        needs(backend, Capability.PUT)
        first = await store.put("db", value_of("first"))
        second = await store.put("db", value_of("second"))
        assert first.version != second.version
        await assert_stages(store, "db", {CURRENT: "second", PREVIOUS: "first"})
        await store.put("db", value_of("third"))
        await assert_stages(store, "db", {CURRENT: "third", PREVIOUS: "second"})

    async def test_the_same_value_again_is_a_new_version(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Nothing is saved by looking at values."""
        needs(backend, Capability.PUT)
        first = await store.put("db", value_of("same"))
        second = await store.put("db", value_of("same"))
        assert first.version != second.version

    async def test_a_stage_without_a_version_is_not_found(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """There is no previous version of a secret that was put once, and no made-up stage."""
        needs(backend, Capability.PUT)
        await store.put("db", value_of("only"))
        for stage in (PREVIOUS, PENDING, "live"):
            with refused("secret.not_found", naming="db"):
                await store.get("db", stage=stage)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(
                f"{MARK} with spaces \n and lines\r\n\tand \"quotes\" 'of' $each {{kind}}"
            ),
            pytest.param(f"{MARK}: ünïcode, 日本語, 🔑"),
            pytest.param(f"{MARK}".encode() + bytes(range(256))),
            pytest.param(b"\xff\xfe" + MARK.encode() + b"\x00" * 3),
            pytest.param(f'{{"user": "app", "password": "{MARK}"}}'),
            pytest.param(f"  {MARK}\n"),
            pytest.param("0"),
            pytest.param(f"{MARK}" * 1000),
            pytest.param(MARK.encode() + bytes(range(256)) * 60),
        ],
        ids=["text", "unicode", "binary", "no_text", "json", "margins", "short", "long", "blob"],
    )
    async def test_values_come_back_as_they_were(
        self, backend: SecretBackend, store: SecretStore, value: str | bytes
    ) -> None:
        """Text and bytes, to the last one."""
        needs(backend, Capability.PUT)
        await store.put("value", SecretValue(value))
        found = (await store.get("value")).value
        assert found == SecretValue(value)

    @pytest.mark.parametrize("value", [b"", MARK.encode() * 100_000], ids=["empty", "huge"])
    async def test_values_that_it_cannot_have_are_refused(
        self, backend: SecretBackend, store: SecretStore, value: bytes
    ) -> None:
        """An empty value, and one of 1.5 MB, are kept, or refused and nothing happened."""
        needs(backend, Capability.PUT)
        await store.put("value", value_of("before"))
        expected = SecretValue(value)
        try:
            await store.put("value", expected)
        except AtlasError as error:
            only(error, "secret.invalid", naming="value")
            expected = value_of("before")
        assert (await store.get("value")).value == expected

    async def test_names_are_told_apart(self, backend: SecretBackend, store: SecretStore) -> None:
        """Names as people give them are kept, case and separators included."""
        needs(backend, Capability.PUT)
        names = ["prod/db", "prod-db", "prod_db", "prod.db", "prod/db/url", "PROD/DB", "Prod/db"]
        for name in names:
            await store.put(name, value_of(name))
        for name in names:
            found = await store.get(name)
            assert (found.name, found.value) == (name, value_of(name))
        if Capability.LIST in backend.capabilities:
            assert [info.name for info in await store.list()] == sorted(names)

    async def test_odd_names_are_kept_or_refused(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A name is either kept exactly, or cannot be had."""
        needs(backend, Capability.PUT)
        kept = []
        for name in ODD_NAMES:
            try:
                await store.put(name, value_of(f"of {name}"))
            except AtlasError as error:
                only(error, "secret.invalid")
            else:
                kept.append(name)
        for name in kept:
            found = await store.get(name)
            assert (found.name, found.value) == (name, value_of(f"of {name}"))
        if Capability.LIST in backend.capabilities:
            assert [info.name for info in await store.list()] == sorted(kept)

    async def test_puts_at_the_same_time_are_all_whole(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Of several puts of one name each is a version, or told that it is not."""
        needs(backend, Capability.PUT)
        await store.put("db", value_of("0"))
        texts = [f"at-once-{number}" for number in range(5)]
        answers = await asyncio.gather(
            *(store.put("db", value_of(text)) for text in texts), return_exceptions=True
        )
        stored = {}
        for text, answer in zip(texts, answers, strict=True):
            if isinstance(answer, SecretVersion):
                stored[answer.version] = text
            else:
                assert isinstance(answer, AtlasError)
                assert answer.code in {"secret.conflict", "secret.throttled"}, shown(answer)
        assert stored
        assert len(stored) == sum(isinstance(answer, SecretVersion) for answer in answers)
        found = await store.get("db")
        assert found.value == value_of(stored[found.version])
        if Capability.VERSIONS in backend.capabilities:
            for version, text in stored.items():
                assert (await store.get("db", version=version)).value == value_of(text)

    async def test_names_at_the_same_time_do_not_mix(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """Calls for several names run beside each other."""
        needs(backend, Capability.PUT)
        names = [f"name{number}" for number in range(8)]
        await asyncio.gather(*(store.put(name, value_of(name)) for name in names))
        found = await asyncio.gather(*(store.get(name) for name in names))
        assert [version.name for version in found] == names
        assert [version.value for version in found] == [value_of(name) for name in names]

    async def test_what_was_put_outlives_the_store(
        self, backend: SecretBackend, settings: dict[str, Any], context: PlainContext
    ) -> None:
        """It is there when the backend is closed and opened again."""
        needs(backend, Capability.PUT)
        async with opened(backend, settings, context) as store:
            first = await store.put("db", value_of("first"))
            second = await store.put("db", value_of("second"))
        async with opened(backend, settings, context) as store:
            found = await store.get("db")
            assert (found.version, found.value) == (second.version, value_of("second"))
            assert (await store.get("db", stage=PREVIOUS)).version == first.version

    async def test_environments_are_separate(
        self, backend: SecretBackend, settings: dict[str, Any], context: PlainContext
    ) -> None:
        """What was put for one environment is not there in another, with the same settings."""
        needs(backend, Capability.PUT)
        async with opened(backend, settings, context) as store:
            await store.put("db", value_of("of production"))
        async with (
            other_environment(context) as staging,
            opened(backend, settings, staging) as store,
        ):
            with refused("secret.not_found", naming="db"):
                await store.get("db")
            if Capability.LIST in backend.capabilities:
                assert list(await store.list()) == []
            await store.put("db", value_of("of staging"))
        async with opened(backend, settings, context) as store:
            assert await text_of(store, "db") == f"{MARK}-of production"

    async def test_a_list_goes_by_prefix(self, backend: SecretBackend, store: SecretStore) -> None:
        """The prefix is taken literally, and an empty one means all."""
        needs(backend, Capability.PUT, Capability.LIST)
        assert list(await store.list()) == []
        names = ["a_b", "axb", "a/b", "a/c", "A/b", "b"]
        for name in names:
            await store.put(name, value_of(name))
        for prefix in ("", "a", "a/", "a_", "A", "b", "a/b", "c", "%", "*", "a%", "a.b"):
            found = [info.name for info in await store.list(prefix)]
            assert found == sorted(name for name in names if name.startswith(prefix)), prefix

    async def test_a_long_list_is_whole(self, backend: SecretBackend, store: SecretStore) -> None:
        """Nothing is lost, or twice there, where a list comes in pages."""
        needs(backend, Capability.PUT, Capability.LIST)
        names = [f"many/{number:03}" for number in range(30)]
        for name in names:
            await store.put(name, value_of(name))
        infos = await store.list("many/")
        assert all(isinstance(info, SecretInfo) for info in infos)
        assert [info.name for info in infos] == names
        assert not shows(repr(infos))
