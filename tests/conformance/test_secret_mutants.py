"""The suite of secret backends catches a backend that breaks a promise, one promise at a time."""

import asyncio
import dataclasses
import fnmatch
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from atlasd.contracts.context import PluginContext
from atlasd.contracts.secrets import (
    CURRENT,
    PENDING,
    Capability,
    KeyInfo,
    KeyProgress,
    SecretBackend,
    SecretInfo,
    SecretValue,
    SecretVersion,
)
from atlasd.contracts.settings import NoSettings
from atlasd.errors import AtlasError
from atlasd.testing import MemoryBackend, PlainContext
from atlasd.testing.memory_backend import EVERYTHING, MemoryStore
from atlasd.testing.secrets import SecretBackendSuite
from atlasd.testing.secrets.asserting import MARK, assert_nothing_is_shown, opened, value_of


class Mutant(MemoryStore):
    """A store that can look behind its own back."""

    def __init__(self, backend: MemoryBackend, environment: str, context: PluginContext) -> None:
        super().__init__(backend, environment)
        self.memory = backend
        self.context = context
        self.mine = backend.kept.setdefault(environment, {})


class ForgetsPrevious(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        put = await super().put(name, value, stage=stage, actor=actor)
        self.mine[name].stages.pop("previous", None)
        return put


class KeepsOnlyText(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        text = SecretValue(value.reveal().decode(errors="replace"))
        return await super().put(name, text, stage=stage, actor=actor)


class Strips(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        return await super().put(
            name, SecretValue(value.reveal().strip()), stage=stage, actor=actor
        )


class GivesTheValueBack(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        put = await super().put(name, value, stage=stage, actor=actor)
        return dataclasses.replace(put, value=value)


class MakesPendingCurrent(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        put = await super().put(name, value, stage=stage, actor=actor)
        self.mine[name].stages[CURRENT] = put.version
        return put


class RacesWithItself(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        before = self.memory._made
        await asyncio.sleep(0)
        self.memory._made = before
        return await super().put(name, value, stage=stage, actor=actor)


class TakesDeletedNames(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        if name in self.mine:
            self.mine[name].deleted = None
        return await super().put(name, value, stage=stage, actor=actor)


class SaysWhatIsTooLarge(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        if len(value) > 100_000:
            raise AtlasError("secret.invalid", f"{name}: too large: {value.reveal()[:50]!r}")
        return await super().put(name, value, stage=stage, actor=actor)


class Logs(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        self.context.log.debug("putting %r", value.reveal())
        return await super().put(name, value, stage=stage, actor=actor)


class WritesPlainFiles(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        (self.context.state_dir / "store").write_bytes(value.reveal())
        return await super().put(name, value, stage=stage, actor=actor)


class SmallLetters(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        return await super().put(name.lower(), value, stage=stage, actor=actor)

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        found = await super().get(name.lower(), version=version, stage=stage)
        return dataclasses.replace(found, name=name)


class OnlyDashes(Mutant):
    async def put(
        self, name: str, value: SecretValue, *, stage: str = CURRENT, actor: str = ""
    ) -> SecretVersion:
        put = await super().put(name.replace("/", "-"), value, stage=stage, actor=actor)
        return dataclasses.replace(put, name=name)

    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        found = await super().get(name.replace("/", "-"), version=version, stage=stage)
        return dataclasses.replace(found, name=name)


class RaisesWhatItLikes(Mutant):
    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        if name not in self.mine:
            raise KeyError(name)
        return await super().get(name, version=version, stage=stage)


class GivesWhatIsCurrent(Mutant):
    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        found = await super().get(name, stage=stage)
        return dataclasses.replace(found, version=version or found.version)


class GivesTheDisabled(Mutant):
    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        self.memory.enable(name)
        return await super().get(name, version=version, stage=stage)


class GivesTheDeleted(Mutant):
    async def get(self, name: str, *, version: str = "", stage: str = CURRENT) -> SecretVersion:
        if name in self.mine:
            self.mine[name].deleted = None
        return await super().get(name, version=version, stage=stage)


class SharesEnvironments(Mutant):
    def __init__(self, backend: MemoryBackend, environment: str, context: PluginContext) -> None:
        super().__init__(backend, "all", context)


class ListsByPattern(Mutant):
    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        pattern = prefix.replace("_", "?").replace("%", "*") + "*"
        return [i for i in await super().list() if fnmatch.fnmatchcase(i.name, pattern)]


class ListsOnePage(Mutant):
    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        return (await super().list(prefix))[:20]


class ListsBackwards(Mutant):
    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        return (await super().list(prefix))[::-1]


class HidesTheDeleted(Mutant):
    async def list(self, prefix: str = "") -> Sequence[SecretInfo]:
        return [info for info in await super().list(prefix) if not info.deleted]


class OldestFirst(Mutant):
    async def versions(self, name: str) -> Sequence[SecretVersion]:
        return (await super().versions(name))[::-1]


class LetsPendingBe(Mutant):
    async def stage(self, name: str, version: str, stage: str) -> None:
        await super().stage(name, version, stage)
        if stage == CURRENT:
            self.mine[name].stages[PENDING] = version


class PromotesWithoutPrevious(Mutant):
    async def stage(self, name: str, version: str, stage: str) -> None:
        previous = self.mine[name].stages.get("previous") if name in self.mine else None
        await super().stage(name, version, stage)
        if previous is not None:
            self.mine[name].stages["previous"] = previous


class PromotesTheUnknown(Mutant):
    async def stage(self, name: str, version: str, stage: str) -> None:
        try:
            await super().stage(name, version, stage)
        except AtlasError as error:
            if error.code == "secret.invalid":
                return
            raise


class DeletesForGood(Mutant):
    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        return await super().delete(name, recovery=timedelta(0))


class DeletesNothingForGood(Mutant):
    async def delete(self, name: str, *, recovery: timedelta | None = None) -> SecretInfo:
        if name in self.mine and self.mine[name].deleted:
            return SecretInfo(name=name)
        return await super().delete(name, recovery=recovery or None)


class RecoversWithoutStages(Mutant):
    async def recover(self, name: str) -> SecretInfo:
        info = await super().recover(name)
        self.mine[name].stages = {CURRENT: info.current}
        return info


class MakesUpDescriptions(Mutant):
    async def describe(self, name: str) -> SecretInfo:
        return SecretInfo(name=name)


class KeepsOnlyTheNewKey(Mutant):
    async def keygen(self) -> KeyInfo:
        made = await super().keygen()
        del self.memory.keys[1:]
        return made


class RewrapsNothing(Mutant):
    async def rotate_keys(
        self, progress: Callable[[KeyProgress], None] = lambda _: None, *, retire: bool = True
    ) -> KeyProgress:
        return KeyProgress(done=5, total=5, retired=tuple(self.memory.keys[1:]) if retire else ())


class LosesWhatItRewraps(Mutant):
    async def rotate_keys(
        self, progress: Callable[[KeyProgress], None] = lambda _: None, *, retire: bool = True
    ) -> KeyProgress:
        for version in self.memory.versions():
            version.value = SecretValue("lost")
        return await super().rotate_keys(progress, retire=retire)


class SealsForEveryPlace(Mutant):
    async def seal(self, value: SecretValue, *, binding: str) -> str:
        return await super().seal(value, binding="")

    async def unseal(self, text: str, *, binding: str) -> SecretValue:
        return await super().unseal(text, binding="")


class SealsForEveryEnvironment(Mutant):
    def __init__(self, backend: MemoryBackend, environment: str, context: PluginContext) -> None:
        super().__init__(backend, environment, context)
        self._environment = "all"


class SealsAlikeWhatIsAlike(Mutant):
    async def seal(self, value: SecretValue, *, binding: str) -> str:
        seals = self.memory.__dict__.setdefault("seals", {})
        if value not in seals:
            seals[value] = await super().seal(value, binding=binding)
        return str(seals[value])


class SealsNothing(Mutant):
    async def seal(self, value: SecretValue, *, binding: str) -> str:
        return f"enc:v1:none:{value.reveal().hex()}"

    async def unseal(self, text: str, *, binding: str) -> SecretValue:
        return SecretValue(bytes.fromhex(text.split(":")[3]))


class LeavesTasks(Mutant):
    def __init__(self, backend: MemoryBackend, environment: str, context: PluginContext) -> None:
        super().__init__(backend, environment, context)
        self.task = asyncio.ensure_future(asyncio.sleep(30))


class NeedsEverythingAtOnce(Mutant):
    def __init__(self, backend: MemoryBackend, environment: str, context: PluginContext) -> None:
        super().__init__(backend, environment, context)
        if backend._faults:
            raise AtlasError("secret.unavailable", "cannot be opened")


class Lax(BaseModel):
    anything: str = ""


CAUGHT = {
    ForgetsPrevious: "a_second_put_makes_the_first_previous",
    KeepsOnlyText: "values_come_back_as_they_were",
    Strips: "values_come_back_as_they_were",
    GivesTheValueBack: "what_was_put_is_had",
    MakesPendingCurrent: "pending_leaves_current_alone",
    RacesWithItself: "puts_at_the_same_time_are_all_whole",
    TakesDeletedNames: "a_deleted_name_is_not_free",
    SaysWhatIsTooLarge: "values_that_it_cannot_have_are_refused",
    SmallLetters: "names_are_told_apart",
    OnlyDashes: "names_are_told_apart",
    RaisesWhatItLikes: "what_is_not_there_is_not_found",
    GivesWhatIsCurrent: "versions_are_told_the_newest_first",
    GivesTheDisabled: "a_disabled_version_is_said_to_be",
    GivesTheDeleted: "what_is_deleted_can_be_recovered",
    SharesEnvironments: "environments_are_separate",
    ListsByPattern: "a_list_goes_by_prefix",
    ListsOnePage: "a_long_list_is_whole",
    ListsBackwards: "a_long_list_is_whole",
    HidesTheDeleted: "what_is_deleted_can_be_recovered",
    OldestFirst: "versions_are_told_the_newest_first",
    LetsPendingBe: "promotion",
    PromotesWithoutPrevious: "promotion",
    PromotesTheUnknown: "stages_are_moved_only_to_what_there_is",
    DeletesForGood: "what_is_deleted_can_be_recovered",
    DeletesNothingForGood: "what_is_deleted_for_good_is_gone",
    RecoversWithoutStages: "what_is_deleted_can_be_recovered",
    MakesUpDescriptions: "what_is_not_there_is_not_found",
    KeepsOnlyTheNewKey: "a_new_key_encrypts_and_the_old_ones_still_decrypt",
    RewrapsNothing: "keys_are_rotated",
    LosesWhatItRewraps: "keys_are_rotated",
    SealsForEveryPlace: "a_sealed_value_is_bound_to_its_place",
    SealsForEveryEnvironment: "a_sealed_value_is_bound_to_its_place",
    SealsAlikeWhatIsAlike: "what_was_sealed_is_unsealed",
    SealsNothing: "a_changed_token_is_refused",
    LeavesTasks: "nothing_is_left_when_it_is_closed",
    NeedsEverythingAtOnce: "it_opens_while_it_is_down",
}
"""Each way to break a promise, and the test that has to notice."""


def backend_of(
    mutant: type[Mutant], *, capabilities: frozenset[Capability] = EVERYTHING
) -> tuple[MemoryBackend, SecretBackend]:
    memory = MemoryBackend(capabilities=capabilities)

    @asynccontextmanager
    async def open_mutant(settings: Any, context: PluginContext) -> AsyncIterator[Mutant]:
        yield mutant(memory, context.environment, context)

    return memory, dataclasses.replace(memory.descriptor, open=open_mutant)


async def run(test: str, mutant: type[Mutant], context: PlainContext, value: bytes) -> None:
    """One test of the suite as pytest would call it."""
    memory, backend = backend_of(mutant)
    method = getattr(SecretBackendSuite(), f"test_{test}")
    wanted = inspect.signature(method).parameters

    async def disable(name: str, version: str) -> None:
        memory.disable(name, version)

    if "down" in wanted:
        memory.fail("secret.unavailable")
    given = {
        "backend": backend,
        "settings": {},
        "context": context,
        "present": {},
        "down": {},
        "disable": disable,
        "value": value,
    }
    if "store" in wanted:
        async with opened(backend, {}, context) as given["store"]:
            await method(**{name: given[name] for name in wanted})
    else:
        await method(**{name: given[name] for name in wanted})


def value_for(mutant: type[Mutant]) -> bytes:
    return b"  " + MARK.encode() * (10_000 if mutant is SaysWhatIsTooLarge else 1) + b"\xff\n"


@pytest.fixture
def context(tmp_path: Path) -> Any:
    plain = PlainContext(tmp_path / "state")
    yield plain
    plain.close()


@pytest.mark.parametrize("mutant", CAUGHT, ids=lambda mutant: mutant.__name__)
async def test_a_broken_promise_is_noticed(mutant: type[Mutant], context: PlainContext) -> None:
    with pytest.raises((AssertionError, AtlasError, KeyError, pytest.fail.Exception)) as caught:
        await run(CAUGHT[mutant], mutant, context, value_for(mutant))
    assert not isinstance(caught.value, pytest.skip.Exception)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.parametrize("test", sorted(set(CAUGHT.values())))
async def test_who_keeps_it_passes_the_same_way(test: str, context: PlainContext) -> None:
    await run(test, Mutant, context, b"  " + MARK.encode() + b"\xff\n")


@pytest.mark.parametrize("mutant", [Logs, WritesPlainFiles], ids=lambda mutant: mutant.__name__)
async def test_a_value_that_is_shown_is_seen(
    mutant: type[Mutant], context: PlainContext, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    _, backend = backend_of(mutant)
    async with opened(backend, {}, context) as store:
        assert_nothing_is_shown(caplog.records, tmp_path)
        await store.put("db", value_of("secret"))
    with pytest.raises(AssertionError, match="value"):
        assert_nothing_is_shown(caplog.records, tmp_path)


async def test_a_missing_capability_without_its_refusal_is_noticed(context: PlainContext) -> None:
    memory, _ = backend_of(Mutant)
    backend = dataclasses.replace(memory.descriptor, capabilities=frozenset())
    async with opened(backend, {}, context) as store:
        with pytest.raises(pytest.fail.Exception):
            await SecretBackendSuite().test_what_it_cannot_do_is_refused_by_name(backend, store)


def test_lax_settings_and_strange_capabilities_are_noticed() -> None:
    _, backend = backend_of(Mutant)
    suite = SecretBackendSuite()
    suite.test_settings_are_strict(backend, {})
    with pytest.raises(pytest.fail.Exception):
        suite.test_settings_are_strict(dataclasses.replace(backend, settings=Lax), {})
    assert backend.settings is NoSettings
    suite.test_capabilities_go_together(backend)
    alone = dataclasses.replace(backend, capabilities=frozenset({Capability.RECOVER}))
    with pytest.raises(AssertionError):
        suite.test_capabilities_go_together(alone)
