from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.core.wanted import SCHEMA, Intent, Intents, resolve
from atlasd.services.spec import ServiceSpec
from atlasd.states import Wanted
from atlasd.store import Store


def spec(name: str, *, instances: int = 1, enabled: bool = True) -> ServiceSpec:
    return ServiceSpec(name=name, command=("true",), instances=instances, enabled=enabled)


def test_without_intents_the_configuration_decides() -> None:
    found = resolve([spec("web"), spec("job", enabled=False)], {})
    assert found.wanted == {"web": Wanted.UP, "job": Wanted.DOWN}
    assert found.ended == ()


def test_the_operators_stop_beats_the_configuration_and_a_start_beats_enabled() -> None:
    intents = {
        "web": Intent(service="web", wanted=Wanted.DOWN),
        "job": Intent(service="job", wanted=Wanted.UP),
    }
    found = resolve([spec("web"), spec("job", enabled=False)], intents)
    assert found.wanted == {"web": Wanted.DOWN, "job": Wanted.UP}


def test_a_scaling_holds_while_the_configured_number_is_what_it_was() -> None:
    intents = {"web": Intent(service="web", instances=4, configured=2)}
    held = resolve([spec("web", instances=2)], intents)
    assert held.specs["web"].instances == 4
    assert held.ended == ()
    ended = resolve([spec("web", instances=3)], intents)
    assert ended.specs["web"].instances == 3
    assert ended.ended == (intents["web"],)


def test_an_intent_for_a_service_that_is_gone_has_ended() -> None:
    intent = Intent(service="old", wanted=Wanted.DOWN)
    assert resolve([spec("web")], {"old": intent}).ended == (intent,)


intents_strategy = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(
        Intent,
        service=st.just(""),
        wanted=st.none() | st.sampled_from(Wanted),
        instances=st.none() | st.integers(0, 5),
        configured=st.none() | st.integers(0, 5),
    ),
)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5)), intents_strategy)
def test_every_configured_service_and_no_other_is_wanted_somehow(
    services: dict[str, int], drawn: dict[str, Intent]
) -> None:
    intents = {
        name: Intent(service=name, wanted=i.wanted, instances=i.instances, configured=i.configured)
        for name, i in drawn.items()
    }
    found = resolve([spec(name, instances=n) for name, n in services.items()], intents)
    assert found.specs.keys() == found.wanted.keys() == services.keys()
    for name, n in services.items():
        intent = intents.get(name)
        scaled = intent is not None and intent.instances is not None and intent.configured == n
        assert found.specs[name].instances == (
            intent.instances if intent is not None and scaled else n
        )
    # What has ended once, and was forgotten, does not end again.
    for intent in found.ended:
        intents.pop(intent.service)
    again = resolve([spec(name, instances=n) for name, n in services.items()], intents)
    assert again.ended == ()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "a.db", {"wanted": SCHEMA})
    yield opened
    await opened.close()


async def test_intents_outlive_the_daemon(store: Store) -> None:
    intents = await Intents.load(store)
    await intents.ask("web", Wanted.DOWN, actor="uid:0", now=5.0)
    await intents.scale("web", 4, configured=2, actor="uid:7", now=6.0)
    assert (await Intents.load(store)).all() == {
        "web": Intent(
            service="web",
            wanted=Wanted.DOWN,
            instances=4,
            configured=2,
            actor="uid:7",
            time=6.0,
        )
    }


async def test_scaling_to_the_configured_number_is_no_override(store: Store) -> None:
    intents = await Intents.load(store)
    await intents.scale("web", 4, configured=2, actor="", now=1.0)
    await intents.scale("web", 2, configured=2, actor="", now=2.0)
    assert (await Intents.load(store)).all()["web"].instances is None


async def test_what_has_ended_is_forgotten_but_a_stop_beside_it_is_not(store: Store) -> None:
    intents = await Intents.load(store)
    await intents.ask("web", Wanted.DOWN, actor="", now=1.0)
    await intents.scale("web", 4, configured=2, actor="", now=1.0)
    await intents.scale("api", 4, configured=2, actor="", now=1.0)
    await intents.ask("gone", Wanted.DOWN, actor="", now=1.0)
    specs = [spec("web", instances=3), spec("api", instances=1)]
    found = resolve(specs, intents.all())
    await intents.end(found.ended, found.specs)
    left = (await Intents.load(store)).all()
    assert left.keys() == {"web"}
    assert (left["web"].wanted, left["web"].instances) == (Wanted.DOWN, None)
