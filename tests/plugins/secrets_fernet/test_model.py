"""The store against a simple model: any operations in any order, by several openers."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atlasd.clock import HandClock
from atlasd.contracts.secrets import CURRENT, PENDING, PREVIOUS, STAGES, SecretValue
from atlasd.errors import AtlasError
from atlasd.testing import PlainContext
from atlasd_plugins.secrets_fernet import FernetSettings
from atlasd_plugins.secrets_fernet.store import FernetStore
from tests.plugins.secrets_fernet.stores import Home

T = TypeVar("T")

KEEP = 4
names = st.sampled_from(["db", "a/b", "a/c"])
environments = st.sampled_from(["production", "staging"])
stages = st.sampled_from(STAGES)


@dataclass
class Model:
    """One secret, as plainly as it can be said."""

    last: int = 0
    values: dict[int, str] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)
    until: float | None = None
    """When a deleted one is gone for good."""

    def move(self, stage: str, number: int) -> None:
        before = self.at.get(stage)
        if before == number:
            return
        self.at[stage] = number
        if stage == CURRENT:
            if before is not None:
                self.at[PREVIOUS] = before
            if self.at.get(PENDING) == number:
                del self.at[PENDING]

    def trim(self) -> None:
        for number in sorted(self.values):
            if len(self.values) > KEEP and number not in self.at.values():
                del self.values[number]

    def forget(self) -> None:
        self.values, self.at, self.until = {}, {}, None


class Stores(RuleBasedStateMachine):
    """Two environments of one store, each with an opener that may be dropped at any time."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.home = Home(self.folder)
        self.loop = asyncio.new_event_loop()
        self.contexts: dict[str, PlainContext] = {}
        self.stores: dict[str, FernetStore] = {}
        for environment in ("production", "staging"):
            self.reopen(environment)
        self.models: dict[tuple[str, str], Model] = {}
        self.sealed: dict[tuple[str, str], str] = {}
        self.now = self.home.clock.wall()
        self.run(self.stores["production"].keygen())

    def run(self, call: Awaitable[T]) -> T | str:
        """What a call returns, or the code of its error."""

        async def waited() -> T:
            return await call

        try:
            return self.loop.run_until_complete(waited())
        except AtlasError as error:
            return error.code

    def model(self, environment: str, name: str) -> Model:
        return self.models.setdefault((environment, name), Model())

    @rule(environment=environments)
    def reopen(self, environment: str) -> None:
        if environment in self.stores:
            # As after a kill: nothing is closed in order.
            self.contexts.pop(environment).close()
            self.stores.pop(environment)._database.close()
        context = PlainContext(
            self.home.state,
            clock=self.home.clock,
            environment=environment,
            config_dir=self.home.etc,
        )
        self.contexts[environment] = context
        self.stores[environment] = FernetStore(
            FernetSettings(keep_versions=KEEP, recovery=timedelta(hours=1)), context
        )

    @rule(environment=environments, name=names, value=st.text(max_size=5), stage=stages)
    def put(self, environment: str, name: str, value: str, stage: str) -> None:
        model = self.model(environment, name)
        answer = self.run(self.stores[environment].put(name, SecretValue(value), stage=stage))
        if model.until is not None:
            assert answer == "secret.conflict"
            return
        assert not isinstance(answer, str)
        model.last += 1
        model.values[model.last] = value
        model.move(stage, model.last)
        model.trim()
        assert answer.version == str(model.last)

    @rule(environment=environments, name=names, back=st.integers(0, 5), stage=stages)
    def stage(self, environment: str, name: str, back: int, stage: str) -> None:
        model = self.model(environment, name)
        number = model.last - back
        answer = self.run(self.stores[environment].stage(name, str(number), stage))
        if model.until is not None or number not in model.values:
            assert answer == "secret.not_found"
            return
        assert answer is None
        model.move(stage, number)

    @rule(environment=environments, name=names, hours=st.sampled_from([None, 0, 1, 5]))
    def delete(self, environment: str, name: str, hours: int | None) -> None:
        model = self.model(environment, name)
        recovery = None if hours is None else timedelta(hours=hours)
        answer = self.run(self.stores[environment].delete(name, recovery=recovery))
        if not model.values:
            assert answer == "secret.not_found"
        elif hours == 0:
            model.forget()
        elif model.until is not None:
            assert answer == "secret.conflict"
        else:
            model.until = self.now + 3600 * (1 if hours is None else hours)

    @rule(environment=environments, name=names)
    def recover(self, environment: str, name: str) -> None:
        model = self.model(environment, name)
        answer = self.run(self.stores[environment].recover(name))
        if not model.values:
            assert answer == "secret.not_found"
        elif model.until is None:
            assert answer == "secret.conflict"
        else:
            model.until = None

    @rule(hours=st.sampled_from([0.5, 1, 3]))
    def wind(self, hours: float) -> None:
        assert isinstance(self.home.clock, HandClock)
        self.home.clock.wind(hours * 3600)
        self.now = self.home.clock.wall()
        for model in self.models.values():
            if model.until is not None and model.until <= self.now:
                model.forget()

    @precondition(lambda self: len(self.home.in_ring()) < 4)
    @rule(environment=environments)
    def keygen(self, environment: str) -> None:
        before = [key.id for key in self.home.in_ring()]
        made = self.run(self.stores[environment].keygen())
        assert not isinstance(made, str)
        assert [key.id for key in self.home.in_ring()] == [made.id, *before]

    @rule(environment=environments, retire=st.booleans())
    def rotate(self, environment: str, retire: bool) -> None:
        before = self.home.in_ring()
        end = self.run(self.stores[environment].rotate_keys(retire=retire))
        assert not isinstance(end, str)
        sealing = {text.split(":")[2] for text in self.sealed.values()}
        gone = {key.id for key in before[1:]} - sealing if retire else set()
        assert set(end.retired) == gone
        assert [key.id for key in self.home.in_ring()] == [
            key.id for key in before if key.id not in gone
        ]
        for key in before:
            if key.id in gone:
                assert self.home.openable(key) == 0

    @rule(environment=environments, binding=st.sampled_from(["a.b", "c"]))
    def seal(self, environment: str, binding: str) -> None:
        text = self.run(self.stores[environment].seal(SecretValue(binding), binding=binding))
        assert isinstance(text, str)
        self.sealed[environment, binding] = text

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        for (environment, name), model in self.models.items():
            store = self.stores[environment]
            for stage in STAGES:
                number = model.at.get(stage)
                answer = self.run(store.get(name, stage=stage))
                if model.until is not None or number is None:
                    assert answer == "secret.not_found"
                else:
                    assert not isinstance(answer, str)
                    assert answer.value == SecretValue(model.values[number])
                    assert answer.version == str(number)
            listed = self.run(store.versions(name))
            if model.until is not None or not model.values:
                assert listed == "secret.not_found"
            else:
                assert not isinstance(listed, str)
                assert [int(v.version) for v in listed] == sorted(model.values, reverse=True)
            info = self.run(store.describe(name))
            if not model.values:
                assert info == "secret.not_found"
            else:
                assert not isinstance(info, str)
                assert (info.versions, info.deleted is None) == (
                    len(model.values),
                    model.until is None,
                )
        for (environment, binding), text in self.sealed.items():
            value = self.run(self.stores[environment].unseal(text, binding=binding))
            assert value == SecretValue(binding)
        for environment, store in self.stores.items():
            infos = self.run(store.list())
            assert not isinstance(infos, str)
            there = [n for (e, n), m in self.models.items() if e == environment and m.values]
            assert [info.name for info in infos] == sorted(there)

    def teardown(self) -> None:
        for store in self.stores.values():
            self.loop.run_until_complete(store.close())
        for context in self.contexts.values():
            context.close()
        self.loop.close()
        shutil.rmtree(self.folder)


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
