"""The conformance suite of secret backends."""

import asyncio
import base64
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from atlasd.contracts.secrets import (
    CURRENT,
    PENDING,
    PREVIOUS,
    STAGES,
    Capability,
    KeyProgress,
    KeyRing,
    Sealer,
    SecretBackend,
    SecretInfo,
    SecretStore,
    SecretValue,
    SecretVersion,
)
from atlasd.errors import AtlasError
from atlasd.testing.context import PlainContext
from atlasd.testing.descriptors import assert_settings_are_strict

Disable = Callable[[str, str], Awaitable[None]]

LIMIT = timedelta(seconds=30)
MARK = "XyloPhon7Quartz"
"""Stands in every value of the suite, and is looked for wherever no value may be."""
NOBODY = "nobody/has-put-this"
NOTHING = timedelta(0)

ODD_NAMES = (
    "",
    " ",
    "two words",
    "/absolute",
    "closed/",
    "a//b",
    "../outside",
    ".",
    "..",
    "ünicode/ключ",
    "a@b",
    "a#b",
    "a%2Fb",
    "a--b",
    "a-2d",
    "two\nlines",
    "nul\0byte",
    "x" * 600,
)
"""Names that a backend may accept or refuse, but not misunderstand."""


def value_of(text: str) -> SecretValue:
    """A value that the suite would find wherever it is shown."""
    return SecretValue(f"{MARK}-{text}")


class SecretBackendSuite:
    """What every secret backend keeps, as far as its capabilities go.

    Derive a class whose name begins with `Test`, and give it:

    - a fixture `backend`, the descriptor (see `load_drop_in` and `load_module`);
    - a fixture `settings`, of its table in the configuration, for a place that is empty;
    - for a backend without `put`: a fixture `present`, what is there, by name;
    - if there is something that can be down: a fixture `down`, settings for a place of that kind
      where nobody answers;
    - if secrets can be disabled there: a fixture `disable`, a coroutine function that does so by
      the place's own means, given a name and the id of a version.

    Fixtures may start what keeps the secrets. The tests are coroutines: pytest-asyncio must run in
    its mode `auto`. After every test no value may stand in the log or in a file of the plugin's.
    """

    @pytest.fixture
    def context(self, tmp_path: Path) -> Iterator[PlainContext]:
        """What the backend is opened with."""
        plain = PlainContext(tmp_path / "plugin_state", config_dir=tmp_path)
        yield plain
        plain.close()

    @pytest.fixture
    def present(self) -> Mapping[str, str]:
        """What is there before anything was put."""
        return {}

    @pytest.fixture
    def down(self) -> dict[str, Any] | None:
        """Settings with which nobody answers; None if there is nobody to be down."""
        return None

    @pytest.fixture
    def disable(self) -> Disable | None:
        """How a version is disabled without the backend; None if it cannot be."""
        return None

    @pytest.fixture
    async def store(
        self, backend: SecretBackend, settings: dict[str, Any], context: PlainContext
    ) -> AsyncIterator[SecretStore]:
        """The backend, opened; a ring without keys is given one."""
        async with opened(backend, settings, context) as store:
            yield store

    @pytest.fixture(autouse=True)
    def _nothing_is_shown(self, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Iterator[None]:
        caplog.set_level(logging.DEBUG)
        yield
        form = logging.Formatter()
        for when in ("setup", "call"):
            for record in caplog.get_records(when):
                assert not shows(form.format(record)), f"{record.name} logs a value"
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert not shows(path.read_bytes().decode("latin-1")), f"{path} has a value"

    # --- what it says of itself

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

    # --- reading

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

    # --- putting

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

    # --- listing

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

    # --- versions

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

    # --- stages

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

    # --- deleting

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
            (listed,) = await store.list("d")
            assert listed.name == "db"
            assert listed.deleted is not None
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

    # --- trouble

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
            (version,) = await store.versions("db")
            assert not version.enabled

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

    # --- keys

    async def test_a_new_key_encrypts_and_the_old_ones_still_decrypt(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """The first key of the ring is the primary one; no key is ever shown."""
        needs(backend, Capability.PUT, Capability.KEYS)
        ring = _ring(store)
        old = await store.put("db", value_of("old"))
        before = list(await ring.keys())
        assert [key.primary for key in before] == [True] + [False] * (len(before) - 1)
        assert before[0].records >= 1
        made = await _keygen(ring)
        after = list(await ring.keys())
        assert [key.id for key in after] == [made.id, *(key.id for key in before)]
        assert [key.primary for key in after] == [True] + [False] * len(before)
        assert await text_of(store, "db") == f"{MARK}-old"
        new = await store.put("db", value_of("new"))
        assert (await store.get("db", version=new.version)).key in {"", made.id}
        assert (await store.get("db", version=old.version)).key in {"", before[0].id}

    async def test_keys_are_rotated(
        self, backend: SecretBackend, settings: dict[str, Any], context: PlainContext
    ) -> None:
        """Everything is protected by the new key, everything can be read, old keys are gone."""
        needs(backend, Capability.PUT, Capability.KEYS)
        texts = {f"db{number}": f"text {number}" for number in range(5)}
        async with opened(backend, settings, context) as store:
            ring = _ring(store)
            for name, text in texts.items():
                await store.put(name, value_of("before"))
                await store.put(name, value_of(text))
            old = [key.id for key in await ring.keys()]
            made = await _keygen(ring)
            seen: list[KeyProgress] = []
            end = await ring.rotate_keys(seen.append, retire=False)
            assert end.done == end.total >= len(texts)
            assert end.retired == ()
            assert [progress.done for progress in seen] == sorted(p.done for p in seen)
            assert [key.id for key in await ring.keys()] == [made.id, *old]
            assert [key.records for key in await ring.keys()][1:] == [0] * len(old)
            end = await ring.rotate_keys(seen.append)
            assert set(end.retired) == set(old)
            assert [key.id for key in await ring.keys()] == [made.id]
        async with opened(backend, settings, context) as store:
            for name, text in texts.items():
                await assert_stages(store, name, {CURRENT: text, PREVIOUS: "before"})
            assert [key.id for key in await _ring(store).keys()] == [made.id]

    # --- sealing

    async def test_what_was_sealed_is_unsealed(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A sealed value says its form and its key, and comes back whole."""
        needs(backend, Capability.SEAL)
        sealer = _sealer(store)
        for value in (value_of("text"), SecretValue(bytes(range(256))), SecretValue("")):
            text = await sealer.seal(value, binding="services.web.env.TOKEN")
            start, version, key, token = text.split(":")
            assert (start, version) == ("enc", "v1")
            assert key
            assert token
            assert text.isascii()
            assert not any(map(str.isspace, text))
            assert not shows(text)
            again = await sealer.seal(value, binding="services.web.env.TOKEN")
            assert again != text, "equal values must not be seen to be equal"
            assert await sealer.unseal(text, binding="services.web.env.TOKEN") == value

    async def test_a_sealed_value_is_bound_to_its_place(
        self,
        backend: SecretBackend,
        settings: dict[str, Any],
        context: PlainContext,
        store: SecretStore,
    ) -> None:
        """Under another key path, or in another environment, it is refused."""
        needs(backend, Capability.SEAL)
        text = await _sealer(store).seal(value_of("bound"), binding="a.b")
        for binding in ("a.c", "", "a.b.c", "A.B"):
            with refused("secret.corrupt"):
                await _sealer(store).unseal(text, binding=binding)
        async with (
            other_environment(context) as staging,
            opened(backend, settings, staging) as other,
        ):
            with refused("secret.corrupt", "secret.key"):
                await _sealer(other).unseal(text, binding="a.b")

    async def test_a_changed_token_is_refused(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """A single character, or a missing end, is enough."""
        needs(backend, Capability.SEAL)
        sealer = _sealer(store)
        text = await sealer.seal(value_of("whole"), binding="a.b")
        start = text.rindex(":") + 1
        for at in range(start, len(text.rstrip("=")) - 1, 7):
            other = "A" if text[at] != "A" else "B"
            with refused("secret.corrupt"):
                await sealer.unseal(text[:at] + other + text[at + 1 :], binding="a.b")
        for broken in (text[:-10], text[:start], text[:start] + "ünicode"):
            with refused("secret.corrupt"):
                await sealer.unseal(broken, binding="a.b")
        key = text.split(":")[2]
        with refused("secret.key"):
            await sealer.unseal(text.replace(f":{key}:", ":0000:"), binding="a.b")
        assert await sealer.unseal(text, binding="a.b") == value_of("whole")

    async def test_sealed_values_outlive_a_new_key(
        self, backend: SecretBackend, store: SecretStore
    ) -> None:
        """What an older key of the ring has sealed can still be read."""
        needs(backend, Capability.SEAL, Capability.KEYS)
        text = await _sealer(store).seal(value_of("old"), binding="a.b")
        made = await _keygen(_ring(store))
        assert await _sealer(store).unseal(text, binding="a.b") == value_of("old")
        new = await _sealer(store).seal(value_of("new"), binding="a.b")
        assert new.split(":")[2] == made.id


# --- what the tests above are made of


def needs(backend: SecretBackend, *capabilities: Capability) -> None:
    """Skip a test about what the backend does not claim to do."""
    for capability in capabilities:
        if capability not in backend.capabilities:
            pytest.skip(f"it does not declare {capability}")


@asynccontextmanager
async def opened(
    backend: SecretBackend, settings: dict[str, Any], context: PlainContext
) -> AsyncIterator[SecretStore]:
    """The backend, opened with settings as a file has them; a ring without keys gets one."""
    model = backend.settings.model_validate(settings)
    async with backend.open(model, context) as store:
        if Capability.KEYS in backend.capabilities and not await _ring(store).keys():
            await _ring(store).keygen()
        yield store


@asynccontextmanager
async def other_environment(context: PlainContext) -> AsyncIterator[PlainContext]:
    """A context for the same folders in another environment."""
    plain = PlainContext(
        context.state_dir,
        clock=context.clock,
        environment="staging",
        config_dir=context.config_dir,
    )
    try:
        yield plain
    finally:
        plain.close()


@contextmanager
def refused(*codes: str, naming: str = "") -> Iterator[None]:
    """Assert that a call is refused with one of these codes, and that no value is shown."""
    with pytest.raises(AtlasError) as caught:
        yield
    only(caught.value, *codes, naming=naming)


def only(error: AtlasError, *codes: str, naming: str = "") -> None:
    """Assert that an error has one of these codes, names what it is about and shows no value."""
    assert error.code in codes, f"{error.code}: {error.message}"
    assert naming in error.message, f"{error.message!r} does not say {naming!r}"
    assert not shows(shown(error)), "an error shows a value"


def shown(error: BaseException) -> str:
    """Everything that an error could bring to light."""
    wire = repr(error.to_wire()) if isinstance(error, AtlasError) else ""
    return "".join(traceback.format_exception(error)) + repr(error) + wire


def shows(text: str) -> bool:
    """Whether one of the suite's values stands in a text, plain or in a plain encoding."""
    raw = MARK.encode()
    forms = {MARK, raw.hex()}
    for shift in range(3):
        # Without the characters at the ends, which depend on the bytes beside the mark.
        coded = base64.b64encode(b"\0" * shift + raw).decode()
        forms.add(coded.rstrip("=")[4:-2])
    return any(form in text for form in forms)


async def text_of(store: SecretStore, name: str) -> str:
    """The current value, as text."""
    found = await store.get(name)
    assert found.value is not None
    return found.value.text()


async def assert_stages(store: SecretStore, name: str, expected: Mapping[str, str | None]) -> None:
    """Assert which text each stage has; None means that no version is at it."""
    for stage, text in expected.items():
        if text is None:
            with refused("secret.not_found", naming=name):
                await store.get(name, stage=stage)
            continue
        found = await store.get(name, stage=stage)
        assert found.value == value_of(text), f"{stage} of {name} is not {text!r}"
        assert stage in found.stages
        assert set(found.stages) <= set(STAGES)


async def assert_gone(backend: SecretBackend, store: SecretStore, name: str) -> None:
    """Assert that nothing of a secret is left."""
    with refused("secret.not_found", naming=name):
        await store.get(name)
    with refused("secret.not_found", naming=name):
        await store.describe(name)
    if Capability.LIST in backend.capabilities:
        assert name not in [info.name for info in await store.list()]
    if Capability.RECOVER in backend.capabilities:
        with refused("secret.not_found", naming=name):
            await store.recover(name)


def _ring(store: SecretStore) -> KeyRing:
    assert isinstance(store, KeyRing)
    return store


def _sealer(store: SecretStore) -> Sealer:
    assert isinstance(store, Sealer)
    return store


async def _keygen(ring: KeyRing) -> Any:
    try:
        return await ring.keygen()
    except AtlasError as error:
        only(error, "secret.conflict")
        pytest.skip("its keys come from a source that cannot be written")
